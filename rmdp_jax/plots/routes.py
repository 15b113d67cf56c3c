"""Geometry of a walk on a grid: which lane each step takes, and a line through the lanes with rounded corners."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from matplotlib.path import Path

_FIRST_LANE = 0.075  # cells from the middle of an edge to the line of its first pass
_LANE = 0.105  # cells from one lane to the next
_MOST_LANES = 4  # to either side of an edge; more passes share them
_TURN = 0.16  # cells beyond the middle of a cell where a line turns back


class Route(NamedTuple):
    """A walk as it is drawn, in x (column) and y (row, downwards)."""

    corners: np.ndarray  # (c, 2) of the line
    middles: np.ndarray  # (m, 2) of each move, bumps left out: the place of its arrow
    directions: np.ndarray  # (m, 2) int unit vectors


def trace(cells: np.ndarray) -> Route:
    """The route of a walk (t + 1, 2) of rows and columns.

    Every move is displaced to the right of its direction, so that out and back lie side by side; the second pass of the
    same edge in the same direction lies one lane further out.
    """
    points = cells[:, ::-1].astype(int)
    moved = np.flatnonzero((points[1:] != points[:-1]).any(1))
    begins, ends = points[moved], points[moved + 1]
    directions = (ends - begins).reshape(-1, 2)
    passes: Counter[tuple[int, ...]] = Counter()
    lanes = np.zeros(len(moved))
    for i, edge in enumerate(np.concatenate([begins, ends], 1).tolist()):
        lanes[i] = passes[tuple(edge)] % _MOST_LANES
        passes[tuple(edge)] += 1
    right = np.stack([-directions[:, 1], directions[:, 0]], 1)
    offsets = right * (_FIRST_LANE + _LANE * lanes)[:, None]  # (m, 2)
    if not len(moved):
        return Route(points[:1].astype(float), np.zeros((0, 2)), directions)
    corners = [begins[0] + offsets[0]]
    for i in range(len(moved) - 1):
        corners += _join(ends[i], directions[i], directions[i + 1], offsets[i], offsets[i + 1])
    corners.append(ends[-1] + offsets[-1])
    return Route(np.array(corners), (begins + ends) / 2 + offsets, directions)


def _join(
    cell: np.ndarray, before: np.ndarray, after: np.ndarray, offset_before: np.ndarray, offset_after: np.ndarray
) -> list[np.ndarray]:
    """Corners that lead from one move's lane to the next one's within a cell."""
    along = int(before @ after)
    if along == 0:  # the displaced lines cross here
        return [cell + offset_before + offset_after]
    if along < 0:  # turning back: round the end of the lane
        return [cell + offset_before + _TURN * before, cell + offset_after + _TURN * before]
    if np.allclose(offset_before, offset_after):
        return []
    return [cell + offset_before - _TURN * before, cell + offset_after + _TURN * before]


def rounded(corners: np.ndarray, radius: float = 0.12) -> Path:
    """A line through `corners` (c, 2), c > 1, whose inner corners are rounded within `radius` of them."""
    vertices, codes = [corners[0]], [Path.MOVETO]
    for before, corner, after in zip(corners[:-2], corners[1:-1], corners[2:], strict=True):
        for other, code in ((before, Path.LINETO), (after, Path.CURVE3)):
            reach = other - corner
            length = max(float(np.hypot(*reach)), 1e-9)
            near = corner + reach * min(radius, length / 2) / length
            vertices += [near] if code == Path.LINETO else [corner, near]
            codes += [code] if code == Path.LINETO else [code, code]
    return Path(np.array([*vertices, corners[-1]]), [*codes, Path.LINETO])


def count_bumps(cells: np.ndarray) -> dict[tuple[int, int], int]:
    """How often a walk (t + 1, 2) stayed on a cell because a wall was in its way."""
    stayed = (cells[1:] == cells[:-1]).all(1)
    return dict(Counter((row, column) for row, column in cells[1:][stayed].tolist()))
