"""Paths as people give them."""

import os
import re
from pathlib import Path

from rmdp_jax.errors import ConfigError, check

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/")  # one letter is a drive; `Path` makes one slash of two


def folder_name(task: str) -> str:
    """The name of a task as part of the name of a folder; ``my_module`` of a user's own ``package.my_module:make``."""
    module, _, function = task.rpartition(":")
    if not module:
        return task
    last = Path(module).stem if module.endswith(".py") else module.rpartition(".")[2]
    return last if function == "make" else f"{last}-{function}"


def local_path(name: str, value: str | os.PathLike[str]) -> Path:
    """The path `value` of the argument `name` on this machine, with ``~`` and ``~user`` as the folders that they stand for.

    Raises:
        ConfigError: it is the address of something elsewhere (gs://, s3://, http://), is empty, names a home that does not
            exist, or is no path at all.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(f"{name} = {value!r}: must be the path of a file or folder")
    address = _ADDRESS.match(text)
    if address:
        raise ConfigError(
            f"{name} = {text}: {address['scheme']}:// is no folder of this machine; mount it (gcsfuse, s3fs, rclone, ...) and "
            "give the folder, or give a local one and copy it afterwards"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} = {text}: there is no such home; give the path in full") from None


def check_new_file(name: str, path: Path, example: str) -> None:
    """Raise `ConfigError`, of the argument `name`, where no file can be written, before anything takes long."""
    check(name, path, not os.path.isdir(path), f"a file, such as {path / example}, and no folder")
    check(name, path, len(os.fsencode(path.name)) <= 255, "a file with a name of at most 255 bytes")
    above = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    check(name, path, above.is_dir() and os.access(above, os.W_OK), f"in a folder that can be written, which {above} cannot")
