"""What a person sees while a run trains: a bar with welfare, speed and time left, or plain lines where there is no terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """Hears what a run does."""

    def say(self, what: str) -> None:
        """A stage begins."""

    def update(self, line: dict[str, Any]) -> None:
        """A line of metrics was logged."""


class _Silent:
    def say(self, what: str) -> None:
        pass

    def update(self, line: dict[str, Any]) -> None:
        pass


class _Lines:
    """About ten lines a run, for logs."""

    def __init__(self, console: Console, iterations: int) -> None:
        self.console, self.iterations, self.tenths = console, iterations, 0

    def say(self, what: str) -> None:
        self.console.print(what)

    def update(self, line: dict[str, Any]) -> None:
        tenths = 10 * line["iteration"] // self.iterations
        if tenths > self.tenths:
            self.tenths = tenths
            self.console.print(f"iteration {line['iteration']:>6}/{self.iterations}   {describe(line)}", highlight=False)


class _Bar:
    def __init__(self, bar: Progress, iterations: int) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=iterations, what="starting")

    def say(self, what: str) -> None:
        self.bar.update(self.task, what=what)

    def update(self, line: dict[str, Any]) -> None:
        self.bar.update(self.task, completed=line["iteration"], what=describe(line))


def describe(line: dict[str, Any]) -> str:
    """A line of metrics in a few words."""
    return f"welfare {line['welfare']:5.1f}  {line['transitions_per_s']:>9,.0f} steps/s"


@contextmanager
def report_progress(show: bool, iterations: int) -> Iterator[Reporter]:
    """A `Reporter` on stderr: a bar on a terminal, lines elsewhere, nothing if not `show`."""
    console = Console(stderr=True)
    if not show:
        yield _Silent()
    elif not console.is_terminal:
        yield _Lines(console, iterations)
    else:
        columns = (
            BarColumn(16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console) as bar:
            yield _Bar(bar, iterations)
