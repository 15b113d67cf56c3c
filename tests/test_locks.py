"""A run is one process's at a time, and a sweep many processes' without a line lost."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from tiny import COMMAND, CONFIG, SIZES, K, N, make_tiny

from rmdp_jax import ConfigError, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.records.files import RunWarning, read_lines
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.lock import LOCK, Locked, locked
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.sweep import _Lines, sweep

SHORT = replace(CONFIG, transitions=2 * SIZES.transitions, log_every=1)
CELL = Cell(env="resource_gathering", env_options={"size": 2}, algorithm="random", config=SHORT)
NAME = "resource_gathering-size2-random-k2-s"


def test_a_run_that_somebody_trains_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.jit", None)
    with locked(tmp_path), pytest.raises(ConfigError, match=rf"process {os.getpid()} on .* is at it; wait for its end"):
        train(*make_tiny(), CONFIG, random_even(K, N), out=tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path):
        pass  # it was given back


HOLDER = """
import sys, time
from pathlib import Path
from rmdp_jax.records.lock import locked
with locked(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_command_that_finds_another_at_its_run_is_to_be_started_again(tmp_path, capsys):
    with locked(tmp_path / "run"), pytest.raises(SystemExit) as stop:
        main([*COMMAND, "--out", str(tmp_path / "run"), "--resume", "--quiet"])
    assert stop.value.code == 75
    assert "is at it; wait for its end" in capsys.readouterr().err


def test_a_killed_process_leaves_no_lock_behind(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(Locked, match=f"process {process.pid} on "), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def fail(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(RunWarning, match=r"cannot be locked \(No locks available\)") as seen, locked(tmp_path), locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == ""  # who has it is not claimed, and nobody is kept out
    assert len(seen) == 2


@pytest.mark.slow
def test_a_sweep_leaves_runs_that_others_train_to_them(tmp_path, capsys):
    with locked(tmp_path / f"{NAME}1"):
        lines = sweep([CELL], [0, 1, 2], tmp_path, make=make)
    assert [line["seed"] for line in lines] == [0, 2]
    assert f"{NAME}1: is trained by another process" in " ".join(capsys.readouterr().err.split())
    assert not RunFolder(tmp_path / f"{NAME}1").holds_run()
    assert [line["seed"] for line in sweep([CELL], [0, 1, 2], tmp_path, make=make, progress=False)] == [0, 2, 1]
    assert [line["seed"] for line in read_lines(tmp_path / "runs.jsonl")] == [0, 2, 1]


@pytest.mark.slow
def test_a_sweep_takes_runs_as_they_are_when_it_comes_to_them(tmp_path, monkeypatch):
    """Another process trained the run between its being found and its being held."""
    other = sweep([CELL], [0], tmp_path / "other", make=make, progress=False)
    (tmp_path / "mine").mkdir()

    def check(run):
        (tmp_path / "other" / run.folder.path.name).rename(run.folder.path)

    monkeypatch.setattr("rmdp_jax.running.sweep._check_writable", check)
    monkeypatch.setattr("rmdp_jax.running.sweep.train_held", None)
    assert sweep([CELL], [0], tmp_path / "mine", make=make, progress=False) == other


def test_many_append_to_one_file_and_no_line_is_lost(tmp_path):
    def append(number):
        log = _Lines(tmp_path / "runs.jsonl")
        for line in range(20):
            log.append_once({"number": number, "line": line})
            log.append_once({"number": -1, "line": line})

    (tmp_path / "runs.jsonl").write_text('{"number": 9, "li')  # of a process that was killed
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(append, range(8)))
    kept = [(line["number"], line["line"]) for line in read_lines(tmp_path / "runs.jsonl")]
    assert sorted(kept) == [(number, line) for number in range(-1, 8) for line in range(20)]
    _Lines(tmp_path / "runs.jsonl").append_once({"number": 0, "line": 0, "settings": {"epochs": 4}})  # records more by now
    assert len(read_lines(tmp_path / "runs.jsonl")) == len(kept)
