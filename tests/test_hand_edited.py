"""Files of a run that people or machines changed: one line that names file and field, whatever is in them."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny import CONFIG, SIZES, K, N, make_tiny

from rmdp_jax import ConfigError, plain_em, train
from rmdp_jax.commands.cli import main
from rmdp_jax.commands.tables import print_summary
from rmdp_jax.envs import make
from rmdp_jax.evaluation.comparison import compare_runs
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run
from rmdp_jax.records.pictures import general_pictures
from rmdp_jax.records.settings import load_train_config

BAD = [None, "x", -1, 1.5, True, [], {}, [[[]]], 10**400, "\x00", [None] * 3]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two iterations, loaded."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = replace(CONFIG, transitions=2 * SIZES.transitions, log_every=1)
    train(*make_tiny(), config, plain_em(K, N), out=folder, progress=False)
    return load_run(folder, make)


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained.folder.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def places(content, way=()):
    """Ways to every field of an object, and of those in it."""
    for name, value in content.items():
        yield (*way, name)
        if isinstance(value, dict):
            yield from places(value, (*way, name))


def changes(content):
    """(name of a field, content) with the field missing or bad, for every field and every kind of bad."""
    for way in places(content):
        for value in ["missing", *BAD]:
            changed = copy.deepcopy(content)
            inner = changed
            for name in way[:-1]:
                inner = inner[name]
            if value == "missing":
                del inner[way[-1]]
            else:
                inner[way[-1]] = value
            yield way, value, changed


def refusal_of(read):
    """The message of the `ConfigError` that `read` raises, None where it raises nothing; anything else comes out."""
    try:
        read()
    except ConfigError as error:
        return str(error)
    return None


def test_any_field_of_config_json(folder):
    content = json.loads((folder.path / "config.json").read_text())
    refused = 0
    for way, value, changed in changes(content):
        (folder.path / "config.json").write_text(json.dumps(changed))
        error = refusal_of(lambda: load_train_config(folder.read_config()))
        if error is not None:
            refused += 1
            assert "config.json" in error, (way, value)
            assert "\n" not in error
            assert value != "missing" or way[-1] in error, (way, error)
    assert refused > 200
    for way, value in ((("env_options", "size"), "x"), (("env_options", "nobody"), 1), (("env",), "nowhere")):
        changed = copy.deepcopy(content)
        inner = changed if len(way) == 1 else changed[way[0]]
        inner[way[-1]] = value
        (folder.path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ConfigError, match=r"size = 'x'|nobody|nowhere"):
            load_run(folder.path, make)


def test_any_field_of_result_json(folder, trained, capsys):
    content = json.loads((folder.path / "result.json").read_text())
    refused = 0
    for way, value, changed in changes(content):
        (folder.path / "result.json").write_text(json.dumps(changed))
        error = refusal_of(lambda: folder.read_result() | folder.read_arrays())
        if error is not None:
            refused += 1
            assert error.startswith(f"{folder.path / 'result.json'}: "), (way, value)
            assert value != "missing" or way[-1] in error, (way, error)
            continue
        result = folder.read_result() | folder.read_arrays()
        result["episode_length"] = [np.nan if x is None else x for x in result["episode_length"]]
        print_summary(result)  # what is accepted can be shown
    assert refused > 200


def test_any_field_of_a_line_of_metrics(folder, trained):
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    refused = 0
    for way, value, changed in changes(lines[1]):
        folder.metrics.write_text(json.dumps(lines[0]) + "\n" + json.dumps(changed) + "\n")
        error = refusal_of(lambda: folder.read_metrics(K, N))
        if error is not None:
            refused += 1
            assert error.startswith(f"{folder.metrics}: line 2: "), (way, value)
            assert way[-1] in error
            continue
        metrics = folder.read_metrics(K, N)
        for name in ("transitions_per_policy", "welfare", "flips", "policy_sizes"):
            assert np.array([line[name] for line in metrics], float).shape[0] == 2
    assert refused > 50
    folder.metrics.unlink()
    assert general_pictures(trained._replace(metrics=folder.read_metrics())).keys() >= {"welfare", "assignment"}


DEEP = "[" * 100_000
FILES = {
    "binary": b"\x89PNG\r\n\x1a\n\x00\xff",
    "deep": DEEP.encode(),
    "empty": b"",
    "list": b"[1, 2]",
    "number": b"1e999",
    "half": b'{"format": 1, "env": "res',
}


@pytest.mark.parametrize("name", ["config.json", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("kind", FILES)
def test_any_file_instead(folder, capsys, kind, name):
    (folder.path / name).write_bytes(FILES[kind] + (b"\n" if name == "metrics.jsonl" else b""))
    if (name, kind) == ("metrics.jsonl", "empty"):
        assert load_run(folder.path, make).metrics == []
        return
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder.path)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rmdp-jax: error: {folder.path / name}: ")


def test_a_folder_instead_of_a_file(folder, capsys):
    (folder.path / "result.json").unlink()
    (folder.path / "result.json").mkdir()
    with pytest.raises(ConfigError, match=r"result\.json: cannot be read \(Is a directory\)"):
        folder.read_result()


def test_two_files_that_disagree(folder):
    content = json.loads((folder.path / "config.json").read_text())
    content["train"]["seed"] = 4
    (folder.path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"seed = 4 in config\.json, but 3 in result\.json"):
        load_run(folder.path, make)


def test_arrays_beside_a_result_are_checked(folder):
    content = json.loads((folder.path / "result.json").read_text())
    utility = np.array(content.pop("utility"))
    del content["assignment"]
    (folder.path / "result.json").write_text(json.dumps({**content, "arrays": "result.npz"}))
    np.savez(folder.path / "result.npz", assignment=np.array([0, 1, 0, 7]), utility=utility)
    with pytest.raises(ConfigError, match=r"result\.npz: cannot be read \(it is not of k = 2 policies"):
        folder.read_arrays()
    np.savez(folder.path / "result.npz", assignment=np.array([0, 1, 0, None], object), utility=utility)
    with pytest.raises(ConfigError, match=r"result\.npz: cannot be read \(Object arrays cannot be loaded"):
        folder.read_arrays()
    (folder.path / "result.json").write_text(json.dumps({**content, "arrays": "../result.npz"}))
    with pytest.raises(ConfigError, match=r"arrays = '\.\./result\.npz': must be 'result\.npz'"):
        folder.read_arrays()


def test_one_bad_run_does_not_stop_a_comparison(folder, trained):
    many = folder.path.parent
    for name, file, text in (("a", "result.json", "half"), ("b", "config.json", DEEP), ("c", "result.json", "{}")):
        shutil.copytree(trained.folder.path, many / name)
        (many / name / file).write_text(text)
    result = json.loads((trained.folder.path / "result.json").read_text())
    shutil.copytree(trained.folder.path, many / "diverged")
    (many / "diverged" / "result.json").write_text(json.dumps({**result, "welfare": None, "seed": 9}))
    (many / "runs.jsonl").write_text(json.dumps({**result, "k": "two"}) + "\n")
    with pytest.warns(RunWarning) as warned:
        found = find_runs([many])
    assert [row.seeds for row in compare_runs(found.lines)] == [1]
    texts = sorted(str(warning.message).removeprefix("left out: ") for warning in warned)
    assert [text.removeprefix(f"{many}/").split(":")[0] for text in texts] == [
        *("a/result.json", "b/config.json", "c/result.json", "diverged", "runs.jsonl")
    ]
    assert "its welfare is not a number" in texts[3]


def test_runs_are_found_by_links_once_and_not_for_ever(folder, trained, tmp_path):
    place = tmp_path / "links"
    place.mkdir()
    (place / "run").symlink_to(trained.folder.path, target_is_directory=True)
    (place / "again").symlink_to(trained.folder.path, target_is_directory=True)
    (place / "circle").symlink_to(place, target_is_directory=True)
    found = find_runs([place])
    assert (len(found.lines), found.repeated) == (1, 0)


def test_a_folder_that_cannot_be_written_is_reported_elsewhere(folder, tmp_path, capsys, monkeypatch):
    from rmdp_jax import plots

    save = plots.save

    def refuse(figure, path, **options):
        if path.is_relative_to(folder.path):
            raise PermissionError(13, "Permission denied", str(path))
        return save(figure, path, **options)

    monkeypatch.setattr(plots, "save", refuse)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder.path)])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert "welfare" in out  # the table comes first
    assert f"cannot be written (Permission denied); the run is whole; draw it elsewhere: rmdp-jax report {folder.path}" in err
    main(["report", str(folder.path), "--pictures", str(tmp_path / "elsewhere")])
    assert {path.suffix for path in (tmp_path / "elsewhere").iterdir()} == {".png"}
