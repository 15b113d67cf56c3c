"""Agents as a table of text: a CSV file with a row an agent and a column a number of it, in and out.

The columns are the leaves of an agent: `Population.columns` names them, or the paths to them do (`taste`, `wish.speed`). A leaf
of shape (d,) has columns name_0 .. name_{d-1}. Beside these `id` (any text), `weight` (a number above 0) and `group` (any text)
may be given. UTF-8, commas, names in the first line.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import LARGEST_N
from rmdp_jax.env import Column, Population
from rmdp_jax.errors import ConfigError, in_line, shown, unknown_name
from rmdp_jax.records.files import reason_of, whole, writing
from rmdp_jax.types import PyTree

LARGEST_FILE = 2**30  # bytes
EXTRA = ("id", "weight", "group")

_BOOLS = {"0": 0, "1": 1, "false": 0, "true": 1}
_ABOVE_0 = float(np.finfo(np.float32).tiny)
_WEIGHT = Column("weight", _ABOVE_0)


class Leaf(NamedTuple):
    """A leaf of an agent in a table."""

    column: Column
    names: list[str]  # of its columns
    like: jax.ShapeDtypeStruct  # of one agent


class Table(NamedTuple):
    """What a file of agents holds."""

    agents: PyTree  # leaves (m, ...)
    header: list[str]
    rows: list[list[str]]  # m, as they were written
    weights: np.ndarray | None  # (m,) float64
    groups: np.ndarray | None  # (m,) text


def agent_leaves(population: Population) -> list[Leaf]:
    """The leaves of an agent and the names of their columns, in the order of the tree.

    Raises:
        ConfigError: a leaf is no number, or `Population.columns` do not name all leaves apart.
    """
    leaves = jax.tree_util.tree_leaves_with_path(population.agents)
    columns = population.columns or [
        Column(jax.tree_util.keystr(at, simple=True, separator=".") or "agent") for at, _ in leaves
    ]
    if len(columns) != len(leaves):
        raise ConfigError(f"population: has {len(columns)} columns, must be one for each of the {len(leaves)} leaves of agents")
    found = []
    for column, (_, leaf) in zip(columns, leaves, strict=True):
        dtype = jnp.result_type(leaf)
        if not (jnp.issubdtype(dtype, jnp.number) or dtype == jnp.bool_):
            raise ConfigError(f"population: {column.name} of an agent is {dtype}, which no table holds; give agents as arrays")
        like = jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], dtype)
        names = ["_".join(map(str, (column.name, *at))) for at in np.ndindex(*like.shape)]
        found.append(Leaf(column, names, like))
    names = [name for leaf in found for name in leaf.names]
    if len(set(names)) < len(names):
        raise ConfigError(f"population: two columns of agents have one name, of {', '.join(names)}; name them by columns")
    return found


def columns_of(population: Population) -> list[tuple[Leaf, np.ndarray]]:
    """The numbers that agents are made of, (n, ...) each; none where they are no table."""
    try:
        leaves = agent_leaves(population)
    except ConfigError:
        return []
    return list(zip(leaves, map(np.asarray, jax.tree.leaves(population.agents)), strict=True))


def check_values(leaf: Leaf, values: np.ndarray, fail: Callable[[int, str], ConfigError]) -> None:
    """Raise what `fail` makes of the first number (m,) that breaks the rule of a leaf, by its index, and of the rule."""
    low, high = leaf.column.low, leaf.column.high
    bad = ~np.isfinite(values) | (values < low) | (values > high)
    least = " above 0" if low == _ABOVE_0 else f" from {low:g}"
    limits = "" if np.isinf([low, high]).all() else least + ("" if np.isinf(high) else f" to {high:g}")
    kind = "a finite number"
    if not jnp.issubdtype(leaf.like.dtype, jnp.floating):
        info = (0, 1) if leaf.like.dtype == jnp.bool_ else (jnp.iinfo(leaf.like.dtype).min, jnp.iinfo(leaf.like.dtype).max)
        bad |= (values != np.round(values)) | (values < info[0]) | (values > info[1])
        kind = "true or false" if leaf.like.dtype == jnp.bool_ else "a whole number"
    else:
        bad |= np.abs(values) > float(jnp.finfo(leaf.like.dtype).max)
    if bad.any():
        meaning = f" ({leaf.column.help})" if leaf.column.help else ""
        raise fail(int(np.flatnonzero(bad)[0]), kind + limits + meaning)


def read_agents(path: Path, population: Population) -> Table:
    """The agents of a CSV file, of the kind of the population's.

    Raises:
        ConfigError: the file cannot be read, is no such table, or a value breaks its rule; names row, column, value and rule.
    """
    leaves = agent_leaves(population)
    known = [name for leaf in leaves for name in leaf.names]
    header, rows = _read_table(path, known)
    at = {name: number for number, name in enumerate(header)}

    def numbers(name: str, leaf: Leaf) -> np.ndarray:
        texts = [row[at[name]] for row in rows]

        def fail(row: int, rule: str) -> ConfigError:
            return ConfigError(
                f"{path}: row {row + 1}: {name} = {shown(texts[row])}: must be {rule}; mend that row, or leave it out"
            )

        values = np.array([_number(text, leaf.like.dtype) for text in texts])
        check_values(leaf, values, fail)
        return values

    def filled(leaf: Leaf) -> jax.Array:
        values = np.stack([numbers(name, leaf) for name in leaf.names], -1)
        return jnp.asarray(values.reshape(len(rows), *leaf.like.shape), leaf.like.dtype)

    agents = jax.tree.unflatten(jax.tree.structure(population.agents), [filled(leaf) for leaf in leaves])
    extra = {name for name in EXTRA if name in at and name not in known}
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    weights = numbers("weight", Leaf(_WEIGHT, ["weight"], scalar)) if "weight" in extra else None
    groups = np.array([row[at["group"]].strip() for row in rows]) if "group" in extra else None
    return Table(agents, header, rows, weights, groups)


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], way_out: str = "choose another file") -> None:
    """Write a CSV file anew, whole or not at all; `way_out` is what to do where it cannot be written."""
    with writing(path, way_out), whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _number(text: str, dtype: Any) -> float:
    """A number as it was written, or a word where it may be one; NaN, which no rule lets pass, where it is neither."""
    if dtype == jnp.bool_ and (word := text.strip().lower()) in _BOOLS:
        return float(_BOOLS[word])
    try:
        return np.nan if "_" in text else float(text)  # which Python takes within a number
    except ValueError:
        return np.nan


def _read_table(path: Path, known: list[str]) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and rows of as many texts."""
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header, *rows = [*reader] or [[]]
    except csv.Error as error:
        raise ConfigError(f"{path}: line {reader.line_num} is no CSV ({error}); see to its quotes and commas") from None
    header = [name.strip() for name in header]
    while rows and not rows[-1]:
        rows.pop()
    if not any(header):
        raise ConfigError(f"{path}: its first line is empty; give names of columns there: {','.join(known)}")
    _check_header(path, header, known)
    if not rows:
        raise ConfigError(f"{path}: holds no agents, only names of columns; give a row an agent")
    if len(rows) > LARGEST_N:
        raise ConfigError(f"{path}: holds {len(rows):,} agents, must be at most {LARGEST_N:,}; give them in several files")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            cells = "is empty" if not row else f"has {len(row)} cells ({in_line(','.join(row))})"
            raise ConfigError(f"{path}: row {number} {cells}, must have {len(header)} as the first line; mend that row")
    return header, rows


def _check_header(path: Path, header: list[str], known: list[str]) -> None:
    columns = f"columns are {', '.join(known)} and, as you like, {', '.join(name for name in EXTRA if name not in known)}"
    for number, name in enumerate(header, 1):
        if name in header[: number - 1]:
            raise ConfigError(
                f"{path}: column {number} = {shown(name)}: must be another than column {header.index(name) + 1}; leave one out"
            )
        if name not in known and name not in EXTRA:
            if ";" in name or "\t" in name:
                raise ConfigError(f"{path}: column {number} = {shown(name)}: must be a name; separate columns by commas")
            raise ConfigError(f"{path}: {unknown_name(f'column {number}', name, [*known, *EXTRA])}; {columns}")
    for name in known:
        if name not in header:
            raise ConfigError(f"{path}: column {name} is missing; {columns}")


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ConfigError(f"{path}: has {size:,} bytes, must be at most {LARGEST_FILE:,}; give agents in several files")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"agents = {path}: cannot be read ({reason_of(error)}); give a CSV file") from None
    if not data.strip():
        raise ConfigError(f"{path}: is empty; give a CSV file with names of columns in its first line")
    if b"\0" in data:
        raise ConfigError(f"{path}: is no text (it holds zero bytes); save the table as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save the table as CSV in UTF-8"
        ) from None
