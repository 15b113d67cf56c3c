import json
import os
from pathlib import Path

import pytest
from tiny import CONFIG, make_tiny

from rmdp_jax import ConfigError, train, use_cache
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.paths import local_path
from rmdp_jax.plots import policy_colors, save
from rmdp_jax.plots.style import new_figure
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.loading import load_run
from rmdp_jax.running.sweep import sweep

ELSEWHERE = ["gs://bucket/run", "s3://bucket/run", "http://host/run", "hdfs://x/y", "file:///tmp/run", Path("gs://bucket/run")]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_tilde_is_a_home(home):
    assert local_path("out", "~/runs/first") == home / "runs" / "first"
    assert local_path("out", Path("~")) == home
    assert local_path("out", "runs/~") == Path("runs/~")  # in the middle it is a name
    with pytest.raises(ConfigError, match=r"out = ~nobody_at_all/x: there is no such home"):
        local_path("out", "~nobody_at_all/x")


@pytest.mark.parametrize(
    "name", ["a b", "a[/b]c", "[bold]", "back\\slash", "smile 😀", ":smile:", "$x$", "C:", "a:b", "lr=1e-3"]
)
def test_other_names_stay_as_they_are(name):
    assert local_path("out", name) == Path(name)


@pytest.mark.parametrize("value", [*ELSEWHERE, "", "a\0b", 3, b"bytes"], ids=repr)
def test_what_is_no_local_path_is_refused(value):
    with pytest.raises(ConfigError, match=r"^out = .*(mount it|must be the path)"):
        local_path("out", value)


WAYS_IN = {
    "train": lambda path: train(*make_tiny(), CONFIG, out=path),
    "train, several seeds": lambda path: train(*make_tiny(), CONFIG, seeds=2, out=path),
    "load_run": lambda path: load_run(path, make),
    "find_runs": lambda path: find_runs([path]),
    "sweep": lambda path: sweep([], [0], path, make=make),
    "use_cache": use_cache,
    "save": lambda path: save(new_figure(1, 1, policy_colors(1)[0]), path),
}
COMMANDS = [
    ["train", "resource_gathering", "--out"],
    ["sweep", "resource_gathering", "--out"],
    ["compare"],
    ["compare", ".", "--picture"],
    ["evaluate"],
    ["report"],
    ["render"],
    ["budget"],
    ["budget", "resource_gathering", "--out"],
]


@pytest.fixture
def from_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jax.jit", None)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("from_empty_folder")
@pytest.mark.parametrize("way", WAYS_IN)
def test_every_way_in_refuses_addresses(way):
    with pytest.raises(ConfigError, match="gs:// is no folder of this machine"):
        WAYS_IN[way]("gs://bucket/run")


@pytest.mark.usefixtures("from_empty_folder")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_refuses_addresses(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "s3://bucket/run"])
    assert stop.value.code == 2
    assert "s3:// is no folder of this machine" in capsys.readouterr().err


def test_python_and_commands_write_to_the_home(home, capsys):
    train(*make_tiny(), CONFIG, out="~/run", progress=False)
    assert json.loads((home / "run" / "result.json").read_text())["finished"]
    assert load_run("~/run", make).config == CONFIG
    main(["compare", "~/run", "--picture", "~/pictures/it.png"])
    assert os.path.getsize(home / "pictures" / "it.png") > 1000
    assert str(home / "pictures" / "it.png") in capsys.readouterr().out
