"""Examples run as they are, for a few transitions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def treasure(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "deep_sea_treasure", raising=False)
    import deep_sea_treasure

    return deep_sea_treasure


def test_the_optimum_of_deep_sea_treasure_by_hand(treasure):
    """Who weighs treasure a and time 1 - a gets a value - (1 - a) steps; at a = 0.3 the second treasure is best: 2.46 - 2.1."""
    steps = [1, 3, 5, 7, 8, 9, 13, 14, 17, 19]
    returns = np.array([a * treasure.VALUE - (1 - a) * np.array(steps) for a in treasure.LIKES])
    assert returns[0].argmax() == 1
    assert returns[0, 1] == pytest.approx(0.36, abs=1e-5)
    assert treasure.optimum(1) == pytest.approx(returns.mean(0).max(), rel=1e-5)
    assert treasure.optimum(10) == treasure.optimum(11) == pytest.approx(returns.max(1).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("moves", "end", "outcome"), [("rd", (1, 1), (-1, 0)), ("rdd", (2, 1), (-1, 8.2)), ("ull", (0, 0), (-1, 0))]
)
def test_moves_of_the_submarine(treasure, moves, end, outcome):
    at = np.zeros(2, np.int32)
    for move in moves:
        at, step = treasure.step(at, "udlr".index(move))
    assert tuple(at.tolist()) == end
    np.testing.assert_allclose((step.outcome["time"], step.outcome["treasure"]), outcome, rtol=1e-6)
    assert bool(step.terminated) == (outcome[1] > 0)


def test_the_sea_bed_is_no_way(treasure):
    at, step = treasure.step(np.array([4, 6], np.int32), 2)  # from row 4 of column 6 to the left, where a treasure lies
    assert bool(step.terminated)
    at, step = treasure.step(np.array([6, 6], np.int32), 2)  # deeper the sea bed is in the way
    assert at.tolist() == [6, 6]
    assert not bool(step.terminated)


@pytest.mark.slow
def test_deep_sea_treasure_from_the_task_to_the_dossier(treasure, tmp_path, capsys):
    treasure.main(str(tmp_path), "8192", "0")
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["upper_bound"] == pytest.approx(9 * treasure.optimum(4), rel=1e-6)
    assert f"share of the exact optimum {result['welfare'] / result['upper_bound']:.2%}" in printed
    assert (tmp_path / "dossier.html").stat().st_size > 10_000
    assert json.loads((tmp_path / "dossier.json").read_text())["run"]["k"] == 4
