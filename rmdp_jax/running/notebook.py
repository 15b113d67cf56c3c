"""Progress in a notebook: one output, updated by IPython's display handles.

Every front end shows them, and every saved or exported notebook, where widgets would be lost.
"""

import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from rmdp_jax.terminal import visible

BETWEEN_S = 0.2  # that updates of the bar are apart, at least

Lines = Sequence[dict[str, Any]]


class NotebookBar:
    """A `Reporter`: stages and how long each took, a bar while runs train, and what stays to be read below it."""

    def __init__(self, iterations: int, stage: str, describe: Callable[[Lines], str]) -> None:
        self.iterations, self.stage, self.describe = iterations, visible(stage), describe
        self.done = 0
        self.first: tuple[int, float] | None = None  # iteration of the first line, and when it came
        self.what, self.since = "starting", time.perf_counter()
        self.shown = self.since
        self.past: list[str] = []
        self.notes: list[str] = []
        self.handle: Any = None

    def __enter__(self) -> "NotebookBar":
        from IPython.display import DisplayHandle

        self.handle = DisplayHandle()
        self.handle.display(self._bundle(), raw=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.say("done" if kind is None else "stopped")

    def say(self, what: str) -> None:
        """A stage begins."""
        now = time.perf_counter()
        if now - self.since >= 0.5:
            self.past.append(f"{self.what} ({now - self.since:.1f} s)")
        self.what, self.since = visible(what), now
        self._show()

    def note(self, what: str) -> None:
        """Something that stays to be read."""
        self.notes.append(visible(what))
        self._show()

    def warn(self, what: str) -> None:
        """Something is wrong though training goes on."""
        self.note(f"warning: {what}")

    def update(self, lines: Lines) -> None:
        """A line of metrics was logged of every run."""
        self.done = lines[0]["iteration"]
        self.first = self.first or (self.done, time.perf_counter())
        self.what = f"training: {self.describe(lines)}"
        if time.perf_counter() - self.shown >= BETWEEN_S or self.done >= self.iterations:
            self._show()

    def _show(self) -> None:
        self.shown = time.perf_counter()
        self.handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        text = self.stage + self.what + self._time_left()
        bar = f"<progress value='{self.done}' max='{self.iterations}' style='width: 16em; vertical-align: middle'></progress>"
        counted = f"{self.done:,}/{self.iterations:,} iterations"
        small = "".join(f"<br><small>{escape(line)}</small>" for line in (" · ".join(self.past), *self.notes) if line)
        plain = "\n".join(filter(None, (f"{counted}  {text}", " · ".join(self.past), *self.notes)))
        return {"text/html": f"<div>{bar} {counted} &nbsp; {escape(text)}{small}</div>", "text/plain": plain}

    def _time_left(self) -> str:
        """In words, of the training alone."""
        first, since = self.first or (self.done, 0.0)
        if not first < self.done < self.iterations or not self.what.startswith("training"):
            return ""
        seconds = (time.perf_counter() - since) * (self.iterations - self.done) / (self.done - first)
        return f", {seconds // 60:.0f}:{seconds % 60:02.0f} left"
