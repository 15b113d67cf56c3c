"""Text files of a run: JSON without NaN, lines of JSON, written whole or not at all; and what is said of bad ones."""

import json
import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from rmdp_jax.errors import ConfigError

GO_ON = "make room or give rights, then start the command again (train: with --resume)"
# What numpy raises of an .npz file that is no such file, or was cut, changed by a bit, or lacks an array.
UNREADABLE = (OSError, KeyError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class RunWarning(UserWarning):
    """Something about a run that a person should know, though work goes on; the command line prints it in one line."""


def warn(message: str) -> None:
    """A `RunWarning`."""
    warnings.warn(message, RunWarning, stacklevel=3)


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON as the standard has it: what is no finite number is null."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__jax_array__") or hasattr(value, "addressable_shards"):
        return _plain(np.asarray(value).tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """What the file holds; NaN and infinity, which older versions wrote, are None.

    Raises:
        ConfigError: it cannot be read, or is no JSON.
    """
    return _parse(_read_text(path), f"{path}: is not JSON")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON lines file, none where there is no file; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or another line is not JSON.
    """
    text = _read_text(path) if path.exists() else ""
    texts, whole = text.split("\n"), []
    for number, line in enumerate(texts, 1):
        if not line.strip():
            continue
        try:
            whole.append(_parse(line, f"{path}: line {number} is not JSON"))
        except ConfigError:
            if number < len(texts):  # of a whole line, after which there is another, empty at least
                raise
    return whole


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the file anew, whole or not at all."""
    _write_text(path, to_json(content, indent=1) + "\n")


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a JSON lines file anew, whole or not at all."""
    _write_text(path, "".join(to_json(line) + "\n" for line in lines))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file anew, compressed, whole or not at all. Each array in it has a checksum, which reading checks."""
    temporary = path.with_name(f"{path.stem}.part.npz")  # np.savez wants this ending
    with writing(path):
        try:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # of one of its options
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one line to a JSON lines file, by one call of the system; a last line that was cut off in writing is removed."""
    with writing(path):
        _remove_cut_line(path)
        with path.open("ab") as file:
            file.write((to_json(line) + "\n").encode())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` at the end; where writing fails it is removed, and `path` as it was."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()  # it takes room that others may need
        raise


@contextmanager
def writing(path: Path, way_out: str = GO_ON) -> Iterator[None]:
    """Failures to write `path`, a full disk say, as a `ConfigError` that names it and the way out."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, way_out) from error


def cannot_write(path: Path, error: BaseException, way_out: str = GO_ON) -> ConfigError:
    """The error of a file that cannot be written."""
    return ConfigError(f"{path}: cannot be written ({reason_of(error)}); {way_out}")


def reason_of(error: BaseException) -> str:
    """What happened in a few words of one line; libraries wrap what the system said."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    for known in ("No space left on device", "File too large", "Disk quota exceeded", "Permission denied"):
        if known in str(error):
            return known
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _write_text(path: Path, text: str) -> None:
    with writing(path), whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({reason_of(error)})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not JSON (it is no text)") from None


def _parse(text: str, message: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except RecursionError:
        raise ConfigError(f"{message} (nested too deeply); remove it, or bring back what was there") from None
    except ValueError as error:  # JSONDecodeError, or a number of very many digits
        raise ConfigError(f"{message} ({reason_of(error)}); remove it, or bring back what was there") from None


def _remove_cut_line(path: Path) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
