"""What `benchmarks.gymnasium_bodies` makes of its lines: a table of all bodies, and what differs body by body."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.variants import Line
from rmdp_jax.records.files import read_lines

TITLE = "Policies in Gymnasium's own environments"
COLUMNS = ("env", "model", "transitions", "welfare", "in Gymnasium", "change", "steps", "there", "one step, 99%")


def table_rows(lines: Sequence[Line]) -> list[list[Any]]:
    """A row of the policies of each body."""
    return [
        [
            line["env"].removesuffix("_speed"),
            line["model"],
            f"{line['transitions']:,}",
            f"{line['welfare']:.2f}",
            f"{line['welfare_in_gymnasium']:.2f}",
            "-" if line["change"] is None else f"{line['change']:+.1%}",
            f"{np.mean(line['episode_length']):.0f}",
            f"{np.mean(line['episode_length_in_gymnasium']):.0f}",
            f"{line['one_step'][0]['difference_99']:.1e}",
        ]
        for line in lines
    ]


def write_table(results: Path) -> None:
    """The markdown beside the lines."""
    lines = read_lines(results)
    text = [f"# {TITLE}\n", _row(COLUMNS), _row(["---"] * len(COLUMNS)), *map(_row, table_rows(lines))]
    text += [
        "\nOne run of each body, of so many transitions of each policy; welfare of fresh episodes with sampled actions, ours "
        "and Gymnasium's paid alike; steps are of an episode, mean of all policies. One step is from equal states with equal "
        "random actions, in units of 1 + |value|.\n"
    ]
    for line in lines:
        text.append(f"## {line['env']}, {_WHOSE[line['model']]}, and {line['gymnasium']}\n")
        text += [_row(["", "ours", "Gymnasium"]), _row(["---"] * 3)] if line["models"] else ["The models are the same."]
        text += [_row([name, *values]) for name, values in line["models"].items()]
        text += ["", _row(["one step of Gymnasium's", "median", "99%"]), _row(["---"] * 3)]
        text += [_row([s["gymnasium"], f"{s['difference_50']:.1e}", f"{s['difference_99']:.1e}"]) for s in line["one_step"]]
        text += ["", _row(["policy", *range(line["k"])]), _row(["---"] * (line["k"] + 1))]
        for name, field in _OF_POLICIES.items():
            text.append(_row([name, *("-" if value is None else value for value in line[field])]))
        text.append("")
    text.append("Made by `python -m benchmarks.gymnasium_bodies --env ENV --model MODEL --transitions N`, N as in the lines.\n")
    results.with_suffix(".md").write_text("\n".join(text))


_OF_POLICIES: Mapping[str, str] = {
    "pay of its agents": "own_pay",
    "in Gymnasium": "own_pay_in_gymnasium",
    "steps of an episode": "episode_length",
    "steps in Gymnasium": "episode_length_in_gymnasium",
    "share of falls in Gymnasium": "falls_in_gymnasium",
}


_WHOSE = {"brax": "brax's model", "gymnasium": "Gymnasium's model"}


def _row(cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
