"""Which committed cells `benchmarks.verify` makes again, and what it says of them; nothing is trained here."""

import json

import pytest
from test_paper_benchmark import made_up, write

from benchmarks import verify
from benchmarks.ablation import summarize_runs
from benchmarks.paper import Paper, make_cells
from benchmarks.variants import Cell
from benchmarks.verify import Verify, claims_of, interval_of_one_more
from rmdp_jax.errors import ConfigError

CELL = Cell("resource_gathering", "assigners", "em", 3, 20_000)


def line_of(cell, welfare, **changes):
    """A line of runs that never were."""
    same = {"share_of_bound": 0.9, "transitions_per_policy": 20480, "total_transitions": 61440}
    runs = [{"seed": seed, "welfare": value, **same} for seed, value in enumerate(welfare)]
    return cell.describe() | summarize_runs(runs) | {"wall_s": 6.0, "runs": runs} | changes


@pytest.fixture
def results(tmp_path):
    settings = CELL.describe()["settings"]
    lines = [
        line_of(CELL, [80.0, 81.0, 82.0]),
        line_of(CELL._replace(k=2), [70.0, 71.0]),
        line_of(CELL._replace(k=5), [90.0, 91.0, 92.0], settings=settings | {"epochs": 99}),
    ]
    (tmp_path / "ablation_resource_gathering.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_one_more_run_by_hand():
    # mean 81, deviation 1, 2 degrees of freedom: 9.925 (99.5%) times the root of 4 / 3
    assert interval_of_one_more([80.0, 81.0, 82.0]) == pytest.approx((81 - 11.460, 81 + 11.460), abs=1e-3)
    assert interval_of_one_more([5.0, 5.0, 5.0]) == (4.995, 5.005)


def test_cells_of_other_settings_or_few_seeds_are_left_out(results):
    known = claims_of(results)
    assert [(claim.what, claim.seconds) for claim in known.claims] == [("resource_gathering k = 3 em, 20,000", 2.0)]
    assert (known.older, known.few) == (1, 1)


def test_lines_of_older_settings_hide_none_of_today(tmp_path):
    (cell,) = make_cells(Paper(figure=2, ks=(3,), algorithms=("random",)))
    today = [made_up(cell, seed, 80.0 + seed) for seed in range(3)]
    older = [line | {"settings": line["settings"] | {"epochs": 99}} for line in today]
    write(tmp_path / "figure_2.jsonl", [line | {"wall_s": 6.0} for line in (*older, *today)])
    known = claims_of(tmp_path)
    assert [claim.welfare for claim in known.claims] == [{0: 80.0, 1: 81.0, 2: 82.0}]
    assert (known.older, known.few) == (1, 0)


@pytest.mark.parametrize(("now", "agrees"), [(84.5, True), (60.0, False)])
def test_a_run_is_made_again_and_judged(results, now, agrees, monkeypatch, capsys):
    made = []

    def train(cell, seeds, progress):
        made.append((cell, seeds))
        return [{"welfare": now}]

    monkeypatch.setattr(verify, "train_seeds", train)
    monkeypatch.setattr("sys.argv", ["verify", "--results", str(results), "--minutes", "1"])
    if agrees:
        verify.main()
    else:
        with pytest.raises(SystemExit, match="1"):
            verify.main()
    ((cell, (seed,)),) = made
    assert cell == CELL
    printed = capsys.readouterr()
    line = json.loads(printed.out.splitlines()[0])
    assert (line["then"], line["now"], line["agrees"]) == (80.0 + seed, now, agrees)
    assert ("DISAGREES" in printed.err) != agrees
    assert "1 of older settings and 1 of fewer than 3 seeds are left out" in printed.err


def test_what_takes_longer_than_is_left_is_not_begun(results, monkeypatch):
    monkeypatch.setattr(verify, "train_seeds", None)
    with pytest.raises(ConfigError, match=r"minutes = 0\.04: too few for any of the cells; the shortest takes 0\.1"):
        verify.verify(Verify(results=results, minutes=0.04))


def test_nothing_to_verify_is_said(tmp_path):
    with pytest.raises(ConfigError, match="hold no cell of today's settings with 3 seeds or more"):
        verify.verify(Verify(results=tmp_path))
    with pytest.raises(ConfigError, match="minutes = 0"):
        verify.verify(Verify(results=tmp_path, minutes=0))
