"""The one line of tyro's help that it does not wrap itself."""

import io
import re
import shutil
import sys

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WORDS = re.compile(r"(?:\[(?:[^\[\]]|\[[^\[\]]*\])*\]|[^ \[])+")  # what is in brackets stays together


class Heard(io.StringIO):
    """What is printed, kept instead of shown, with colours where stdout would show them."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = sys.stdout.isatty()

    def isatty(self) -> bool:
        """Whether stdout is a terminal."""
        return self.colors


def wrap_usage(text: str, width: int | None = None) -> str:
    """`text` with its usage line, without colours, wrapped to `width` columns; those of the terminal when not given."""
    width = width or shutil.get_terminal_size().columns
    return "".join(_wrap(line, width) for line in text.splitlines(keepends=True))


def _wrap(line: str, width: int) -> str:
    plain = _COLORS.sub("", line)
    if not plain.startswith("usage:"):
        return line
    first, *words = _WORDS.findall(plain.strip())
    lines = [first]
    for word in words:
        pieces = re.findall(r"[^,]*,|[^,]+$", word) if len(word) > width - 4 else [word]  # the list of all commands
        for space, piece in zip([" ", *[""] * len(pieces)], pieces, strict=False):
            if len(lines[-1]) + len(space) + len(piece) <= width:
                lines[-1] += space + piece
            else:
                lines.append(f"    {piece}")
    return "\n".join(lines) + "\n"
