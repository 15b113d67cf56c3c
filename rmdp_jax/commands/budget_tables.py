"""What `rmdp-jax budget` writes and prints."""

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from rmdp_jax.limits import describe_limits
from rmdp_jax.records.lines import finite_number
from rmdp_jax.terminal import PlainConsole, plus_minus, visible
from rmdp_jax.welfare import describe_terms

if TYPE_CHECKING:
    from rmdp_jax.running.budget import Budget
    from rmdp_jax.running.ladder import Ladder


def describe_budget(found: "Budget") -> dict[str, Any]:
    """A `Budget` as budget.json has it; lists have an entry for each of `ks`, `policies` those chosen by their index."""
    return {
        "ks": list(found.ks),
        "predicted": _numbers(found.welfare),
        "standard_error": _numbers(found.standard_error),
        "chosen_by": _numbers([choice.welfare for choice in found.choices]),
        "limit": _numbers([choice.limit for choice in found.choices]),
        "upper_bound": _numbers(found.bound),
        "individual": finite_number(found.individual),
        "recommended": found.recommended._asdict(),
        "members": found.members,
        "archived": found.archived,
        "episodes": found.episodes,
        **({} if found.limits is None else found.limits._asdict()),
        "policies": [choice.members.tolist() for choice in found.choices],
    }


def describe_ladder(ladder: "Ladder") -> dict[str, Any]:
    """A `Ladder` as budget.json has it; lists have an entry for each of `ks`, `budgets` one for each of `seeds`."""
    return {
        "ks": list(ladder.ks),
        "predicted": _numbers(ladder.predicted),
        "trained": [of._asdict() for of in ladder.trained],
        "warm": ladder.warm,
        "transitions": list(ladder.transitions),
        "mean_absolute_error": finite_number(ladder.error),
        "upper_bound": _numbers(ladder.bound),
        "individual": finite_number(ladder.individual),
        "recommended": ladder.recommended._asdict(),
        "confirmed": ladder.confirmed._asdict(),
        "seeds": list(ladder.seeds),
        **ladder.terms,
        "budgets": [describe_budget(one) for one in ladder.budgets],
    }


def print_budget(content: dict[str, Any]) -> None:
    """The table of one run, from what budget.json holds."""
    console = PlainConsole()
    nothing = "a release has none" if content["release"] else f"{content['algorithm']} keeps none here"
    kept = "its archive with them" if content["archived"] else f"no archive, as {nothing}"
    console.print(f"\n{content['members']} different policies, {kept}; {content['episodes']} fresh episodes of each")
    console.print("to choose by (facility location), and as many to tell by")
    if terms := describe_terms(content):
        console.print(f"welfare: {terms}")
    table = _table("k", "predicted", "one more adds", "of the end", "no choice above", "proved")
    errors, bounds = (content[name] or [None] * len(content["ks"]) for name in ("standard_error", "upper_bound"))
    columns = (content["ks"], content["predicted"], errors, _gains(content), content["limit"], bounds)
    for k, welfare, error, gain, limit, bound in zip(*columns, strict=True):
        share = f"{welfare / content['individual']:.1%}" if content["individual"] > 0 else "-"
        figures = (_figure(welfare) + _error(error), gain, share, _figure(limit), _figure(bound))
        table.add_row(str(k), *figures, style="bold" if k == content["recommended"]["k"] else None)
    console.print(table)
    console.print(f"the individual end: {content['individual']:.2f}, the best of all of them for each agent")
    console.print("no choice above: what no k of them pass in the episodes they were chosen by")
    _print_limits(content)
    _print_recommended("recommended", content["recommended"])


def print_ladder(content: dict[str, Any]) -> None:
    """The table of a ladder, from what budget.json holds."""
    console, seeds = PlainConsole(), len(content["seeds"])
    console.print(Text.assemble("\n", (visible(content["env"]), "bold"), f"  {seeds} seed" + "s" * (seeds > 1) + " of every k"))
    table = _table("k", "predicted", "trained", "95%", "predicted - trained", "proved", "steps")
    bounds = content["upper_bound"] or [None] * len(content["ks"])
    columns = (content["ks"], content["predicted"], content["trained"], bounds, content["transitions"])
    for k, predicted, of, bound, steps in zip(*columns, strict=True):
        interval = "-" if of["low"] is None else f"{of['low']:.2f} {of['high']:.2f}"
        figures = (_figure(predicted), _figure(of["mean"]) + _error(of["standard_error"]), interval)
        style = "bold" if k == content["recommended"]["k"] else None
        table.add_row(str(k), *figures, f"{predicted - of['mean']:+.2f}", _figure(bound), _steps(steps), style=style)
    console.print(table)
    console.print(f"predicted: by the run of k = {content['ks'][-1]} of each seed, from what it met on its way")
    console.print(f"mean absolute error over k: {content['mean_absolute_error']:.2f}")
    console.print(f"the individual end: {content['individual']:.2f}, the best of what it met for each agent")
    before = ", with those of the ks before, whose policies it began with" if content["warm"] else ""
    console.print(f"steps: of all policies of a seed{before}; {_steps(sum(_own_steps(content)) * seeds)} in all")
    if terms := describe_terms(content):
        console.print(f"welfare: {terms}")
    _print_limits({**content["budgets"][0], "weighted": content.get("weighted", False)})
    _print_recommended("recommended by what is predicted", content["recommended"])
    _print_recommended("recommended by what was trained", content["confirmed"])


def _print_recommended(what: str, recommended: dict[str, Any]) -> None:
    k = "none" if recommended["k"] is None else f"k = {recommended['k']}"
    PlainConsole().print(Text.assemble(f"{what}: ", (k, "bold"), f" ({recommended['why']})"))


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _gains(content: dict[str, Any]) -> list[str]:
    """What each more policy adds since the k before."""
    gains = np.diff(np.array(content["predicted"], float)) / np.diff(content["ks"])
    return ["", *(f"{gain:+.2f}" for gain in gains)]


def _own_steps(content: dict[str, Any]) -> list[int]:
    """Environment steps that each k of a ladder took itself, of one seed."""
    steps = content["transitions"]
    return np.diff(steps, prepend=0).tolist() if content["warm"] else list(steps)


def _steps(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e5 else f"{number:,}"


def _print_limits(content: dict[str, Any]) -> None:
    if words := describe_limits(content):
        PlainConsole().print(f"limits: {words}; the end, no choice above and proved are without them")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _error(value: float | None) -> str:
    return "" if value is None else f" {plus_minus()} {value:.2f}"


def _numbers(values: Any) -> list[float | None] | None:
    return None if values is None else [finite_number(value) for value in values]
