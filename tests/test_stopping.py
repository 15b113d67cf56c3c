"""Signals, and what `on_metrics` raises, at every stage of a run: one line, nothing lost, an exit code that says what to do."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tiny import CONFIG, FLAGS, K, N, make_tiny, stop_at

from rmdp_jax import random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.evaluation.comparison import compare_runs
from rmdp_jax.records.checkpoint import latest_step
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run
from rmdp_jax.running.interrupts import Stopped, aside, ending, interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


def run(**options):
    return train(*make_tiny(), CONFIG, random_even(K, N), **{"progress": False, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(out=folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def send(number):
    def press(*arguments, **options):
        os.kill(os.getpid(), number)
        time.sleep(60)  # the handler is run before that is over

    return press


STAGES = {
    "compiling": "rmdp_jax.running.loop.compile_side_by_side",
    "evaluating": "rmdp_jax.running.train.evaluate_runs",
    "drawing": "rmdp_jax.commands.pictures.task_pictures",
}


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        *(("compiling", number) for number in SIGNALS),
        *(("evaluating", number) for number in (signal.SIGINT, signal.SIGTERM)),
        ("drawing", signal.SIGTERM),
    ],
)
def test_a_signal_ends_a_command_in_a_line(copied, monkeypatch, capsys, stage, number):
    if stage != "compiling":  # a finished run does not need what is compiled
        monkeypatch.setattr(STAGES["compiling"], lambda *programs: [print] * len(programs))
    monkeypatch.setattr(STAGES[stage], send(number))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        main(["train", str(copied), "--quiet"])
    assert stop.value.code == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert "--resume" in line
    assert signal.getsignal(number) is before
    assert latest_step(copied / "checkpoints") == 20
    assert RunFolder(copied).read_result()["finished"] is True  # as it was


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_other_commands_exit_with_130(finished, monkeypatch, capsys, command):
    monkeypatch.setattr("rmdp_jax.records.loading.load_run", send(signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        main([command, str(finished)])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "rmdp-jax: stopped by SIGTERM\n"


@pytest.fixture
def interrupted_evaluation(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(STAGES["evaluating"], send(signal.SIGINT))
        yield patch


def test_a_stop_while_evaluating_loses_nothing_in_memory(interrupted_evaluation):
    result = run()
    assert int(result.state.iteration) == 20
    assert (result.summary["finished"], result.summary["evaluated"]) == (False, False)
    assert np.isnan(result.evaluation.welfare)
    assert np.isnan(result.evaluation.utility).all()
    assert result.assignment.shape == (N,)
    assert [line["iteration"] for line in result.metrics] == [5, 10, 15, 20]


def test_a_second_stop_while_evaluating_loses_nothing_on_disk(tmp_path, interrupted_evaluation, finished, capsys):
    run(out=tmp_path / "run", on_metrics=stop_at(10))  # and then while evaluating
    result = RunFolder(tmp_path / "run").read_result()
    assert (result["iterations"], result["finished"], result["welfare"]) == (10, False, None)
    assert load_run(tmp_path / "run", make).policies.params is not None
    main(["report", str(tmp_path / "run")])  # whose pictures have no returns to show
    assert "not a number" in capsys.readouterr().out
    assert [row.seeds for row in compare_runs(find_runs([tmp_path, finished]).lines)] == [1]
    interrupted_evaluation.undo()
    again = run(out=tmp_path / "run", resume=True)
    whole = RunFolder(finished).read_result()
    assert again.summary["finished"] is True
    assert again.summary["utility"] == whole["utility"]


def test_a_second_stop_while_training_leaves_the_evaluation_out_and_keeps_what_was_learned(capsys):
    def press(line):
        for _ in range(2):
            stop_at(10)(line)

    result = run(on_metrics=press, progress=True)
    assert [line["iteration"] for line in result.metrics] == [5, 10]
    assert (result.summary["finished"], result.summary["evaluated"]) == (False, False)
    assert "was not evaluated; stopped early, at iteration 10" in repr(result)
    assert "None" not in result._repr_html_()
    printed = capsys.readouterr().err
    assert printed.index("interrupted: ending") < printed.index("interrupted again: what was learned is kept")
    assert "evaluating" not in printed


def test_signals_of_a_run_are_heard_beside_compiled_code_and_the_third_drops_it():
    said, heard, never = [], [threading.Event() for _ in range(2)], threading.Event()

    def tell(words):
        said.append(words)
        heard[len(said) - 1].set()

    def compiled(event):
        os.kill(os.getpid(), signal.SIGINT)
        return event.wait(60)  # which the main thread sets, while it waits for this

    before = signal.getsignal(signal.SIGINT)
    with ending(tell) as end, interrupts() as interrupted:
        assert [aside(compiled, event) for event in heard] == [True, True]
        assert (interrupted.is_set(), end.hurried) == (True, True)
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            aside(compiled, never)
        never.set()
    assert [words.startswith("interrupted again") for words in said] == [False, True]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_evaluation_is_left_by_the_first_signal():
    forever = threading.Event()

    def compiled():
        os.kill(os.getpid(), signal.SIGINT)
        forever.wait(60)

    with ending(lambda words: None) as end:
        end.keep()
        with pytest.raises(Stopped), end.dropping():
            aside(compiled)
        assert end.keeps
        assert not end.hurried
    forever.set()


def test_an_exception_of_a_listener_comes_out_when_all_is_saved(tmp_path):
    def fail(line):
        if line["iteration"] == 10:
            raise KeyError("no such sink")

    with pytest.raises(KeyError, match="no such sink"):
        run(out=tmp_path, on_metrics=fail)
    assert latest_step(tmp_path / "checkpoints") == 10
    assert [line["iteration"] for line in RunFolder(tmp_path).read_metrics()] == [5, 10]


def test_a_listener_ends_a_run_by_stop_iteration():
    def enough(line):
        if line["iteration"] == 10:
            raise StopIteration

    result = run(on_metrics=enough)
    assert (result.summary["iterations"], result.summary["finished"]) == (10, False)
    assert np.isfinite(result.summary["welfare"])


def start(*command):
    """A process that really compiles, so that signals find it at that."""
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_is_stopped_says_so_in_a_line(tmp_path):
    words = ["train", "resource_gathering", "--size", "2", "--k", "2", "--transitions", "6400000", *FLAGS, "--no-cache"]
    process = start(sys.executable, "-m", "rmdp_jax", *words, "--out", str(tmp_path / "run"))
    try:
        for line in process.stderr:
            if "compiling" in line:
                break
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75
    assert out == ""
    assert err.splitlines()[-1].startswith("rmdp-jax: stopped by SIGUSR1")
    assert "Traceback" not in err


def test_a_process_whose_main_thread_is_in_compiled_code_is_ended_by_another():
    code = """
import hashlib, os, sys
from rmdp_jax.running.interrupts import Stopped, stops, watched

def end(number):
    os.write(2, b"ended\\n")
    os._exit(75)

with watched(end, patience_s=0.1), stops():
    while True:
        try:
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes, without a look at signals
        except Stopped:  # the signal came too early
            pass
"""
    process = start(sys.executable, "-c", code)
    try:
        for line in process.stdout:
            assert line == "ready\n"
            process.send_signal(signal.SIGTERM)
        assert process.stderr.read() == "ended\n"
        assert process.wait() == 75
    finally:
        process.kill()
