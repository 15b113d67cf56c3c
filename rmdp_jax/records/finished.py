"""Find finished runs: in their folders, in folders that hold some at any depth, in .jsonl files with a run per line."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.comparison import Line, budget_of, flat_settings, settings_of, task_of
from rmdp_jax.records.files import read_lines, warn
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.places import run_folder
from rmdp_jax.records.schema import RUN, check_fields

_TELLING = ("env", "algorithm", "welfare", "total_transitions")  # names in a line of a run, not all in a line of metrics


class Found(NamedTuple):
    """What `find_runs` returns."""

    lines: list[Line]  # finished runs, each once
    unfinished: int  # runs that were stopped or are going on
    repeated: int  # finished runs that were there more than once


def find_runs(paths: Iterable[Path]) -> Found:
    """Read finished runs from run folders, folders that hold some at any depth, and .jsonl files with a run per line.

    A run that is in a folder and in a file (a sweep's runs.jsonl) counts once, as does one that was made twice, and one that
    links lead to by several ways.

    Warns:
        RunWarning: a run in a folder cannot be read, or has no welfare, as it diverged; it is left out.

    Raises:
        ConfigError: a path does not exist or a file is no list of runs, or there is no finished run at all.
    """
    paths = [run_folder("runs", path) for path in paths]
    seen: dict[tuple[Any, ...], Line] = {}
    unfinished = repeated = 0
    for line, where in (found for path in paths for found in _read(path)):
        task, settings = _identity(line)
        if "settings" in line:
            alike = [seen[task, settings]] if (task, settings) in seen else []
        else:
            alike = [kept for (other, _), kept in seen.items() if other == task]
        twice = any(kept["welfare"] == line["welfare"] for kept in alike)
        if not line.get("finished", True):
            unfinished += 1
        elif line["welfare"] is None:
            warn(f"{where}: its welfare is not a number, so it is left out")
        elif twice or (task, settings) in seen:
            repeated += where.suffix != ".jsonl"
            if not twice:
                which = "equal settings" if "settings" in line else "no settings"
                warn(f"{where}: a run of seed {line['seed']} is there with another welfare, and {which}; the first counts")
        else:
            seen[task, settings] = line
    if not seen:
        searched = ", ".join(map(str, paths))
        more = f" ({unfinished} unfinished: go on with them by --resume)" if unfinished else ""
        raise ConfigError(f"runs = {searched}: no finished run found{more}; give folders that `rmdp-jax train` wrote")
    return Found(list(seen.values()), unfinished, repeated)


def read_runs(path: Path) -> list[Line]:
    """Runs of a .jsonl file; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no run.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        check_fields(f"{path}: line {number}", line, RUN)
    return lines


def _read(path: Path) -> Iterator[tuple[Line, Path]]:
    """Runs at `path`, finished or not, those in folders first, and the folder or file that each is from."""
    if not os.path.exists(path):  # which a name that is too long does not either, where Path.exists raises
        raise ConfigError(f"runs = {path}: does not exist; give folders of runs or .jsonl files")
    if not path.is_dir():
        yield from ((line, path) for line in read_runs(path))
        return
    files, seen = [], set()
    for folder, below, names in os.walk(path, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # links that lead to where somebody was already, or in a circle
            below.clear()
            continue
        seen.add(place)
        below.sort()
        if "config.json" in names or "result.json" in names:
            below.clear()  # checkpoints
            yield from _readable(_read_folder, Path(folder))
        else:
            files += [Path(folder) / name for name in sorted(names) if name.endswith(".jsonl")]
    for file in files:
        yield from _readable(_read_file, file)


def _readable(read: Callable[[Path], list[Line]], path: Path) -> list[tuple[Line, Path]]:
    """What `read` reads at `path`, or nothing where it cannot: one bad run does not stop a comparison of many."""
    try:
        return [(line, path) for line in read(path)]
    except ConfigError as error:
        warn(f"left out: {error}")
        return []


def _read_file(path: Path) -> list[Line]:
    """Runs of a file that was found; nothing of one that holds something else, such as metrics, as its first line shows."""
    first = next(iter(read_lines(path)), None)
    return read_runs(path) if isinstance(first, dict) and set(_TELLING) <= first.keys() else []


def _read_folder(path: Path) -> list[Line]:
    folder = RunFolder(path)
    config = folder.read_config()
    if not folder.has_result():
        train = config["train"]
        return [{**config, "k": train["k"], "n": train["n"], "seed": train["seed"], "finished": False}]
    result = folder.read_result(lambda path, content: check_fields(path, content, RUN))
    return [{**result, "settings": flat_settings(config["train"])}]


def _identity(line: Line) -> tuple[tuple[Any, ...], str]:
    """What two copies of the same run have in common: what was run, and its settings where they are known."""
    settings = json.dumps(settings_of(line), sort_keys=True)
    seeds = line["seed"], line["env_options"].get("seed")  # of training, and of the people
    return (*task_of(line), line["algorithm"], line["k"], *seeds, budget_of(line)), settings
