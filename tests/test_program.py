"""The command line as a process: what it does with its streams, its signals and the settings that it is started with."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from tiny import COMMAND, timeless

from rmdp_jax.commands import program
from rmdp_jax.commands.cli import main

START = [sys.executable, "-m", "rmdp_jax"]


def run(*arguments, timeout=200, **changes):
    """A process with the output streams given, both kept where none is."""
    environment = {name: value for name, value in {**os.environ, **changes.pop("env", {})}.items() if value is not None}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | changes
    return subprocess.run([*START, *arguments], env=environment, text=True, timeout=timeout, check=False, **streams)


PLAIN = {"PYTHONIOENCODING": None, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, PLAIN], ids=["ascii", "C"])
def test_help_in_ascii(env):
    done = run("compare", "--help", env={**env, "COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "+- positional arguments --" in done.stdout or "--------" in done.stdout
    assert "Folders of runs" in done.stdout


def test_a_reader_that_has_enough_changes_nothing():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        done = run("envs", stdout=gone)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stdout_changes_nothing():
    done = subprocess.run(["sh", "-c", '"$0" -m rmdp_jax envs >&- 2>&-', sys.executable], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["envs"], ["--help"]])
def test_a_full_disk_is_told_in_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (1, "rmdp-jax: error: standard output: No space left on device\n")


def test_what_was_typed_is_in_the_error_in_one_line():
    done = run("evaluate", "a[/b]c\n:smile:\x1b[1m", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("rmdp-jax: error: run = a[/b]c\\n:smile:\\x1b[1m: holds no config.json")
    assert done.stderr.count("\n") == 1


REFUSED = {
    "JAX_PLATFORMS=cuda": "JAX_PLATFORMS = cuda: JAX finds no such device (",
    "JAX_PLATFORMS=tpu": "JAX_PLATFORMS = tpu: JAX finds no such device (",
    "JAX_PLATFORMS=banana": "JAX_PLATFORMS = banana: JAX finds no such device (",
    "XLA_FLAGS=--xla_no_such_flag=1": "XLA_FLAGS = --xla_no_such_flag=1: XLA refuses it (Unknown flag",
    "JAX_DISABLE_JIT=1": "JAX_DISABLE_JIT = 1: an iteration is one compiled program; unset it",
    "JAX_ENABLE_X64=maybe": "JAX: invalid truth value 'maybe'",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_that_cannot_be_are_told_in_one_line(setting, tmp_path):
    name, _, value = setting.partition("=")
    done = run(*COMMAND, "--out", str(tmp_path / "run"), env={name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"rmdp-jax: error: {REFUSED[setting]}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What the tiny command comes to, with nothing set."""
    folder = tmp_path_factory.mktemp("runs") / "usual"
    main([*COMMAND, "--out", str(folder), "--quiet"])
    return folder


def recorded(folder):
    """Settings, metrics and result of a run, without what clocks say."""
    texts = [(folder / name).read_text() for name in ("config.json", "result.json")]
    return [timeless(json.loads(text)) for text in (*texts, *(folder / "metrics.jsonl").read_text().splitlines())]


STRANGE = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DEBUG_KEY_REUSE": "1",
    "PYTHONIOENCODING": "ascii",
    "MUJOCO_GL": "osmesa",
}


@pytest.mark.slow
def test_settings_that_would_disturb_are_off_and_told_and_the_run_is_the_same(usual, tmp_path):
    """All at once, into a folder that no ASCII can show, with a stdout that is full."""
    folder = tmp_path / ":smile: ±"
    with open("/dev/full", "w") as full:
        done = run(*COMMAND, "--out", str(folder), env=STRANGE, stdout=full)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for name in ("JAX_ENABLE_X64", "JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_TRANSFER_GUARD"):
        assert done.stderr.count(f"rmdp-jax: note: {name} is off while rmdp_jax computes: ") == 1
    assert done.stderr.endswith("rmdp-jax: error: standard output: No space left on device\n")
    assert (folder / "welfare.png").exists()
    assert recorded(folder) == recorded(usual)


@pytest.mark.slow
def test_threads_and_cores_give_the_same_run(usual, tmp_path):
    """What is promised of a CPU: not the number of threads but the seed decides, in this process and in another."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_cpu_multi_thread_eigen=false"
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if hasattr(os, "sched_getaffinity") else []
    environment = {**os.environ, "XLA_FLAGS": flags, "OMP_NUM_THREADS": "1", "NPROC": "1"}
    subprocess.run([*command, *START, *COMMAND, "--quiet", "--out", str(tmp_path / "one")], env=environment, check=True)
    main([*COMMAND, "--out", str(tmp_path / "again"), "--quiet"])
    expected = recorded(usual)
    assert len(expected) == 2 + 4  # config, result, a line every 5 of 20 iterations
    assert recorded(tmp_path / "one") == expected
    assert recorded(tmp_path / "again") == expected


def heard(process, line):
    """Whether stderr comes to `line`; what was said until then is gone."""
    return any(line in said for said in process.stderr)


def test_ctrl_c_while_importing_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("import time; print('importing', flush=True); time.sleep(60)")  # as heavy as it can be
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    process = subprocess.Popen([*START, "envs"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=100)[1] == "rmdp-jax: interrupted\n"
    assert process.returncode == 130


@pytest.mark.slow
def test_ctrl_c_twice_leaves_no_traceback(tmp_path):
    command = [*START, *COMMAND, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # so that it is still compiling
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert heard(process, "compiling")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "Traceback" not in err


def test_ctrl_c_in_a_callback_that_python_ignores_is_sent_again():
    class Caught:
        def __del__(self):
            raise KeyboardInterrupt

    before, again = sys.unraisablehook, threading.Event()
    handler = signal.signal(signal.SIGINT, lambda number, frame: again.set())
    sys.unraisablehook = program._heed_again
    try:
        Caught()
        assert again.wait(10)
    finally:
        sys.unraisablehook = before
        signal.signal(signal.SIGINT, handler)
