"""Runs side by side: group those that can be compared, and say which algorithm is best in each group."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmdp_jax.env import describe_options
from rmdp_jax.evaluation.statistics import LEVEL, paired_p, smallest_difference, summarize_values
from rmdp_jax.welfare import describe_terms

Line = dict[str, Any]  # of one run: what result.json holds, with `settings` where they are known

ORDER = (
    *("em", "plain_em", "end_to_end", "end_to_end_surrogate", "cluster", "affinity", "cover", "random", "oracle"),
    *("single", "individual", "contextual"),
)
TELLING = 0.05  # share of the bound: runs that could not have shown such a difference do not share a first place


class Row(NamedTuple):
    """One algorithm in one group of runs that differ in algorithm and seed only."""

    env: str
    options: str  # of the env, without seed and n: "size=4"; "people_seed=0" where all seeds have these people; or nothing
    backend: str
    n: int
    k: int
    transitions: int  # per policy, those of the whole budget: with what went into the groups beforehand
    algorithm: str  # with the settings in which runs of the same algorithm differ: "em epochs=4"
    seeds: int
    welfare: float  # mean over seeds
    standard_error: float | None
    low: float | None  # 95% bootstrap interval of the mean
    high: float | None
    bound: float | None  # mean over seeds, as speed tasks have other targets with each
    share: float | None  # mean of each seed's share of its own bound
    total_transitions: int  # environment steps of all policies together, mean over seeds
    best: bool  # the leader, which has the highest mean over the seeds that all with several have; or not significantly
    # different from it by a paired t-test that could have shown `TELLING` of the bound
    p: float | None  # of that test against the leader; None for that one, and with fewer than two common seeds
    too_few: bool  # whether there are too few seeds to say


def compare_runs(lines: Sequence[Line]) -> list[Row]:
    """One row for each algorithm in each group of comparable runs, sorted by env, budget, k and algorithm.

    Runs can be compared when env, its options, backend, n, k, budget and the terms of welfare are the same, and people are
    drawn by each run's own seed or are the same for all. The budget is `transitions_per_policy` + `pretraining_transitions`, as
    an algorithm that spends steps on its groups beforehand trains its policies for less; two budgets are the same when both
    come from one `--transitions`, rounded up to iterations.
    """
    groups: dict[tuple[Any, ...], dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    names = _labels(lines)
    for line, budget, people, name in zip(lines, _common_budgets(lines), _people(lines), names, strict=True):
        env, options, *rest = task_of(line)
        task = ", ".join(filter(None, [options, people, describe_terms(line)]))
        groups[(env, task, *rest, budget, line["k"])][name].append(line)
    return [row for key in sorted(groups) for row in _rows_of_group(key, groups[key])]


def flat_settings(train: dict[str, Any]) -> dict[str, Any]:
    """Sizes and rates of config.json's `train` in one dict; lists as they are there."""
    return {**train.get("sizes", {}), **train.get("rates", {})}


def budget_of(line: Line) -> int:
    """Transitions per policy with those that went into the groups beforehand."""
    return line.get("transitions_per_policy", 0) + line.get("pretraining_transitions", 0)


def order_of(algorithm: str) -> tuple[int, str]:
    """Sorts algorithms as `ORDER` lists them, unknown ones last."""
    name = algorithm.split(" ")[0]
    return ORDER.index(name) if name in ORDER else len(ORDER), algorithm


def task_of(line: Line) -> tuple[str, str, str, int]:
    """Env, what made it where that is a function of one's own, and its options, backend and n."""
    made = [Path(line["make"]).name] if line.get("make") else []  # the same file may be elsewhere on another machine
    return line["env"], " ".join([*made, *filter(None, [describe_options(line["env_options"])])]), line["backend"], line["n"]


def settings_of(line: Line) -> dict[str, Any]:
    """Settings of a run and of its algorithm, as far as they are known."""
    given = {name: len(line.get(name, [])) for name in ("frozen", "start")}  # policies of other runs that it was given
    terms = {"welfare_p": line.get("welfare_p", 1.0), **{name: line.get(name) for name in ("weighted", "at_most", "at_least")}}
    return {**line.get("settings", {}), **line.get("algorithm_options", {}), **given, **terms}


def _people(lines: Sequence[Line]) -> list[str]:
    """Of each run "people_seed=P" where a seed P other than its own drew its people, or nothing.

    Where seed and P are the same it is one of those of P, unless another run of its kind has people of another own seed.
    """
    drawn = [line["env_options"].get("seed", line["seed"]) for line in lines]
    kinds = [(*task_of(line), line["k"], line["algorithm"], repr(sorted(settings_of(line).items()))) for line in lines]
    seeds: dict[tuple[Any, ...], set[tuple[int, int]]] = defaultdict(set)
    for line, seed, kind in zip(lines, drawn, kinds, strict=True):
        seeds[kind].add((seed, line["seed"]))
    shared = {kind: {seed for seed, own in found if seed != own} for kind, found in seeds.items()}
    alone = {kind: len({seed for seed, own in found if seed == own}) < 2 for kind, found in seeds.items()}
    return [
        f"people_seed={seed}" if seed in shared[kind] and (seed != line["seed"] or alone[kind]) else ""
        for line, seed, kind in zip(lines, drawn, kinds, strict=True)
    ]


def _common_budgets(lines: Sequence[Line]) -> list[int]:
    """Budget of each run, the largest of those of its task and k that one `--transitions` can have led to."""
    groups: dict[tuple[Any, ...], list[list[int]]] = defaultdict(list)
    for i in sorted(range(len(lines)), key=lambda i: budget_of(lines[i])):
        line, alike = lines[i], groups[(*task_of(lines[i]), lines[i]["k"])]
        iteration = line.get("transitions_per_policy", 0) // line["iterations"] if line.get("iterations") else 1
        if alike and budget_of(line) - budget_of(lines[alike[-1][0]]) < max(iteration, 1):
            alike[-1].append(i)
        else:
            alike.append([i])
    common = {i: budget_of(lines[group[-1]]) for alike in groups.values() for group in alike for i in group}
    return [common[i] for i in range(len(lines))]


def _labels(lines: Sequence[Line]) -> list[str]:
    """Name of each run's algorithm, with the settings that differ between runs of the same env, k and algorithm.

    A setting that a run does not record, as it has its default, differs from any recorded one; of a run whose settings are not
    known, nothing does.
    """
    keys = [(line["env"], line["algorithm"], line["k"]) for line in lines]
    recorded = [{name: str(value) for name, value in settings_of(line).items()} for line in lines]
    alike: dict[tuple[Any, ...], list[tuple[dict[str, str], bool]]] = defaultdict(list)
    for line, key, settings in zip(lines, keys, recorded, strict=True):
        alike[key].append((settings, "settings" in line))
    varied = {
        key: {
            name
            for name in set().union(*(settings for settings, _ in group))
            if len({settings.get(name) for settings, known in group if known or name in settings}) > 1
        }
        for key, group in alike.items()
    }
    return [
        " ".join([line["algorithm"], *(f"{name}={value}" for name, value in settings.items() if name in varied[key])])
        for line, key, settings in zip(lines, keys, recorded, strict=True)
    ]


def _rows_of_group(key: tuple[Any, ...], runs: dict[str, list[Line]]) -> list[Row]:
    env, options, backend, n, budget, k = key
    welfare = {name: {line["seed"]: float(line["welfare"]) for line in lines} for name, lines in runs.items()}
    several = [name for name in welfare if len(welfare[name]) > 1] or list(welfare)  # one seed is not tested against others
    common = set.intersection(*(set(welfare[name]) for name in several))  # other seeds may have other agents and bounds
    leader = max(several, key=lambda name: _mean_over(welfare[name], common or set(welfare[name])))
    rows = []
    bound = _mean_of(runs[leader], "upper_bound")
    least = TELLING * abs(float(np.mean(list(welfare[leader].values()))) if bound is None else bound)
    for name in sorted(runs, key=order_of):
        summary = summarize_values(welfare[name].values())
        p = None if name == leader else paired_p(welfare[leader], welfare[name])
        smallest = smallest_difference(welfare[leader], welfare[name])
        shared = set(welfare[leader]) & set(welfare[name])
        ahead = bool(shared) and _mean_over(welfare[name], shared) > _mean_over(welfare[leader], shared)
        too_few = name != leader and (p is None or smallest is None or (ahead if p < LEVEL else smallest > least))
        rows.append(
            Row(
                *(env, options, backend, n, k, budget, name),
                seeds=summary.number,
                welfare=float(np.mean(list(welfare[name].values()))),
                standard_error=summary.standard_error,
                low=summary.low,
                high=summary.high,
                bound=_mean_of(runs[name], "upper_bound"),
                share=_mean_of(runs[name], "share_of_bound"),
                total_transitions=round(np.mean([line["total_transitions"] for line in runs[name]])),
                best=name == leader or (not too_few and p is not None and p >= LEVEL),
                p=p,
                too_few=too_few,
            )
        )
    return rows


def _mean_over(values: dict[int, float], seeds: set[int]) -> float:
    return float(np.mean([values[seed] for seed in seeds]))


def _mean_of(lines: list[Line], name: str) -> float | None:
    """Mean over runs that all have the number; None where one has not."""
    values = [float(line[name]) for line in lines if line.get(name) is not None]
    return float(np.mean(values)) if len(values) == len(lines) else None
