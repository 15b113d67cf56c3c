"""What one accelerator does: training, physics, a million agents, exactness. Rows in order of worth, each printed when done.

Every row is a process of its own: its peak memory is its own, and one that does not fit harms no other. Rows of a wave compile
side by side, as compiling takes one core each and most of the time; they are measured one at a time, when all are compiled and
those that only compare results have ended.
"""

import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common import TURNS, clean_exit, emit, read_arguments, show
from rmdp_jax.envs import native
from rmdp_jax.errors import check, known_name

PATIENCE = 180.0  # seconds after which those that are compiled no longer wait for the rest
DETERMINISTIC = (("XLA_FLAGS", "--xla_gpu_deterministic_ops=true"),)


class Row(NamedTuple):
    """A command that prints JSON lines."""

    what: str
    flags: list[str]  # of python -m
    needs: str = ""  # a module that may not be installed
    variables: tuple[tuple[str, str], ...] = ()
    takes_turns: bool = True  # False: it waits for no turn to measure, so that nothing is measured beside it


def _module(backend: str) -> str:
    return backend if backend == "warp" else ""


def physics(backend: str, environments: int, body: str = "halfcheetah") -> Row:
    """Physics alone."""
    flags = ["benchmarks.physics", "--body", body, "--backend", backend, "--environments", str(environments)]
    return Row("physics", flags, _module(backend))


def training(backend: str, k: int, environments: int, *more: str, n: int = 1000) -> Row:
    """Training of HalfCheetah, few large minibatches, as on an accelerator."""
    flags = ["--k", str(k), "--n", str(n), "--environments", str(environments)]
    flags += ["--unroll", "16", "--epochs", "4", "--minibatches", "4", "--repeats", "2", *(more or ["--no-parts"])]
    return Row(
        "training", ["benchmarks.throughput", "--env", "halfcheetah_speed", "--backend", backend, *flags], _module(backend)
    )


def beside_brax(backend: str, k: int, environments: int) -> Row:
    """Ours and brax's PPO on the same body."""
    flags = ["--k", str(k), "--n", "1000", "--environments", str(environments), "--runs", "1"]
    flags += ["--repeats", "2"]
    return Row("beside brax", ["benchmarks.vs_brax", "--backend", backend, *flags], _module(backend), takes_turns=False)


def gathering(k: int, *sizes: str) -> Row:
    """Training of Resource Gathering, whose env costs next to nothing."""
    return Row("training", ["benchmarks.throughput", "--env", "resource_gathering", "--k", str(k), *sizes])


def exactness(*flags: str) -> Row:
    """Physics against C MuJoCo."""
    return Row("exactness", ["benchmarks.parity", *flags], "warp" if "warp" in flags else "", takes_turns=False)


def resume(*flags: str) -> Row:
    """A stopped run against one that was not."""
    return Row("resume", ["benchmarks.resume", *flags], "", DETERMINISTIC, takes_turns=False)


WAVES = [
    [
        training("warp", 8, 1024, "--parts"),
        training("mjx", 8, 1024),
        physics("warp", 65536),
        physics("mjx", 16384),
        training("warp", 64, 1024),
        gathering(5, "--parts"),
        gathering(25, "--environments", "512", "--no-parts"),
        training("warp", 8, 1024, n=1_000_000),
        training("warp", 1, 8192),
        training("warp", 64, 128),
    ],
    [beside_brax("warp", 8, 1024)],
    [
        exactness("--backends", "mjx"),
        exactness("--backends", "warp"),
        resume(),
        resume("--env", "halfcheetah_speed"),
        training("warp", 8, 4096),
        physics("warp", 16384),
        physics("mjx", 65536),
        physics("warp", 65536, "ant"),
        physics("warp", 65536, "walker2d"),
        physics("warp", 65536, "hopper"),
        training("mjx", 64, 128),
        physics("mjx", 4096),
        physics("warp", 4096),
        training("spring", 8, 1024),
    ],
]
QUICK_WAVES = [
    [
        Row("training", ["benchmarks.throughput", "--quick", "--no-parts", "--environments", "4", "--k", "2"]),
        Row("physics", ["benchmarks.physics", "--quick", "--backend", "native"]),
        exactness("--quick", "--backends", "native"),
        resume("--quick"),
        Row("not there", ["benchmarks.physics", "--quick", "--backend", "nosuch"], "nosuch"),
    ]
]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """All rows of all waves that the time will do for."""

    minutes: float = 8.5
    """All of it; what is not done by then is left out, and says so."""
    precision: str = "highest"
    """Of matrix products (jax_default_matmul_precision), of physics and networks alike."""
    only: tuple[str, ...] = ()
    """Names of rows (training, physics, exactness, resume, beside brax) or words of their commands (mjx). Default: all."""
    first: int = 1
    """Wave to begin with."""
    results: Path | None = None
    """File to which lines are added as they come."""
    show: Path | None = None
    """Measure nothing; show the tables of such a file."""
    quick: bool = False
    """Tiny rows, for a CPU."""


@contextmanager
def turns() -> Iterator[tuple[str, Callable[[int], bool], Callable[[], None]]]:
    """Folder where processes wait to measure; whether so many wait; and how to let them, one after the other."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        ready = lambda number: len(list(Path(folder).glob("*.ready"))) >= number  # noqa: E731
        yield folder, ready, lambda: fcntl.flock(turn, fcntl.LOCK_UN)


def measure_wave(rows: Sequence[Row], deadline: float, precision: str) -> Iterator[dict[str, Any]]:
    """Lines of all rows, each as soon as it is there; reasons of those that have none."""
    running: dict[int, tuple[Row, subprocess.Popen[str]]] = {}
    with turns() as (folder, ready, let_them), tempfile.TemporaryDirectory() as outputs:
        for number, row in enumerate(rows):
            if row.needs and importlib.util.find_spec(row.needs) is None:
                yield {"what": row.what, "skipped": f"{row.needs} is not installed"}
                continue
            environment = {**os.environ, **dict(row.variables), TURNS: folder, "JAX_DEFAULT_MATMUL_PRECISION": precision}
            command, output = [sys.executable, "-m", *row.flags], Path(outputs, str(number))
            with output.with_suffix(".out").open("w") as out, output.with_suffix(".err").open("w") as err:
                process = subprocess.Popen(command, stdout=out, stderr=err, text=True, env=environment, start_new_session=True)
            running[number] = row, process
        waiting, begun = True, time.monotonic()
        try:
            while running:
                late = time.monotonic() > deadline
                for number, (row, process) in list(running.items()):
                    if late:
                        _end(process)
                    if process.poll() is not None:
                        yield from _lines(row, process.wait(), Path(outputs, str(number)), late)
                        del running[number]
                checking = any(not row.takes_turns for row, _ in running.values())
                if waiting and not checking and (ready(len(running)) or time.monotonic() > begun + PATIENCE):
                    let_them()
                    waiting = False
                time.sleep(0.2)
        finally:  # Ctrl-C: they have sessions of their own, and would go on
            for _, process in running.values():
                _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """With the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _lines(row: Row, code: int, output: Path, late: bool) -> Iterator[dict[str, Any]]:
    about = {"what": row.what, "command": " ".join(["python -m", *row.flags])}
    for line in output.with_suffix(".out").read_text().splitlines():
        if line.startswith("{"):  # warp prints of every kernel that it loads
            yield about | json.loads(line)
    if code:
        reason = (output.with_suffix(".err").read_text().strip().splitlines() or ["no output"])[-1][:300]
        yield about | ({"skipped": "the time was up"} if late else {"failed": reason})


def rate_rows(lines: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """Training beside the env alone, a row each, by today's rounds of line search."""
    rows = []
    rates = [line for line in lines if "transitions_per_s" in line and "physics_only_per_s" in line]
    for line in sorted(rates, key=lambda line: (line["env"], line["backend"], line["n"], line["k"], line["environments"])):
        if line["backend"] != "mjx" or line.get("line_search") == native.LINE_SEARCH:
            sizes = [f"{line[name]:,}" for name in ("k", "environments", "n")]
            share = f"{line['transitions_per_s'] / line['physics_only_per_s']:.0%}"
            both = [f"{line[name]:,}" for name in ("transitions_per_s", "physics_only_per_s")]
            rows.append([f"`{line['env']}`", f"`{line['backend']}`", *sizes, *both, share, _name(line)])
    return rows


RATES = ("env", "physics", "k", "E", "n", "transitions a second, learning", "env alone", "learning / env", "GPU")


def _name(line: dict[str, Any]) -> str:
    """H200 of `gpu: NVIDIA H200`."""
    return re.sub(r"^gpu: (NVIDIA )?| .*", "", line["device"].strip())


def show_tables(lines: Sequence[dict[str, Any]]) -> None:
    """The tables of each device, then what has no figure."""
    for device in dict.fromkeys(line["device"] for line in lines if "device" in line):
        print(f"\n{device}", file=sys.stderr)
        _show_device([line for line in lines if line.get("device") == device])
    for line in lines:
        for why in ("failed", "skipped", "note"):
            if why in line:
                text = f"{why}: {line.get('command', line['what'])}: {line[why]}"
                print(textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False), file=sys.stderr)


def _show_device(lines: Sequence[dict[str, Any]]) -> None:
    """Rates, ours beside brax's, how far physics is from C, whether a stopped run ended as one that was not."""

    def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
        if rows:
            show(title, columns, rows)

    names = ["backend", "k", "n", "environments", "transitions_per_s", "physics_only_per_s", "compile_s"]
    rates = [line for line in lines if "physics_only_per_s" in line]
    rows = [[line.get("body") or line["env"], *(_cell(line.get(name, "")) for name in names)] for line in rates]
    columns = ["", "", "k", "n", "E", "learning", "physics", "compile s"]
    table("transitions of all policies, or control steps, a second", columns, rows)
    names = ["learner", "backend", "transitions_per_s", "wall_s"]
    rows = [[_cell(line[name]) for name in names] for line in lines if line.get("benchmark") == "vs_brax"]
    table("beside brax's PPO, equal updates of equal batches", ["", "", "transitions a second", "seconds"], rows)
    names = ["body", "backend", "precision", "difference_50", "difference_99"]
    rows = [[_cell(line[name]) for name in names] for line in lines if line.get("benchmark") == "parity"]
    table("one step against C MuJoCo in float64", ["", "", "precision", "median", "99th percentile"], rows)
    names = ["env", "k", "n", "transitions_per_policy", "welfare", "upper_bound", "wall_s", "compile_s"]
    rows = [[_cell(line[name]) for name in names] for line in lines if line["what"] == "run"]
    table("whole runs", ["", "k", "n", "transitions", "welfare", "bound", "wall s", "compile s"], rows)
    for line in lines:
        if line.get("benchmark") == "resume":
            print(f"{line['env']}, stopped and resumed: bit for bit {line['bit_for_bit']}", file=sys.stderr)


def _cell(value: Any) -> str:
    if isinstance(value, int) or (isinstance(value, float) and value >= 1000.0):
        return f"{value:,.0f}"
    return f"{value:.1e}" if isinstance(value, float) and value < 0.1 else str(value)


def rows_of(arguments: Accelerator) -> list[list[Row]]:
    """What is asked for, by waves.

    Raises:
        ConfigError: there is no such wave, or nothing of it is asked for.
    """
    check("first", arguments.first, 1 <= arguments.first <= len(WAVES), f"1 to {len(WAVES)}")
    only, waves = set(arguments.only), QUICK_WAVES if arguments.quick else WAVES[arguments.first - 1 :]
    words = dict.fromkeys(word for wave in waves for row in wave for word in (row.what, *row.flags))
    for word in arguments.only:
        known_name("only", word, words)
    return [[row for row in wave if not only or {row.what, *row.flags} & only] for wave in waves]


def main() -> None:
    """Waves, then the tables."""
    arguments = read_arguments(Accelerator, __doc__)
    if arguments.show is not None:
        show_tables([json.loads(line) for line in arguments.show.read_text().splitlines()])
        return
    deadline = time.monotonic() + 60 * arguments.minutes
    lines = []
    with clean_exit("accelerator", "lines so far are printed, and the same command begins anew"):
        for rows in rows_of(arguments):
            for line in measure_wave(rows, deadline, arguments.precision):
                emit(line)
                lines.append(line)
                if arguments.results is not None:
                    with arguments.results.open("a") as file:
                        print(json.dumps(line), file=file, flush=True)
    show_tables(lines)
    if any("failed" in line for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
