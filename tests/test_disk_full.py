"""Writes that fail: one line, what was saved before stays whole, and what was learned since is saved where it can be."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orbax.checkpoint as ocp
import pytest
from tiny import COMMAND, CONFIG, K, N, assert_same, make_tiny, timeless

from rmdp_jax import ConfigError, random_even, train
from rmdp_jax.records import files
from rmdp_jax.records.checkpoint import saved_steps
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.folder import RunFolder

FULL = OSError(errno.ENOSPC, "No space left on device")


def run(**options):
    config = replace(CONFIG, checkpoint_every=5)
    return train(*make_tiny(), config, random_even(K, N), **{"progress": False, **options})


@pytest.fixture(scope="module")
def whole():
    return run()


def full_from(monkeypatch, owner, name, call, calls=10**6):
    """From this call on, and for so many calls, `owner.name` finds the disk full."""
    original, seen = getattr(owner, name), []

    def write(*arguments, **options):
        seen.append(name)
        if call <= len(seen) < call + calls:
            raise FULL
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, write)


def full_for(monkeypatch, name):
    """The disk is full for texts that are written anew into files of this name."""
    original = Path.write_text

    def write(path, *arguments, **options):
        if path.name.startswith(name):
            raise FULL
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write)


@pytest.mark.parametrize("failing", ["metrics", "checkpoint", "result"])
def test_what_was_learned_goes_on_when_there_is_room_again(tmp_path, monkeypatch, whole, failing):
    with monkeypatch.context() as patch:
        if failing == "metrics":
            full_from(patch, files, "_remove_cut_line", 2, calls=1)  # of the second line, for a moment
        elif failing == "checkpoint":
            full_from(patch, ocp.Checkpointer, "save", 2)
        else:
            full_for(patch, "result.json")
        with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\); make room"):
            run(out=tmp_path)
    assert saved_steps(tmp_path / "checkpoints") == {"metrics": [10, 5], "checkpoint": [5], "result": [20, 15]}[failing]
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob("saving-*"))
    again = run(out=tmp_path, resume=True)
    assert_same(again.state, whole.state)
    assert list(map(timeless, again.metrics)) == list(map(timeless, whole.metrics))


def test_lines_that_were_lost_on_a_full_disk_are_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        full_from(patch, files, "_remove_cut_line", 2)
        full_for(patch, "metrics.jsonl")
        with pytest.raises(ConfigError, match=r"metrics\.jsonl: cannot be written"):
            run(out=tmp_path)
    with pytest.warns(RunWarning, match=r"metrics\.jsonl: has no line of iteration 10"):
        run(out=tmp_path, resume=True)
    assert [line["iteration"] for line in RunFolder(tmp_path).read_metrics()] == [5, 15, 20]


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_a_command_in_a_line(tmp_path):
    """6 KiB are too few for a checkpoint."""
    command = [sys.executable, "-m", "rmdp_jax", *COMMAND, "--quiet", "--no-cache"]
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -f 6; exec "$@"', "-", *command, "--out", str(tmp_path / "run")],
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},  # which would be left with programs that are cut off
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("rmdp-jax: error: ")
    assert "cannot be written (" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
