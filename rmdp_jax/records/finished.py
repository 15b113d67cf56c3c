"""Find finished runs: in their folders, in folders that hold some at any depth, in .jsonl files with a run per line."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.comparison import Line, budget_of, flat_settings, settings_of, task_of
from rmdp_jax.paths import local_path
from rmdp_jax.records.folder import RunFolder, read_lines

_NEEDED = ("env", "env_options", "backend", "algorithm", "k", "n", "seed", "welfare", "total_transitions")


class Found(NamedTuple):
    """What `find_runs` returns."""

    lines: list[Line]  # finished runs, each once
    unfinished: int  # runs that were stopped or are going on
    repeated: int  # finished runs that were there more than once


def find_runs(paths: Iterable[Path]) -> Found:
    """Read finished runs from run folders, folders that hold some at any depth, and .jsonl files with a run per line.

    A run that is in a folder and in a file (a sweep's runs.jsonl) counts once, as does one that was made twice.

    Raises:
        ConfigError: a path does not exist or a file is no list of runs, or there is no finished run at all.
    """
    paths = [local_path("runs", path) for path in paths]
    seen: dict[tuple[Any, ...], Line] = {}
    unfinished = repeated = 0
    for line, from_file in (found for path in paths for found in _read(path)):
        task, settings = _identity(line)
        if not line.get("finished", True):
            unfinished += 1
        elif (task, settings) in seen or ("settings" not in line and any(task == other for other, _ in seen)):
            repeated += not from_file
        else:
            seen[task, settings] = line
    if not seen:
        where = ", ".join(map(str, paths))
        more = f" ({unfinished} unfinished: go on with them by --resume)" if unfinished else ""
        raise ConfigError(f"runs = {where}: no finished run found{more}; give folders that `rmdp-jax train` wrote")
    return Found(list(seen.values()), unfinished, repeated)


def read_runs(path: Path) -> list[Line]:
    """Runs of a .jsonl file; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no run.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        missing = [name for name in _NEEDED if name not in line] if isinstance(line, dict) else ["a run"]
        if missing:
            raise ConfigError(f"{path}: line {number} has no {missing[0]}, so it is no run; give files with a result a line")
    return lines


def _read(path: Path) -> Iterator[tuple[Line, bool]]:
    """Runs at `path`, finished or not, those in folders first, and whether each is from a file."""
    if not path.exists():
        raise ConfigError(f"runs = {path}: does not exist; give folders of runs or .jsonl files")
    if not path.is_dir():
        yield from ((line, True) for line in read_runs(path))
        return
    files = []
    for folder, below, names in os.walk(path):
        below.sort()
        if "config.json" in names or "result.json" in names:
            below.clear()  # checkpoints
            yield _read_folder(RunFolder(Path(folder))), False
        else:
            files += [Path(folder) / name for name in sorted(names) if name.endswith(".jsonl")]
    for file in files:
        if all(set(_NEEDED) <= line.keys() for line in read_lines(file)):  # others hold something else
            yield from ((line, True) for line in read_runs(file))


def _read_folder(folder: RunFolder) -> Line:
    config = folder.read_config()
    if not (folder.path / "result.json").exists():
        train = config["train"]
        return {**config, "k": train["k"], "n": train["n"], "seed": train["seed"], "finished": False}
    return {**folder.read_result(), "settings": flat_settings(config["train"])}


def _identity(line: Line) -> tuple[tuple[Any, ...], str]:
    """What two copies of the same run have in common: what was run, and its settings where they are known."""
    settings = json.dumps(settings_of(line), sort_keys=True)
    return (*task_of(line), line["algorithm"], line["k"], line["seed"], budget_of(line)), settings
