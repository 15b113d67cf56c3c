"""Checksums of all files of a folder, by which a file that was cut, lost or changed by a single bit is noticed."""

import hashlib
from pathlib import Path

from rmdp_jax.errors import ConfigError
from rmdp_jax.records.files import read_json, reason_of, write_json

MANIFEST = "checksums.json"


def write_checksums(folder: Path) -> None:
    """Write size and SHA-256 of every file below `folder` into its `MANIFEST`."""
    files = {
        str(path.relative_to(folder)): [path.stat().st_size, sha256_of(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"sha256": files})


def has_checksums(folder: Path) -> bool:
    """Whether `write_checksums` was called for it."""
    return (folder / MANIFEST).exists()


def damage_of(folder: Path) -> str | None:
    """What is wrong with the files below `folder`, naming the first bad one; None where all are as they were written."""
    try:
        return _damage(folder)
    except ConfigError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be read ({reason_of(error)})"


def _damage(folder: Path) -> str | None:
    if not has_checksums(folder):
        return f"{folder / MANIFEST}: is missing"
    content = read_json(folder / MANIFEST)
    files = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        return f"{folder / MANIFEST}: lists no files"
    for name, known in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            return f"{path}: is missing"
        if [path.stat().st_size, sha256_of(path)] != known:
            return f"{path}: is not what was written"
    return None


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file as hexadecimal digits; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
