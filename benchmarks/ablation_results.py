"""What `benchmarks.ablation` makes of its lines: a table, and welfare over training with its bounds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.runs import summarize_runs
from benchmarks.variants import COMPARISONS, Line, cell_of, of_cell
from rmdp_jax.evaluation.statistics import LEVEL, paired_p
from rmdp_jax.plots import save, welfare_of_variants
from rmdp_jax.records.files import read_lines

COLUMNS = ("transitions", "k", "variant", "seeds", "welfare", "share", "p", "served", "seconds")


def current_lines(results: Path, env: str, of: str) -> list[Line]:
    """Lines in the results that are of the variants as they are now, by budget, k and variant."""
    order = list(COMPARISONS[of].variants)
    lines = [line for line in read_lines(results) if (line["env"], line["of"]) == (env, of) and line["variant"] in order]
    lines = [line | summarize_runs(line["runs"]) for line in lines if of_cell(line, cell_of(line))]  # to all their digits
    return sorted(lines, key=lambda line: (line["budget"], line["k"], order.index(line["variant"])))


def p_against(line: Line, lines: Sequence[Line]) -> float | None:
    """p of the paired t-test of `line` against the baseline's line of the same budget and k, where there is one."""
    same = [other for other in lines if all(other.get(name) == line.get(name) for name in ("budget", "k", "backend"))]
    baseline = next((other for other in same if other["variant"] == COMPARISONS[line["of"]].against), None)
    if baseline is None or baseline is line:
        return None
    a, b = ({run["seed"]: run["welfare"] for run in some["runs"]} for some in (line, baseline))
    return paired_p(a, b)


def table_rows(lines: Sequence[Line], among: Sequence[Line]) -> list[list[str]]:
    """Cells of the table, a row a line; `among` are the lines with the baselines."""
    rows = []
    for line in lines:
        error, share, p = line["welfare_standard_error"], line["share_of_bound"], p_against(line, among)
        welfare = f"{line['welfare_mean']:.2f}" + ("" if error is None else f" ± {error:.2f}")
        significance = "" if p is None else f"{p:.1e}" + " *" * (p < LEVEL)
        row = [f"{line['budget']:,}", str(line["k"]), line["variant"], str(len(line["seeds"])), welfare]
        rows.append([*row, "" if share is None else f"{share:.1%}", significance, _served(line), f"{line['wall_s']:,.0f}"])
    return rows


def _served(line: Line) -> str:
    """Share of the agents that are served and, of speed tasks, the fastest of them: means over seeds; nothing of old lines."""
    runs = [run for run in line["runs"] if "served" in run]
    if not runs:
        return ""
    fastest = [run["fastest_served"] for run in runs]
    share = f"{np.mean([run['served'] for run in runs]) / line['n']:.0%}"
    return share + ("" if None in fastest else f", to {np.mean(fastest):.2f}")


def write_table(results: Path, lines: Sequence[Line], command: str) -> None:
    """The markdown beside the lines."""
    others = len(read_lines(results)) - len(lines)
    env, of = (lines[0]["env"], lines[0]["of"]) if lines else ("", "")
    text = [
        f"# Ablation of {of}: {env}\n",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row) + " |" for row in table_rows(lines, lines)),
        "\nTransitions are those of each policy that were asked for, the same for all variants. Welfare: mean ± standard error "
        "over seeds, fresh episodes with sampled actions; share: mean of each seed's share of its own bound. p: paired t-test "
        f"over seeds against {COMPARISONS[of].against} at the same k and transitions, * below {LEVEL}. Served: agents paid "
        "more than a tenth of what the best paid one is, and the fastest target among them (m/s).\n",
        *[f"{others} lines of other settings are in the file, and not in the table.\n"] * bool(others),
        f"Made by `{command}`, or in parts with `--ks` and `--variants`.\n",
        f"Device: {'; '.join(sorted({line['device'] for line in lines}))}.\n",
    ]
    results.with_suffix(".md").write_text("\n".join(text))


def draw(results: Path, lines: Sequence[Line]) -> None:
    """A picture beside the lines for each k of which there are curves."""
    lines = [line for line in lines if all("curve" in run for run in line["runs"])]
    for k in sorted({line["k"] for line in lines}):
        of_k = [line for line in lines if line["k"] == k]
        budget = f"{of_k[0]['budget'] // 1000}k"
        save(draw_lines(of_k), results.with_name(f"{results.stem}_k{k}_{budget}.png"))


def draw_lines(lines: Sequence[Line]) -> Figure:
    """Welfare of variants of one env, k and budget over training, of the seeds that all have: others have other agents."""
    seeds = set.intersection(*({run["seed"] for run in line["runs"]} for line in lines))
    runs = {line["variant"]: [run for run in line["runs"] if run["seed"] in seeds] for line in lines}
    variants = {name: [np.array(run["curve"]) for run in some] for name, some in runs.items()}
    fresh = {name: float(np.mean([run["welfare"] for run in some])) for name, some in runs.items()}
    levels = {name: [run.get(name) for run in runs[lines[0]["variant"]]] for name in ("upper_bound", "reachable")}
    means = {name: float(np.mean(values)) for name, values in levels.items() if None not in values}
    title, bound = f"{lines[0]['env']}, k = {lines[0]['k']}, {len(seeds)} seeds", means.get("upper_bound")
    return welfare_of_variants(title, variants, fresh, upper_bound=bound, reachable=means.get("reachable"))
