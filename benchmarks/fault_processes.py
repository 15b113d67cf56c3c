"""Faults of whole processes: kill -9 at any moment and while a checkpoint is written, signals at every stage, a full disk."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fault_kinds import Tried
from rmdp_jax.records.folder import RunFolder

ITERATIONS, EVERY = 400, 20  # of a run, and between two checkpoints
_FLAGS = (
    "--size 2 --k 2 --environments 4 --unroll 8 --epochs 2 --minibatches 2 --hidden 8 --evaluation-episodes 8 --log-every 5"
)
COMMAND = ["train", "resource_gathering", "--algorithm", "plain_em", *_FLAGS.split()]
COMMAND += ["--transitions", str(32 * ITERATIONS), "--checkpoint-every", str(EVERY)]
CLOCKS = ("wall_s", "transitions_per_s", "compile_s")
STAGES = {"importing": None, "compiling": "compiling", "training": "iteration", "evaluating": "evaluating"}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def start(out: Path, cache: Path, **options: Any) -> subprocess.Popen:
    """The command, writing to `out`; it goes on with what is there."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "rmdp_jax", *COMMAND, "--out", str(out), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def finish(out: Path, cache: Path) -> tuple[int, str]:
    """Run the command to its end: exit code and what it said."""
    process = start(out, cache)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def result_of(out: Path) -> tuple[Any, ...]:
    """Result and metrics without clocks."""
    folder = RunFolder(out)
    return tuple(
        [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines]
        for lines in ([folder.read_result()], folder.read_metrics())
    )


def undisturbed(folder: Path) -> tuple[Any, float, Path]:
    """What the run comes to, seconds that a start with a full cache takes, and the cache."""
    cache = folder / "cache"
    for name in ("warm", "whole"):
        begun = time.perf_counter()
        code, said = finish(folder / name, cache)
        assert code == 0, said
    return result_of(folder / "whole"), time.perf_counter() - begun, cache


def iterations_of(out: Path) -> int:
    """How far the lines of metrics came."""
    lines = RunFolder(out).read_metrics() if (out / "metrics.jsonl").exists() else []
    return lines[-1]["iteration"] if lines else 0


def kills(folder: Path, quick: bool) -> Iterator[Tried]:
    """kill -9 at random moments, and while checkpoints are written: survived if the same command ends with the same result."""
    expected, seconds, cache = undisturbed(folder)
    rng = np.random.RandomState(0)
    for i in range(2 if quick else 20):
        wait = rng.uniform(0.1, 1.0) * seconds

        def at_random(process: subprocess.Popen, out: Path, wait: float = wait) -> None:
            time.sleep(wait)

        yield _killed(f"random-{i}", "killed at a random moment", at_random, folder, cache, expected)
    for i in range(1 if quick else 10):
        number = int(rng.randint(ITERATIONS // EVERY))

        def while_saving(process: subprocess.Popen, out: Path, number: int = number) -> None:
            seen: set[str] = set()
            while process.poll() is None and len(seen) <= number:
                seen |= {path.name for path in (out / "checkpoints").glob("*")} if (out / "checkpoints").is_dir() else set()
            time.sleep(rng.uniform(0.0, 0.02))

        yield _killed(f"saving-{i}", "killed while saving", while_saving, folder, cache, expected)


def _killed(
    name: str, fault: str, wait: Callable[[subprocess.Popen, Path], None], folder: Path, cache: Path, expected: Any
) -> Tried:
    out = folder / name
    process = start(out, cache)
    wait(process, out)
    process.kill()
    process.communicate()
    before = iterations_of(out)
    code, said = finish(out, cache)
    same = code == 0 and result_of(out) == expected
    shutil.rmtree(out, ignore_errors=True)
    return Tried(fault, same, min(before, EVERY), f"exit code {code}: {said[-200:]}")


def signals(folder: Path, quick: bool) -> Iterator[Tried]:
    """Each signal at each stage: survived if it ends without a traceback, and the same command ends as undisturbed."""
    expected, _, cache = undisturbed(folder)
    for stage, word in list(STAGES.items())[2 if quick else 0 :]:
        for name in SIGNALS[: 2 if quick else None]:
            out = folder / f"{name}-{stage}"
            process = start(out, cache)
            heard = _wait_for(process, word)
            process.send_signal(getattr(signal, name))
            _, rest = process.communicate(timeout=300)
            clean = "Traceback" not in heard + rest and (process.returncode != 0 or (out / "result.json").exists())
            before = iterations_of(out)
            code, said = finish(out, cache)
            same = code == 0 and result_of(out) == expected
            seen = f"{name} while {stage}: exit codes {process.returncode}, {code}; {(heard + rest + said)[-300:]}"
            yield Tried(f"a signal while {stage}", clean and same, min(before, EVERY), seen)


def _wait_for(process: subprocess.Popen, word: str | None) -> str:
    """Read what the process says until a line has the `word`, or for a moment where there is none."""
    if word is None:
        time.sleep(0.3)
        return ""
    heard = ""
    assert process.stderr is not None
    for line in process.stderr:
        heard += line
        if word in line:
            break
    return heard


def full_disks(folder: Path, quick: bool) -> Iterator[Tried]:
    """Files may not grow beyond a size: survived if that is said, and the same command ends well where there is room.

    Lines of metrics that could not be written may be missing, if that is said.
    """
    expected, _, cache = undisturbed(folder)
    for kilobytes in (4, 64) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256):

        def limit(kilobytes: int = kilobytes) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * kilobytes, resource.RLIM_INFINITY))

        out = folder / f"disk-{kilobytes}"
        process = start(out, folder / "small cache", preexec_fn=limit)  # what is cut off there is no fault of the run
        _, said = process.communicate(timeout=300)
        clean = "Traceback" not in said and (process.returncode == 0 or "rmdp-jax: error: " in said)
        before = iterations_of(out)
        code, again = finish(out, cache)
        result, lines = result_of(out)
        same = code == 0 and result == expected[0] and (lines == expected[1] or "lines are lost" in again)
        seen = f"{kilobytes} kB: exit codes {process.returncode}, {code}; {(said + again)[-300:]}"
        yield Tried("a full disk", clean and same, min(before, ITERATIONS), seen)


def drawn_input(folder: Path, quick: bool) -> Iterator[Tried]:
    """Settings and command lines drawn by `tests/test_bad_input.py`: each is taken or refused in one line.

    Some 21 kinds of settings times 100 examples, and 1,000 command lines.
    """
    tests = Path(__file__).parent.parent / "tests" / "test_bad_input.py"
    environment = {**os.environ, "DRAWN": "2" if quick else "100"}
    command = [sys.executable, "-m", "pytest", "-n0", "-rA", "--timeout", "3000", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tests.parent.parent)
    if done.returncode not in (0, 1):  # pytest did not come to its tests
        yield Tried("drawn settings, by kind", False, told=(done.stderr or done.stdout).strip()[-300:])
    for line in done.stdout.splitlines():
        verdict, _, name = line.partition(" ")
        if verdict in ("PASSED", "FAILED", "ERROR") and "::" in name:
            fault = "command lines" if "command_lines" in name else "settings"
            yield Tried(f"drawn {fault}, by kind", verdict == "PASSED", told=line)
