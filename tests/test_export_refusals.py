"""What an export refuses, each in one line, and what it leaves as it is."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from tiny import CONFIG, SIZES, K, N, make_tiny, stop_at

from rmdp_jax import ConfigError, plain_em, train
from rmdp_jax.commands.cli import main
from rmdp_jax.deploy import export, formats
from rmdp_jax.deploy.export import export_run
from rmdp_jax.envs import make
from rmdp_jax.records.loading import load_run


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "run"
    train(*make_tiny(), replace(CONFIG, transitions=2 * SIZES.transitions), plain_em(K, N), out=folder, progress=False)
    return load_run(folder, make)


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_an_earlier_export_is_replaced_and_what_else_lies_there_stays(grid, tmp_path):
    export_run(grid, tmp_path, ["safetensors", "jax"])
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "policy_7.onnx").write_text("of an earlier export of more policies")
    (tmp_path / "policy_0.onnx.part").write_text("of one that was killed")
    files = export_run(grid, tmp_path, ["jax"]).files
    assert {path.name for path in tmp_path.iterdir()} == {*files, "notes.txt"}
    assert set(files) == {"assignment.csv", "manifest.json", "policy_0.jax", "policy_1.jax"}


def test_a_killed_export_says_so_and_may_be_done_again(grid, tmp_path, monkeypatch):
    export_run(grid, tmp_path, ["safetensors"])

    def kill(source):
        raise KeyboardInterrupt

    monkeypatch.setitem(formats.FORMATS, "jax", formats.FORMATS["jax"]._replace(write=kill))
    with pytest.raises(KeyboardInterrupt):
        export_run(grid, tmp_path, ["safetensors", "jax"])
    assert read_manifest(tmp_path) == {"kind": "rmdp_jax export", "format": 1, "complete": False}
    export_run(grid, tmp_path, ["safetensors"])
    assert read_manifest(tmp_path)["complete"] is True


def refused(arguments, capsys):
    """The one line that a refused command line prints."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
    return err.removeprefix("rmdp-jax: error: ").strip()


@pytest.mark.parametrize(
    ("content", "name"), [({"name": "of a web app"}, "manifest.json"), ("not JSON", "manifest.json"), (None, "thesis.tex")]
)
def test_a_folder_of_something_else_is_left_alone(grid, tmp_path, capsys, content, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(json.dumps(content))
    line = refused(["export", str(grid.folder.path), "--out", str(out)], capsys)
    assert line == f"out = {out}: holds {name} and is no earlier export; choose another --out, or empty it"
    assert [path.name for path in out.iterdir()] == [name]


def test_other_bad_folders(grid, tmp_path, capsys):
    command, run = ["export", str(grid.folder.path), "--out"], str(grid.folder.path)
    assert refused([*command, run], capsys).startswith(f"out = {run}: holds agents.npz and is no earlier export")
    (tmp_path / "file").write_text("x")
    assert refused([*command, str(tmp_path / "file")], capsys).endswith(
        "file: cannot be written (Not a directory); choose another --out"
    )
    below = tmp_path / "file" / "below"
    assert refused([*command, str(below)], capsys).startswith(f"out = {below}: cannot be written (Not a directory)")
    assert refused([*command, "s3://bucket/policies"], capsys).startswith("out = s3:/bucket/policies: s3:// is no folder")


def test_a_full_disk_is_told_in_one_line(grid, tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(ConfigError, match=r"manifest.json: cannot be written \(No space left on device\); make room"):
        export_run(grid, tmp_path / "out", ["safetensors"])
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def no_loading(monkeypatch):
    """Nothing expensive is begun."""

    def refuse(*arguments):
        raise AssertionError("a run was loaded")

    monkeypatch.setattr("rmdp_jax.records.loading.load_run", refuse)


@pytest.mark.usefixtures("no_loading")
def test_bad_formats(grid, tmp_path, capsys):
    command = ["export", str(grid.folder.path), "--out", str(tmp_path / "out"), "--formats"]
    known = "is not known; did you mean 'onnx'? (known: jax, onnx, safetensors)"
    assert refused([*command, "jax", "onix"], capsys) == f"format = 'onix' {known}"
    assert refused(command, capsys) == "formats = (): must be one or more of onnx, jax, safetensors"
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="format = 3 is not known"):
        formats.check_formats([3])
    assert formats.check_formats("jax") == ("jax",)


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_missing_package_is_told_before_anything_expensive(grid, tmp_path, capsys, monkeypatch, name):
    (package,) = formats.FORMATS[name].packages
    monkeypatch.setattr(formats, "find_spec", lambda asked: None if asked == package else object())
    line = refused(["export", str(grid.folder.path), "--out", str(tmp_path / "out")], capsys)
    assert line.startswith(f"format = '{name}': takes {package}, which is not installed; pip install 'rmdp-jax[export]', or")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_stopped_early(tmp_path, capsys):
    train(*make_tiny(), CONFIG, plain_em(K, N), out=tmp_path / "run", progress=False, on_metrics=stop_at(10))
    line = refused(["export", str(tmp_path / "run")], capsys)
    assert "was stopped early, at iteration 10; end it with rmdp-jax train DIR --resume" in line
    (tmp_path / "run" / "result.json").unlink()
    assert "holds no result.json, so it is not the folder of a finished run; --resume" in refused(
        ["export", str(tmp_path / "run")], capsys
    )
    assert not (tmp_path / "run" / "export").exists()


def test_a_damaged_run(tmp_path, capsys):
    """The older checkpoint, which `load_run` takes, is not what the result speaks of."""
    config = replace(CONFIG, transitions=10 * SIZES.transitions, checkpoint_every=5)
    train(*make_tiny(), config, plain_em(K, N), out=tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "10")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(tmp_path / "run")])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "its last checkpoint is damaged or lost, and the policies are of iteration 5 of 10; bring it back, or" in error
    assert not (tmp_path / "run" / "export").exists()


def test_a_policy_that_is_not_finite(grid, tmp_path):
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan), grid.policies.params.own)
    run = grid._replace(policies=grid.policies._replace(params=grid.policies.params._replace(own=broken)))
    with pytest.raises(ConfigError, match="policy 1 is not finite, so it cannot act; train again"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_an_export_may_remove():
    assert all(map(export._OURS.fullmatch, ["policy_0.onnx", "policy_12.jax", "policy_3.safetensors.part", "run_policy.py"]))
    assert not any(map(export._OURS.fullmatch, ["policy_0.html", "policy_0.mp4", "policy_x.onnx", "my_policy_0.onnx"]))
