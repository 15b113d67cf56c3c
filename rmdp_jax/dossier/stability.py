"""Whether training again, from another seed, puts the same people together: adjusted Rand index between runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmdp_jax.errors import ConfigError, shown
from rmdp_jax.records.folder import RunFolder, check_finished
from rmdp_jax.records.people import read_people
from rmdp_jax.records.places import run_folder

FEWER = "leave it out, or give a run of the same task for the same people"


class Beside(NamedTuple):
    """A finished run of the same people; its policies are not needed."""

    name: str  # of its folder
    result: dict[str, Any]
    assignment: np.ndarray  # (n,)


def read_beside(own: str | Path, paths: Sequence[str | Path]) -> list[Beside]:
    """Results of the runs in the folders `paths`, of the same task and people as the run in `own`; reads small files alone.

    Raises:
        ConfigError: a folder holds no finished run, or is given twice, or its task or its people are others.
    """
    home, seen = RunFolder(run_folder("run", own)), {}
    seen[home.path.resolve()] = "the run itself"
    found = []
    for path in paths:
        folder = RunFolder(run_folder("beside", path))
        place = folder.path.resolve()
        if place in seen:
            raise ConfigError(f"beside = {path}: is {seen[place]}; leave it out, or give another run")
        seen[place] = "given twice"
        result = folder.read_result() | folder.read_arrays()
        check_finished(folder.path, result)
        _check_same(home, folder, path)
        found.append(Beside(place.name, result, result["assignment"]))
    return found


def _check_same(home: RunFolder, other: RunFolder, path: str | Path) -> None:
    """Raise `ConfigError` unless the runs in two folders are of one task and of the same people."""
    here, there = home.read_config(), other.read_config()
    tasks = [(run["env"], {name: x for name, x in run["env_options"].items() if name != "seed"}) for run in (here, there)]
    for name, own, given in zip(("env", "env_options"), *tasks, strict=True):
        if own != given:
            raise ConfigError(f"beside = {path}: {name} = {shown(given)}: must be {shown(own)} as of {home.path}; {FEWER}")
    for folder in (home, other):
        if not folder.people.exists():
            raise ConfigError(
                f"beside = {path}: {folder.people} is missing, so nobody knows whether its people are the same; {FEWER}"
            )
    own, given = (read_people(folder.people) for folder in (home, other))
    differs = own.keys() != given.keys() or any(
        own[name].shape != given[name].shape or not np.array_equal(own[name], given[name], equal_nan=_is_float(own[name]))
        for name in own
    )
    if differs:
        raise ConfigError(
            f"beside = {path}: agents: are others than those of {home.path}, must be the same people (--people-seed); {FEWER}"
        )


def _is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def describe_stability(own: Beside, others: Sequence[Beside]) -> dict[str, Any] | None:
    """How alike the assignments of several runs are; None where there is one alone.

    The adjusted Rand index (Hubert & Arabie 1985) is 1 where the groups are the same, whatever their numbers, and 0 on average
    where agents are dealt out by chance.
    """
    if not others:
        return None
    from sklearn.metrics import adjusted_rand_score

    runs = [own, *others]
    index = [[1.0 if a is b else float(adjusted_rand_score(a.assignment, b.assignment)) for b in runs] for a in runs]
    pairs = np.array(index)[np.triu_indices(len(runs), 1)]
    names = ("algorithm", "k", "seed", "welfare", "welfare_standard_error")
    return {
        "runs": [{"run": run.name, **{name: run.result[name] for name in names}} for run in runs],
        "adjusted_rand_index": index,
        "mean": float(pairs.mean()),
        "least": float(pairs.min()),
    }


def overlap(own: np.ndarray, other: np.ndarray, policy: int) -> float | None:
    """Of all agents in `policy` or the most alike group of another run, the share in both (Jaccard); None of no agents.

    Args:
        own, other: assignments (n,).
        policy: of `own`.
    """
    mine = own == policy
    if not mine.any():
        return None
    both = np.bincount(other[mine], minlength=other.max() + 1)
    either = mine.sum() + np.bincount(other, minlength=len(both)) - both
    return float((both / np.maximum(either, 1)).max())
