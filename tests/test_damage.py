"""Checkpoints that were cut, lost or changed by a bit: noticed, and an older one taken; paths that orbax cannot take."""

import errno
import json
import shutil
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny import CONFIG, K, N, assert_same, make_tiny, timeless

from rmdp_jax import ConfigError, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.records.checkpoint import latest_step, restore_checkpoint, save_checkpoint, saved_steps
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run


class State(NamedTuple):
    """What stands for a `TrainState` where only files matter."""

    iteration: jax.Array
    value: jax.Array


def state_of(iteration):
    return State(jnp.int32(iteration), jnp.arange(2000, dtype=jnp.float32) * iteration)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints 5 and 10."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    for iteration in (5, 10):
        save_checkpoint(folder, state_of(iteration))
    return folder


def flip(path, place, bit=0):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


KINDS = {"cut": cut, "removed": lambda path: path.unlink(), "flipped": lambda path: flip(path, -1)}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_any_file_is_noticed_and_the_older_checkpoint_taken(saved, tmp_path, kind):
    names = [path.relative_to(saved) for path in (saved / "10").rglob("*") if path.is_file()]
    assert len(names) >= 10
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        KINDS[kind](folder / name)
        with pytest.warns(RunWarning, match=f"{name}: is .*the older checkpoint of iteration 5 is taken"):
            assert_same(restore_checkpoint(folder, state_of(0)), state_of(5))


def test_every_bit_of_the_arrays_counts(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    data = max((tmp_path / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    random = np.random.RandomState(0)
    for place in random.randint(0, data.stat().st_size, 25):
        bit = random.randint(8)
        flip(data, place, bit)
        with pytest.warns(RunWarning, match="is not what was written"):
            assert latest_step(tmp_path / "checkpoints") == 5
        flip(data, place, bit)
    assert latest_step(tmp_path / "checkpoints") == 10


def test_checkpoints_that_are_all_damaged_are_refused_by_name(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    for step in ("5", "10"):
        cut(tmp_path / "checkpoints" / step / "default" / "_METADATA")
    with pytest.raises(ConfigError, match=r"10/default/_METADATA: is not what .* no older checkpoint that is whole"):
        restore_checkpoint(tmp_path / "checkpoints", state_of(0))


def test_checkpoints_from_before_there_were_checksums_are_read_with_a_warning(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    for manifest in tmp_path.rglob("checksums.json"):
        manifest.unlink()
    with pytest.warns(RunWarning, match="has no checksums"):
        assert_same(restore_checkpoint(tmp_path / "checkpoints", state_of(0)), state_of(10))
    cut(tmp_path / "checkpoints" / "10" / "default" / "manifest.ocdbt")
    with pytest.warns(RunWarning), pytest.raises(ConfigError, match="10: cannot be read"):
        restore_checkpoint(tmp_path / "checkpoints", state_of(0))


def test_a_checkpoint_that_was_being_written_is_none(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "10").rename(tmp_path / "checkpoints" / "saving-10")  # killed just before the end
    assert latest_step(tmp_path / "checkpoints") == 5
    save_checkpoint(tmp_path / "checkpoints", state_of(15))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"5", "15"}


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("... No space left on device ...")]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_others_as_they_are(saved, tmp_path, monkeypatch, error):
    shutil.copytree(saved, tmp_path / "checkpoints")

    def fail(checkpointer, path, **options):
        path.mkdir(parents=True)
        (path / "half").write_text("")
        raise error

    monkeypatch.setattr(ocp.Checkpointer, "save", fail)
    with pytest.raises(ConfigError, match=r"15: cannot be written \(No space left on device\)"):
        save_checkpoint(tmp_path / "checkpoints", state_of(15))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"5", "10"}
    assert latest_step(tmp_path / "checkpoints") == 10


def test_what_is_no_folder_of_checkpoints_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ConfigError, match=r"checkpoints: cannot be read \(Not a directory\)"):
        saved_steps(tmp_path / "checkpoints")


# Runs.


def run(**options):
    config = replace(CONFIG, checkpoint_every=5)
    return train(*make_tiny(), config, random_even(K, N), **{"progress": False, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints 15 and 20, in a folder with all that orbax takes for a pattern, and its result."""
    folder = tmp_path_factory.mktemp("runs") / "proj [v2]" / "lr[1e-3] a\\b*?"
    return folder, run(out=folder)


def damaged(trained, tmp_path, *steps):
    """A copy of the run in which the array data of these checkpoints are off by a bit."""
    shutil.copytree(trained[0], tmp_path / "run")
    for step in steps:
        flip(next((tmp_path / "run" / "checkpoints" / str(step)).rglob("ocdbt.process_0/d/*")), 20)
    return tmp_path / "run"


def test_a_run_is_read_again_wherever_it_is(trained, tmp_path, capsys):
    folder, result = trained
    assert saved_steps(folder / "checkpoints") == [20, 15]
    assert_same(load_run(folder, make).policies, result.policies)
    main(["evaluate", str(folder), "--episodes", "2", "--json"])
    assert '"welfare": ' in capsys.readouterr().out
    assert_same(load_run(damaged(trained, tmp_path), make).policies, result.policies)  # copied to another place


def test_a_run_with_a_damaged_checkpoint_has_the_policies_of_the_older_one(trained, tmp_path):
    folder = damaged(trained, tmp_path, 20)
    with pytest.warns(RunWarning, match="older checkpoint of iteration 15 is taken"):
        loaded = load_run(folder, make)
    policies = trained[1].policies
    kept = restore_checkpoint(trained[0] / "checkpoints", policies.params, ".learner.params", step=15)
    assert_same(loaded.policies.params, kept)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (kept, policies.params)), strict=True))
    np.testing.assert_array_equal(loaded.assignment, loaded.metrics[0]["assignment"])


def test_an_assignment_that_no_line_tells_is_that_of_the_end_and_it_says_so(trained, tmp_path):
    folder = damaged(trained, tmp_path, 20)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("assignment", None)  # as of more than 1,000 agents
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(RunWarning) as warned:
        loaded = load_run(folder, make)
    assert any("records no assignment until iteration 15" in str(warning.message) for warning in warned)
    np.testing.assert_array_equal(loaded.assignment, loaded.result["assignment"])


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_older_one(trained, tmp_path):
    folder = damaged(trained, tmp_path, 20)
    with pytest.warns(RunWarning, match="older checkpoint of iteration 15 is taken"):
        again = run(out=folder, resume=True)
    assert_same(again.state, trained[1].state)
    assert list(map(timeless, again.metrics)) == list(map(timeless, trained[1].metrics))
    assert latest_step(folder / "checkpoints") == 20


@pytest.mark.parametrize("command", ["evaluate", "report", "render", "train"])
def test_no_command_shows_a_traceback_of_damaged_checkpoints(trained, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr("jax.jit", lambda function, **options: function)
    folder = damaged(trained, tmp_path, 15, 20)
    with pytest.raises(SystemExit) as stop:
        main([command, str(folder), *(["--resume", "--quiet"] if command == "train" else [])])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoints/20/default/ocdbt.process_0/d/" in line


@pytest.mark.parametrize("how", ["removed", "empty", "file"])
def test_lost_checkpoints_do_not_let_a_run_begin_anew(trained, tmp_path, how):
    folder = damaged(trained, tmp_path)
    lines = RunFolder(folder).read_metrics()
    shutil.rmtree(folder / "checkpoints")
    if how == "empty":
        (folder / "checkpoints").mkdir()
    elif how == "file":
        (folder / "checkpoints").write_text("")
    for result in (True, False):
        if not result:
            (folder / "result.json").unlink()
        with pytest.raises(ConfigError, match=r"checkpoints:? (holds no checkpoint|cannot be read)"):
            run(out=folder, resume=True)
    assert RunFolder(folder).read_metrics() == lines


def test_lost_lines_are_told(trained, tmp_path):
    folder = damaged(trained, tmp_path)
    (folder / "metrics.jsonl").unlink()
    with pytest.warns(RunWarning, match=r"metrics\.jsonl: has no line of iteration 20"):
        resumed = run(out=folder, resume=True)
    assert_same(resumed.policies, trained[1].policies)
    assert resumed.metrics == []


def test_what_is_removed_while_a_run_goes_on_is_told_and_made_up_for(trained, tmp_path):
    def remove(line):
        if line["iteration"] == 10:
            (tmp_path / "metrics.jsonl").unlink()
        elif line["iteration"] == 15:
            shutil.rmtree(tmp_path / "checkpoints")

    with pytest.warns(RunWarning) as warned:
        run(out=tmp_path, on_metrics=remove)
    texts = [str(warning.message) for warning in warned]
    assert any("metrics.jsonl: was removed or changed" in text for text in texts)
    assert any("the checkpoint of iteration 10 was removed" in text for text in texts)
    assert [line["iteration"] for line in RunFolder(tmp_path).read_metrics()] == [5, 10, 15, 20]
    assert_same(load_run(tmp_path, make).policies, trained[1].policies)


@pytest.mark.slow
def test_seeds_go_on_from_the_latest_iteration_that_all_have(trained, tmp_path):
    """Killed between two saves: the first run has 15 and 20, the second 10 and 15."""
    options = {"seeds": 2, "out": tmp_path}
    whole = run(**options)
    second = tmp_path / "seed-4"
    shutil.rmtree(second / "checkpoints" / "20")
    for folder in (second, tmp_path / "seed-3"):
        (folder / "result.json").unlink()
    again = run(resume=True, **options)
    for one, other in zip(again, whole, strict=True):
        assert_same(one.state, other.state)
    for folder in (second, tmp_path / "seed-3"):
        assert [line["iteration"] for line in RunFolder(folder).read_metrics()] == [5, 10, 15, 20]
        assert saved_steps(folder / "checkpoints") == [20, 15]
