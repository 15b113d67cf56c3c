"""What is printed: as people typed it, whatever the terminal can show, and never at the cost of a run.

- Text is text: no markup, no emoji codes, no colours guessed from words. Control characters of names and paths are shown as
  escapes (`visible`), so that a name neither breaks a line nor moves the cursor.
- What an encoding lacks is written in plainer characters (`plainer`), not refused.
- Where nobody listens any more (a closed pipe, a full disk) the program goes on, and `keep_streams` knows of it at the end.
"""

import codecs
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console

ERRORS = "rmdp_jax.plainer"  # the name of `plainer` among Python's error handlers

_PLAINER = {"±": "+-", "·": "-", "…": "...", "\u00d7": "x", "•": "*"}
_LINES = {"─": "-", "━": "-", "═": "=", "╸": "-", "╺": "-", "│": "|", "┃": "|", "║": "|"}  # all others are corners


def plainer(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding lacks: ASCII that looks like them, else escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_plain(character) for character in error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, plainer)


def _plain(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # parts of boxes
        return _LINES.get(character, "+")
    return _PLAINER.get(character) or character.encode("ascii", "backslashreplace").decode()


def visible(text: str) -> str:
    """`text` on one line: control characters, and what is no character at all, as escapes; everything else as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plus_minus() -> str:
    """The sign before an error, as standard output can show it; tables are as wide as their text, so it is chosen before."""
    with suppress(UnicodeEncodeError, LookupError):
        "±".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        return "±"
    return _PLAINER["±"]


def in_notebook() -> bool:
    """Whether what is shown goes to a notebook: Jupyter, Colab, VS Code."""
    return Console().is_jupyter


class PlainConsole(Console):
    """rich's console, which takes text as it is and falls silent where nobody listens."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        plain = {"markup": False, "emoji": False, "highlight": False, "force_jupyter": False}  # text in notebooks, too
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, **plain)  # type: ignore[arg-type]

    def on_broken_pipe(self) -> None:
        """Say nothing more, where rich would end the program."""
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints; a stream that is full, closed or gone ends what is said, not who says it."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True
        except ValueError:
            if not self.file.closed:
                raise
            self.quiet = True


class _PatientOutput(io.RawIOBase):
    """A file descriptor that takes whatever is written; after the first failure nothing is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.descriptor = stream, stream.fileno()  # the stream closes its descriptor when it goes
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        while self.failure is None:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.failure = error
        return len(data)


def keep_streams() -> Callable[[], OSError | None]:
    """Make stdout and stderr of this process such that writing to them never fails.

    Returns:
        A function that writes what is left and returns the first failure of stdout, if there was one.
    """
    if sys.stdin is None:  # closed from outside; what is opened next would get its number
        sys.stdin = open(os.devnull)  # noqa: SIM115
    streams = [_patient(stream) for stream in (sys.stdout, sys.stderr)]
    sys.stdout, sys.stderr = (text for text, _ in streams)

    def failure() -> OSError | None:
        for text, _ in streams:
            text.flush()
        return streams[0][1].failure

    return failure


def _patient(stream: TextIO | None) -> tuple[TextIO, _PatientOutput]:
    """`stream` as one that takes everything."""
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    raw = _PatientOutput(stream)
    buffered, lines = isinstance(stream, io.TextIOWrapper) and stream.write_through, getattr(stream, "line_buffering", True)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=ERRORS, line_buffering=lines, write_through=buffered
    )
    return text, raw
