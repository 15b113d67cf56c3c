"""What a figure of the paper leaves behind: a line a run, a table, pictures. Nothing here trains."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import machine
from rmdp_jax.commands.pictures import draw_comparison
from rmdp_jax.envs.speed import BODIES, SAME_MDP
from rmdp_jax.evaluation.comparison import TELLING, Line, Row, compare_runs, order_of
from rmdp_jax.evaluation.statistics import (
    LEVEL,
    POWER,
    Summary,
    interquartile_mean,
    paired_p,
    probability_of_improvement,
)
from rmdp_jax.plots import save, target_histogram, walks_on_grid, welfare_of_variants
from rmdp_jax.plots.targets import LEAST
from rmdp_jax.records.files import write_lines
from rmdp_jax.records.finished import read_runs

Draw = Callable[[Sequence[Line]], dict[str, Figure]]  # finished runs -> pictures by what follows the figure's name


def draw_walks(lines: Sequence[Line]) -> dict[str, Figure]:
    """Figure 1: the walks of the best seed at every k."""
    best = {k: max((line for line in lines if line["k"] == k), key=lambda x: x["welfare"]) for k in {x["k"] for x in lines}}
    single = len(best) == 1
    return {("" if single else f"_k{k}"): _draw_walks(line) for k, line in sorted(best.items())}


def _draw_walks(line: Line) -> Figure:
    size, walks = line["size"], line["walks"]
    longest = max(map(len, walks))
    padded = np.array([walk + [0] * (longest - len(walk)) for walk in walks])
    alive = np.arange(longest) < np.array([len(walk) for walk in walks])[:, None]
    positions = np.stack(np.divmod(padded, size), -1)
    return walks_on_grid(positions, alive, size, line["assignment"], line["own_return"])


def draw_targets(lines: Sequence[Line]) -> dict[str, Figure]:
    """Figures 4 and 5: a picture for each body and k, of the seed with the median share of its bound."""
    groups: dict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line["env"], line["k"]].append(line)
    several = len({k for _, k in groups}) > 1
    pictures = {}
    for (env, k), group in groups.items():
        line = sorted(group, key=lambda line: line["share_of_bound"] or 0.0)[len(group) // 2]
        body = BODIES[env.removesuffix("_speed")]
        span, speeds = (body.low, body.high), np.array(line["policy_speeds"], float)
        returns = line.get("own_return")
        figure = target_histogram(line["targets"], line["assignment"], k, span, policy_speeds=speeds, returns=returns)
        title = f"{body.cls}: target speeds by policy, seed {line['seed']}; grey: less than {LEAST:g} of 100"
        figure.axes[0].set_title(title, loc="left", fontsize=10, fontweight="bold")
        pictures["_" + env.removesuffix("_speed") + (f"_k{k}" if several else "")] = figure
    return pictures


def draw_bars(lines: Sequence[Line]) -> dict[str, Figure]:
    """Figure 2, and the first of figure 3: welfare by k."""
    rows = compare(lines)
    fewest, most = min(row.seeds for row in rows), max(row.seeds for row in rows)
    seeds = f"{fewest} to {most} seeds" if fewest < most else "1 seed" if most == 1 else f"{most} seeds"
    return {"": draw_comparison(rows, f"Welfare by number of policies, mean and standard error of {seeds}")}


def draw_speed(lines: Sequence[Line]) -> dict[str, Figure]:
    """Figure 3: welfare by k, and of each body, where k = 5, welfare over training by transitions and by seconds."""
    pictures = draw_bars(lines)
    for env in sorted({line["env"] for line in lines}):
        body = env.removesuffix("_speed")
        shown = [line for line in lines if (line["env"], line["k"]) == (env, 5) and line["algorithm"] in _OVER_TRAINING]
        for name, columns in {"training": 2, "seconds": 3}.items():
            timed = [line for line in shown if "curve" in line and len(line["curve"][0]) >= columns]
            runs = _with_common_seeds(_of_one_device(timed) if name == "seconds" else timed)
            if len(runs) > 1:
                pictures[f"_{body}_{name}"] = _draw_training(BODIES[body].cls, runs, columns == 3)
    return pictures


_OVER_TRAINING = ("em", "plain_em", "random")


def _of_one_device(lines: Sequence[Line]) -> list[Line]:
    """Lines of the device that made most of them, as the seconds of two are nothing to compare."""
    devices = Counter(line["device"] for line in lines)
    return [line for line in lines if line["device"] == devices.most_common(1)[0][0]]


def _with_common_seeds(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """By algorithm, of the seeds that all have, as others have other agents and bounds; without those that share none."""
    common: set[int] = set()
    found = {name: [line for line in lines if line["algorithm"] == name] for name in _OVER_TRAINING}
    for name, some in list(found.items()):
        shared = {line["seed"] for line in some} & (common or {line["seed"] for line in some})
        common = shared or common
        if not shared:
            del found[name]
    return {name: [line for line in some if line["seed"] in common] for name, some in found.items()}


def _draw_training(body: str, runs: dict[str, list[Line]], by_seconds: bool) -> Figure:
    seeds = {line["seed"] for some in runs.values() for line in some}
    curves = {name: [np.array(line["curve"], float) for line in some] for name, some in runs.items()}
    fresh = {name: float(np.mean([line["welfare"] for line in some])) for name, some in runs.items()}
    first = next(iter(runs.values()))
    bound, reachable = (float(np.mean([line[name] for line in first])) for name in ("upper_bound", "reachable"))
    which_seeds = f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {min(seeds)}"
    title = f"{body}, k = 5, {which_seeds}"
    return welfare_of_variants(title, curves, fresh, by_seconds=by_seconds, upper_bound=bound, reachable=reachable)


def compare(lines: Sequence[Line]) -> list[Row]:
    """Rows of `compare_runs`; all runs of a cell have the same settings, and backends that step the same MDP are one."""
    same = [line | {"backend": SAME_MDP[0]} if line["backend"] in SAME_MDP else line for line in lines]
    return compare_runs([{name: value for name, value in line.items() if name != "settings"} for line in same])


def write_results(stem: Path, lines: Sequence[Line], shown: Sequence[Line], draw: Draw, notes: Sequence[str]) -> list[Path]:
    """Write STEM.jsonl with all `lines`, STEM.md and pictures of the runs `shown`; returns the pictures' paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_lines(stem.with_name(stem.name + ".jsonl"), lines)
    paths = [save(figure, stem.with_name(f"{stem.name}{name}.png")) for name, figure in draw(shown).items()]
    stem.with_name(stem.name + ".md").write_text(_markdown(stem.name, shown, paths, notes))
    return paths


def read_results(folder: Path, name: str = "figure_*") -> list[Line]:
    """Lines in `folder` of the figure `name`, or of all figures, as a run that one figure made serves the others."""
    return [line for path in sorted(folder.glob(name + ".jsonl")) for line in read_runs(path)]


def against_em(rows: Sequence[Row], lines: Sequence[Line]) -> dict[Row, float | None]:
    """p of the paired t-test of each row against `em` at the same env and k."""
    welfare: dict[tuple[str, int, str], dict[int, float]] = defaultdict(dict)
    for line in lines:
        welfare[line["env"], line["k"], line["algorithm"]][line["seed"]] = line["welfare"]
    return {
        row: None if row.algorithm == "em" else paired_p(welfare[row.env, row.k, "em"], welfare[row.env, row.k, row.algorithm])
        for row in rows
    }


_COLUMNS = (
    *("env", "k", "algorithm", "seeds", "welfare", "95% interval", "upper bound", "share", "best", "p against em"),
    *("transitions per policy", "of all policies"),
)


def _markdown(name: str, lines: Sequence[Line], pictures: Sequence[Path], notes: Sequence[str]) -> str:
    rows = compare(lines)
    table = [_cells(row, p) for row, p in against_em(rows, lines).items()]
    device = sorted({f"{line['device']}, backend {line['backend']}" for line in lines})
    versions = {package: version for package, version in machine()["versions"].items() if version}
    return "\n".join(
        [
            f"# {name.replace('_', ' ').replace('figure', 'Figure')}\n",
            *(f"![{picture.stem}]({picture.name})" for picture in pictures),
            "\n| " + " | ".join(_COLUMNS) + " |",
            "|" + "---|" * len(_COLUMNS),
            *("| " + " | ".join(cells) + " |" for cells in table),
            "\nWelfare: mean ± standard error over seeds, fresh episodes with sampled actions; the interval is a bootstrap "
            "(BCa) of the mean. Best: the highest mean over common seeds, and what is not significantly below it by a paired "
            f"t-test at {LEVEL}, if so many seeds would detect {TELLING:.0%} of the bound with a chance of "
            f"{POWER:.0%}, by the spread that there is. Transitions per policy count those that `cluster` spends on its "
            "groups; those of all policies are all environment steps.\n",
            *([_TIMED] if any(picture.stem.endswith("_seconds") for picture in pictures) else []),
            *_over_tasks(lines),
            *_reached(lines),
            *notes,
            f"\nDevice: {'; '.join(device)}. Versions when the table was made: "
            + ", ".join(f"{package} {version}" for package, version in versions.items())
            + ".\n",
        ]
    )


_TIMED = (
    "Seconds are of runs on one device that each had a process of its own, beside other work; compilation is not among them.\n"
)


def _over_tasks(lines: Sequence[Line]) -> list[str]:
    """A table of shares of the bound over all tasks that `em` and another algorithm have at the same k."""
    shares: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["share_of_bound"] is not None:
            shares[line["k"], line["algorithm"]][line["env"]].append(line["share_of_bound"])
    if all(len(scores) < 2 for scores in shares.values()):
        return []
    rows = []
    for (k, algorithm), scores in sorted(shares.items(), key=lambda item: (item[0][0], order_of(item[0][1]))):
        middle, improvement = interquartile_mean(scores), probability_of_improvement(shares[k, "em"], scores)
        better = "" if algorithm == "em" else _with_interval(improvement, ".0%")
        rows.append(f"| {k} | {algorithm} | {len(scores)} | {middle.number} | {_with_interval(middle, '.1%')} | {better} |")
    return [
        "Over tasks, as shares of the bound: interquartile mean, and how probably a run of `em` is better than one of the "
        "other on a task that both have; 95% intervals of a bootstrap that resamples the runs of each task.\n",
        "| k | algorithm | tasks | runs | interquartile mean | em is better |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _with_interval(summary: Summary, form: str) -> str:
    if summary.mean is None:
        return ""
    mean = format(summary.mean, form)
    return mean if summary.low is None or summary.high is None else f"{mean} ({summary.low:{form}} to {summary.high:{form}})"


def _reached(lines: Sequence[Line]) -> list[str]:
    """A sentence a cell of `em` on speed tasks: who gets at least a tenth of the best possible return, and how fast it is."""
    cells: dict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in lines:
        if "targets" in line and "own_return" in line:
            cells[line["env"], line["k"]].append(line)
    sentences = []
    for (env, k), runs in sorted(cells.items()):
        shares = [np.mean(np.array(run["own_return"]) >= LEAST) for run in runs]
        fastest = [np.array(run["targets"])[np.array(run["own_return"]) >= LEAST].max(initial=0.0) for run in runs]
        seeds = f"means of {len(runs)} seeds" if len(runs) > 1 else "one seed"
        sentences.append(
            f"- {env}, k = {k}: {np.mean(shares):.0%} of the agents get at least a tenth of their best possible return; the "
            f"fastest of them wants {np.mean(fastest):.2f} m/s ({seeds})."
        )
    return [*sentences, ""] if sentences else []


def _cells(row: Row, p: float | None) -> list[str]:
    error = "" if row.standard_error is None else f" ± {row.standard_error:.2f}"
    p_text = "" if p is None else f"{p:.1e}" + (" (significant)" if p < LEVEL else "")
    return [
        *(row.env, str(row.k), row.algorithm, str(row.seeds), f"{row.welfare:.2f}{error}"),
        "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}",
        "" if row.bound is None else f"{row.bound:.2f}",
        "" if row.share is None else f"{row.share:.1%}",
        "**best**" if row.best else "not enough seeds" if row.too_few else "",
        p_text,
        f"{row.transitions:,}",
        f"{row.total_transitions:,}",
    ]
