"""What people read of a finished run, as rows and as a few lines: for data frames, notebooks, `repr` and the terminal."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmdp_jax.errors import not_installed
from rmdp_jax.welfare import describe_terms

MOST_ROWS = 20  # of a table that shows itself

RETURNS = ("mean_return", "worst_return", "best_return")  # of the agents of a policy

Row = dict[str, Any]


def import_pandas() -> Any:
    """The module, or a `ConfigError` that says how to get it."""
    try:
        import pandas
    except ImportError:
        raise not_installed("table", "pandas", "notebook") from None
    return pandas


def policy_rows(summary: Mapping[str, Any], assignment: ArrayLike) -> list[Row]:
    """A row a policy, by what fresh episodes said; returns are None of a policy that serves nobody, or was not evaluated."""
    utility, labels = np.asarray(summary["utility"], float), np.asarray(assignment)
    rows = []
    for j, steps in enumerate(summary["episode_length"]):
        own = utility[j, labels == j]
        known = own.size > 0 and np.isfinite(own).all()
        returns = (own.mean(), own.min(), own.max()) if known else (None, None, None)
        rows.append({"policy": j, "agents": int(own.size), **dict(zip(RETURNS, returns, strict=True)), "steps": steps})
    return rows


def flat(line: Mapping[str, Any]) -> Row:
    """A line of metrics as a row of numbers: lists, one entry a policy, become name_0, name_1, ...; no assignment."""
    row: Row = {}
    for name, value in line.items():
        if isinstance(value, list) and name != "assignment":
            row |= {f"{name}_{j}": of_policy for j, of_policy in enumerate(value)}
        elif not isinstance(value, list | dict):
            row[name] = value
    return row


def headline(summary: Mapping[str, Any]) -> str:
    """Which run it is."""
    who = f"k = {summary['k']} policies for n = {summary['n']} agents"
    return f"{summary['env']}, {summary['algorithm']}, {who}, seed {summary['seed']}"


def welfare_line(summary: Mapping[str, Any]) -> str:
    """How good it is, and how sure that is."""
    if summary["welfare"] is None:
        text = "was not evaluated" if not summary.get("evaluated", True) else "welfare is not a number"
    else:
        error, share = summary["welfare_standard_error"], summary["share_of_bound"]
        text = f"welfare {summary['welfare']:.2f}" + ("" if error is None else f" ± {error:.2f}") + " of 100 in fresh episodes"
        terms = describe_terms(summary)
        text += f" ({terms})" if terms else ""
        text += "" if share is None else f", {share:.1%} of the proved bound {summary['upper_bound']:.2f}"
    return text if summary["finished"] else f"{text}; stopped early, at iteration {summary['iterations']}"


def html_table(rows: Sequence[Row], more: str) -> str:
    """The first rows as an HTML table; `more` says where the others are."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows[:MOST_ROWS])
    rest = f"<i>and {len(rows) - MOST_ROWS:,} more; {escape(more)}</i>" if len(rows) > MOST_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "-"
    return escape(f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value))
