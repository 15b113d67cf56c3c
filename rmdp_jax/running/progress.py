"""What a person sees while runs train: a bar with welfare, speed and time left; plain lines where there is no terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmdp_jax.records.files import warn
from rmdp_jax.running.notebook import NotebookBar
from rmdp_jax.terminal import PlainConsole, in_notebook, visible


class Reporter(Protocol):
    """Reports on a program that trains one run or several."""

    def say(self, what: str) -> None:
        """A stage begins."""

    def note(self, what: str) -> None:
        """Something that stays to be read."""

    def warn(self, what: str) -> None:
        """Something is wrong though training goes on; said also where no progress is shown."""

    def update(self, lines: Sequence[dict[str, Any]]) -> None:
        """A line of metrics was logged of every run."""


class _Silent:
    def say(self, what: str) -> None:
        pass

    def note(self, what: str) -> None:
        pass

    def warn(self, what: str) -> None:
        warn(what)

    def update(self, lines: Sequence[dict[str, Any]]) -> None:
        pass


class _Lines:
    """About ten lines a program, for logs."""

    def __init__(self, console: PlainConsole, iterations: int, stage: str) -> None:
        self.console, self.iterations, self.stage, self.tenths = console, iterations, visible(stage), 0

    def say(self, what: str) -> None:
        self.console.print(self.stage + visible(what))

    def note(self, what: str) -> None:
        self.say(what)

    def warn(self, what: str) -> None:
        self.console.print("warning: " + what, highlight=False, markup=False)

    def update(self, lines: Sequence[dict[str, Any]]) -> None:
        iteration = lines[0]["iteration"]
        tenths = 10 * iteration // self.iterations
        if tenths > self.tenths:
            self.tenths = tenths
            where = f"{self.stage}iteration {iteration:>6}/{self.iterations}"
            self.console.print(f"{where}   {describe(lines)}")


class _Bar:
    def __init__(self, bar: Progress, iterations: int, stage: str) -> None:
        self.bar, self.stage = bar, visible(stage)
        self.task = bar.add_task("", total=iterations, what="starting")

    def say(self, what: str) -> None:
        self.bar.update(self.task, what=self.stage + visible(what))

    def note(self, what: str) -> None:
        self.bar.console.print(self.stage + visible(what))

    def warn(self, what: str) -> None:
        self.bar.console.print("warning: " + what, highlight=False, markup=False)

    def update(self, lines: Sequence[dict[str, Any]]) -> None:
        self.bar.update(self.task, completed=lines[0]["iteration"], what=self.stage + describe(lines))


def announce(show: bool, what: str) -> None:
    """A line on stderr before a program that is one of several."""
    if show:
        PlainConsole(stderr=True, soft_wrap=True).print(visible(what))


def describe(lines: Sequence[dict[str, Any]]) -> str:
    """Lines of metrics, one of each run, in a few words: mean welfare, and the speed of all together."""
    known = [line["welfare"] for line in lines if line["welfare"] is not None]
    welfare = f"{fmean(known):5.1f}" if known else "    -"  # not a number, where physics or learning broke
    return f"welfare {welfare}  {lines[0]['transitions_per_s']:>9,.0f} steps/s"


@contextmanager
def report_progress(show: bool, iterations: int, stage: str = "") -> Iterator[Reporter]:
    """A `Reporter`: a bar on a terminal, one in a notebook, lines on stderr elsewhere, nothing if not `show`.

    `stage` stands before its words.
    """
    console = PlainConsole(stderr=True)
    if not show:
        yield _Silent()
    elif in_notebook():
        with NotebookBar(iterations, stage, describe) as shown:
            yield shown
    elif not console.is_terminal:
        yield _Lines(console, iterations, stage)
    else:
        columns = (
            BarColumn(16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}", markup=False),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console) as bar:
            yield _Bar(bar, iterations, stage)
