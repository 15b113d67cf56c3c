"""Tables on the terminal, at most 80 columns wide."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from rmdp_jax.env import describe_options
from rmdp_jax.limits import describe_limits
from rmdp_jax.records.settings import words_of
from rmdp_jax.records.tables import RETURNS, policy_rows
from rmdp_jax.terminal import PlainConsole, plus_minus, visible
from rmdp_jax.welfare import describe_terms

if TYPE_CHECKING:
    from rmdp_jax.commands.health import Finding
    from rmdp_jax.evaluation.comparison import Row
    from rmdp_jax.records.finished import Found


MOST_GROUPS = 20  # in a table

_READING = """welfare: mean {plus_minus} standard error over seeds; 95%: bootstrap interval of the mean
*: the highest mean, or not significantly below it (paired t-test, 0.01; p)
?: not significant either, but too few seeds to detect 5% of the bound
steps: of all policies, with those that cluster and affinity spend on groups"""


def print_summary(result: dict[str, Any]) -> None:
    """The table a run ends with, from what result.json holds."""
    console = PlainConsole()
    error = _plus_minus(result["welfare_standard_error"])
    bound = result["upper_bound"]
    facts = Table(show_header=False, box=None, padding=(0, 1))
    facts.add_row(
        "welfare", Text.assemble((_figure(result["welfare"]), "bold"), f"{error} of 100, fresh episodes, sampled actions")
    )
    if terms := describe_terms(result):
        facts.add_row("", terms)
    facts.add_row("", f"{_figure(result['welfare_deterministic'])} by the most likely actions")
    limits = describe_limits(result)
    if limits:
        facts.add_row("limits", limits)
    if bound is not None:
        k = result["n"] if result["env_options"].get("context") else result["k"]  # who is told can behave in n ways
        without = " without limits" if limits else ""
        share = result["share_of_bound"]
        reached = "" if share is None else f"; reached {share:.1%}"
        facts.add_row("upper bound", f"{bound:.2f} proved for k = {k}{without}{reached}")
    reachable = result.get("reachable")
    if reachable and result["welfare"] is not None:
        facts.add_row("reachable", f"{reachable:.2f}, an estimate, not proved; reached {result['welfare'] / reachable:.1%}")
    if result["softness"]:
        facts.add_row("soft entropy", f"{result['softness']:.2f} nats; served by the policy of the largest weight")
    for name, what in (("frozen", "stay as they are"), ("start", "were the start")):
        if result.get(name):
            facts.add_row(name, visible(f"{' '.join(words_of(result[name]))} {what}"))
    facts.add_row("transitions", f"{result['transitions_per_policy']:,} per policy" + _unfinished(result))
    speed = f"{result['transitions_per_s']:,.0f} transitions/s"
    facts.add_row("time", f"{result['wall_s']:.1f} s training at {speed}, {result['compile_s']:.1f} s compiling")
    faults = _faults(result)
    if faults:
        facts.add_row("faults", faults)
    facts.add_row("device", visible(f"{result['device']}, backend {result['backend']}"))
    who = f"k = {result['k']} policies for n = {result['n']} agents"
    drawn = result["env_options"].get("seed", result["seed"])
    people = "" if drawn == result["seed"] else f", people of seed {drawn}"
    options = describe_options(result["env_options"])
    suffix = f" {options}" if options else ""
    task = visible(f"{suffix}  {result['algorithm']}, {who}, seed {result['seed']}{people}")
    console.print(Text.assemble("\n", (visible(str(result["env"])), "bold"), task))
    console.print(facts)
    console.print(_policy_table(result))


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """The table of `rmdp-jax evaluate`."""
    console = PlainConsole()
    error = _plus_minus(evaluation["welfare_standard_error"])
    played = f"{error} of 100 ({evaluation['episodes']} fresh episodes of each policy)"
    console.print(Text.assemble("\nwelfare ", (_figure(evaluation["welfare"]), "bold"), played))
    if terms := describe_terms(evaluation):
        console.print(terms)
    if "verified" in evaluation:
        console.print(_describe_verified(**evaluation["verified"]))
    console.print(f"if everyone moved to the policy best for them in these episodes: {_figure(evaluation['best_welfare'])}")
    console.print(_policy_table(evaluation))
    print_fairness({"everybody": evaluation["fairness"]}, evaluation["unserved_below"])
    if "episodes_kept" in evaluation:
        console.print(f"{evaluation['episodes_kept']} episodes of each policy kept in episodes.npz for rmdp-jax assign")


def _describe_verified(
    recorded: float,
    recorded_standard_error: float | None,
    difference: float,
    standard_errors: float | None,
    agrees: bool | None,
) -> str:
    text = f"recorded {recorded:.2f}{_plus_minus(recorded_standard_error)}: "
    if standard_errors is None:
        return text + f"{difference:+.2f}, " + ("agrees" if agrees else "nobody can tell, as the standard error is not known")
    apart = f"{difference:+.2f}, {standard_errors:.1f} standard errors"
    return text + (f"agrees ({apart})" if agrees else f"DOES NOT AGREE ({apart}): other physics or versions, or other policies")


def print_assigned(summary: dict[str, Any]) -> None:
    """The tables of `rmdp-jax assign`: who serves how many, and how returns are spread."""
    console = PlainConsole()
    mean = Text.assemble("\nmean return ", (f"{summary['fairness']['everybody']['mean']:.2f}", "bold"), " of 100")
    weighted = " by weight" if summary["weighted"] else ""
    how = ",\nacting by the most likely actions" if summary["deterministic"] else ""
    who = f"{weighted} for {summary['agents']:,} agents, by {summary['episodes']} kept episodes of each policy{how}"
    console.print(Text.assemble(mean, who))
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("policy", "agents", "mean return", "worst agent", "best agent"):
        table.add_column(name, justify="right")
    for one in summary["policies"]:
        returns = (f"{one[name]:.1f}" if name in one else "-" for name in ("mean", "worst", "best"))
        table.add_row(str(one["policy"]), f"{one['agents']:,}", *returns)
    console.print(table)
    print_fairness(summary["fairness"], summary["unserved_below"])


def print_fairness(groups: dict[str, dict[str, Any]], threshold: float | None) -> None:
    """How returns are spread, a line a group, everybody first; of very many groups the largest."""
    console, table = PlainConsole(), Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("group", "agents", "mean", "worst tenth", "minimum", "Gini", "unserved"):
        table.add_column(name, justify="left" if name == "group" else "right", overflow="fold")
    shown = dict(sorted(groups.items(), key=lambda item: -item[1]["agents"])[:MOST_GROUPS])
    for name, one in ((name, one) for name, one in groups.items() if name in shown):
        figures = [f"{one[field]:.2f}" for field in ("mean", "worst_tenth", "minimum")]
        gini = "-" if one["gini"] is None else f"{one['gini']:.3f}"
        unserved = "-" if one["unserved"] is None else f"{one['unserved']:.1%}"
        table.add_row(visible(name), f"{one['agents']:,}", *figures, gini, unserved)
    console.print(table)
    if len(groups) > len(shown):
        console.print(f"{len(groups) - len(shown):,} smaller groups are left out; --json has them")
    if threshold is not None:
        console.print(f"unserved: at most {threshold:.2f}, a tenth of the best return of any agent of the run")


def print_pictures(paths: list[Path]) -> None:
    """Where the pictures are."""
    console = PlainConsole(soft_wrap=True)
    for path in paths:
        console.print(f"picture  {visible(str(path))}")


def print_rendered(page: Path, movie: Path | None, missing: str | None) -> None:
    """Where a page and a movie are, and what kept from an mp4."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"page     {visible(str(page))}")
    if movie is not None:
        console.print(f"movie    {visible(str(movie))}")
    if missing is not None:
        console.print(visible(missing))


def print_dossier(content: dict[str, Any], page: Path, data: Path, size: int, missing: str | None) -> None:
    """Where a dossier is, how large, and what it says to look at first."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"dossier  {visible(str(page))} ({size / 1e6:.2f} MB)")
    console.print(f"data     {visible(str(data))}")
    for policy in content["policies"]:
        for note in policy["notes"]:
            PlainConsole().print(f"policy {policy['policy']}: {visible(note)}")
    if missing is not None:
        console.print(visible(f"no animations: {missing}"))


def print_exported(folder: Path, files: Sequence[str]) -> None:
    """Where an export is, and how much of it there is; very many policies are very many files."""
    console = PlainConsole(soft_wrap=True)
    console.print(f"export   {visible(str(folder))}")
    console.print(f"{len(files)} files; {files[-1]} says what each of them is")


def print_released(folder: Path, files: Sequence[str], size: int) -> None:
    """Where a release is, and how to hand it on."""
    console, path = PlainConsole(soft_wrap=True), visible(str(folder))
    console.print(f"release  {path} ({len(files)} files, {size / 1e3:,.0f} kB)")
    console.print(f"verify   rmdp-jax evaluate {visible(quote(str(folder)))}")
    console.print(f"upload   hf upload USER/NAME {visible(quote(str(folder)))}")


def print_envs(rows: list[tuple[str, str, str, str]]) -> None:
    """Tasks: name, default number of agents, backends, options."""
    table = Table(box=None, padding=(0, 1))
    for name in ("env", "agents", "backends", "options"):
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    PlainConsole().print(table)


def print_findings(findings: "list[Finding]") -> None:
    """What `rmdp-jax doctor` found, and then its advice."""
    console, styles = PlainConsole(), {"ok": "green", "note": "yellow", "failed": "bold red"}
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("check", "", "found", "s"):
        table.add_column(name, justify="right" if name == "s" else "left", overflow="fold")
    for one in findings:
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        table.add_row(one.name, Text(one.status, style=styles[one.status]), visible(one.found), seconds)
    console.print(table)
    for one in findings:
        if one.advice:
            console.print(visible(f"{one.name}: {one.advice}"))
    failed = ", ".join(one.name for one in findings if one.status == "failed")
    console.print(f"failed: {failed}" if failed else "all that is needed works")


def print_comparison(rows: list["Row"], found: "Found") -> None:
    """A table for each task, backend, number of agents and budget; algorithms below each other for every k."""
    console = PlainConsole()
    for (env, options, backend, n, budget), group in groupby(rows, key=_task_of):
        details = ", ".join(filter(None, [options, f"n = {n} agents", f"{budget:,} transitions per policy", backend]))
        console.print(Text.assemble("\n", (visible(env), "bold"), "  ", visible(details)))
        console.print(_comparison_table(list(group)))
    console.print(_READING.format(plus_minus=plus_minus()), style="dim")
    for number, what in ((found.unfinished, "unfinished, left out"), (found.repeated, "found twice, counted once")):
        if number:
            console.print(f"{number} run{'' if number == 1 else 's'} {what}")


def _figure(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.2f}"


def _faults(result: dict[str, Any]) -> str:
    """What broke and was survived, of a result that says so; nothing where nothing did."""
    found = []
    if diverged := sum(result.get("diverged", [])):
        steps = max(result["k"] * result["transitions_per_policy"], 1)
        found.append(f"{diverged:,} steps diverged ({diverged / steps:.1%})")
    if rewards := result.get("nonfinite_rewards", 0):
        found.append(f"{rewards:,} rewards not finite, counted as 0")
    found += [f"policy {j} put back {times} time(s)" for j, times in enumerate(result.get("recovered", [])) if times]
    return "; ".join(found)


def _plus_minus(standard_error: float | None) -> str:
    return "" if standard_error is None else f" {plus_minus()} {standard_error:.2f}"


def _unfinished(result: dict[str, Any]) -> str:
    return "" if result["finished"] else " (stopped early; go on with --resume)"


def _policy_table(result: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("policy", "agents", "mean return", "worst agent", "best agent", "steps"):
        table.add_column(name, justify="right")
    for row in policy_rows(result, result["assignment"]):
        spread = ("-" if row[name] is None else f"{row[name]:.1f}" for name in RETURNS)
        table.add_row(str(row["policy"]), str(row["agents"]), *spread, f"{row['steps']:.1f}")
    return table


def _task_of(row: "Row") -> tuple[str, str, str, int, int]:
    return row.env, row.options, row.backend, row.n, row.transitions


def _comparison_table(rows: list["Row"]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for name in ("k", "proved", "algorithm", "seeds", "welfare", "95%", "p", "share", "steps"):
        left = name == "algorithm"
        table.add_column(name, justify="left" if left else "right", overflow="fold" if left else "ellipsis", no_wrap=not left)
    for before, row in zip([None, *rows], rows, strict=False):
        new_k = before is None or before.k != row.k
        new_bound = before is None or new_k or before.bound != row.bound  # that of a policy in context is of n policies
        table.add_row(
            str(row.k) if new_k else "",
            f"{row.bound:.2f}" if new_bound and row.bound is not None else "",
            visible(row.algorithm),
            str(row.seeds),
            ("*" if row.best else "?" if row.too_few else "") + f"{row.welfare:.2f}" + _plus_minus(row.standard_error),
            "-" if row.low is None else f"{row.low:.2f} {row.high:.2f}",
            "-" if row.p is None else f"{row.p:.0e}" if row.p < 0.001 else f"{row.p:.3f}",
            "-" if row.share is None else f"{row.share:.1%}",
            f"{row.total_transitions / 1e6:.3g}M",
            style="bold" if row.best else None,
        )
    return table
