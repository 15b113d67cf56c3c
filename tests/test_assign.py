"""People who come later: scored on kept episodes as `evaluate` would score them, from Python and from a CSV file."""

import csv
import json
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_cli import refused
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import Column, ConfigError, Limits, Population, assign, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.envs.speed import BODIES, make_population
from rmdp_jax.evaluation.episodes import score_episodes
from rmdp_jax.records.agents_csv import agent_leaves, read_agents
from rmdp_jax.records.loading import load_episodes, load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(*make_tiny(), CONFIG, random_even(K, N), out=folder, progress=False)
    return load_run(folder, make)


def test_the_own_agents_get_what_the_result_says(run):
    found = assign(run, run.population.agents)
    np.testing.assert_allclose(found.utility, run.result["utility"], rtol=1e-6)
    np.testing.assert_array_equal(found.expected, found.utility.max(0))
    np.testing.assert_array_equal(found.margin, found.utility.max(0) - found.utility.min(0))  # of two policies
    assert found.episodes == CONFIG.evaluation_episodes


@pytest.mark.parametrize("block", [2, 4, 4096])
def test_any_number_of_agents_in_blocks_of_any_size(run, monkeypatch, block):
    monkeypatch.setattr("rmdp_jax.running.assign.BLOCK", block)
    cells = np.array([3, 1, 1, 0, 2, 3, 1], np.int32)
    found, own = assign(run, cells), assign(run, run.population.agents)
    np.testing.assert_array_equal(found.utility, own.utility[:, cells])
    for name in ("policy", "expected", "low", "high", "margin", "to_bound", "unserved"):
        np.testing.assert_allclose(getattr(found, name), getattr(own, name)[cells], rtol=1e-6)


def test_the_interval_is_students_over_episodes(run):
    found, agents = assign(run, run.population.agents), run.population.agents
    returns = 100.0 * np.asarray(score_episodes(run.population, load_episodes(run).episodes, agents), float)
    for i in range(N):
        own = returns[found.policy[i], :, i]
        low, high = stats.t.interval(0.95, len(own) - 1, own.mean(), stats.sem(own))
        np.testing.assert_allclose((found.low[i], found.high[i]), (low, high), atol=1e-4)


def test_the_bound_of_one_agent_is_what_the_task_knows(run):
    found = assign(run, run.population.agents)
    best = [96.0, 98.0, 98.0, 99.0]  # of walks of 4, 2, 2 moves, and one against the wall
    np.testing.assert_allclose(found.to_bound, best - found.expected, atol=1e-4)
    unknown = run._replace(population=run.population._replace(best_return=lambda agents: None))
    assert assign(unknown, run.population.agents).to_bound is None
    wrong = run._replace(population=run.population._replace(best_return=lambda agents: np.ones(3)))
    with pytest.raises(ConfigError, match=r"best_return: is of shape \(3,\), must be \(4,\) finite numbers, or None"):
        assign(wrong, run.population.agents)


def test_bounds_of_one_agent_agree_with_those_of_all():
    for size in (3, 4, 5):
        population = make("resource_gathering", size=size)[1]
        best = population.best_return(population.agents)
        assert best.mean() == pytest.approx(population.upper_bound(population.n), abs=1e-9)
    population = make_population(BODIES["halfcheetah"], 50, 0)
    assert population.best_return(population.agents).mean() == pytest.approx(population.upper_bound(50))


def test_unserved_are_told_by_the_rule(run):
    best = np.max(run.result["utility"][run.result["assignment"], np.arange(N)])
    found = assign(run, run.population.agents)
    assert found.unserved_below == pytest.approx(best / 10)
    assert found.unserved.tolist() == (found.expected <= best / 10).tolist()
    nobody = run._replace(result={**run.result, "utility": np.zeros((K, N))})
    assert assign(nobody, run.population.agents).unserved is None


def test_limits_hold_and_cost_the_margin(run):
    cells = np.array([3, 3, 3, 3], np.int32)
    free, held = assign(run, cells), assign(run, cells, limits=Limits(at_most=2, at_least=2))
    assert len(set(free.policy)) == 1
    assert np.bincount(held.policy).tolist() == [2, 2]
    np.testing.assert_allclose(sorted(held.margin), np.repeat([-abs(free.margin[0]), abs(free.margin[0])], 2), rtol=1e-6)
    nash = run._replace(config=replace(run.config, welfare_p=0.0))
    held = assign(nash, run.population.agents, limits=Limits(at_most=2))
    products = [np.prod((held.utility + 1.0)[list(labels), range(4)]) for labels in set(permutations((0, 0, 1, 1)))]
    assert np.prod((held.utility + 1.0)[held.policy, range(4)]) == pytest.approx(max(products))
    with pytest.raises(ConfigError, match="room for 2 agents together, and there are 4; give at least 2 each"):
        assign(run, cells, limits=Limits(at_most=1))


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ([1.5, 2.0], r"agents: cell = 1.5 of agent 0: must be a whole number from 0 to 3 \(row by row, from the top left\)"),
        ([1, 4], r"agents: cell = 4 of agent 1: must be a whole number from 0 to 3"),
        ([0.0, np.nan], r"agents: cell = nan of agent 1: must be a whole number"),
        ([[1], [2]], r"agents: cell is int64 \(2, 1\), must be numbers \(m, \*\(\)\)"),
        ([], r"agents: cell is float64 \(0,\), must be numbers"),
        (["a"], r"agents: cell is <U1 \(1,\), must be numbers"),
    ],
)
def test_agents_of_another_kind_are_refused(run, agents, message):
    with pytest.raises(ConfigError, match=message):
        assign(run, np.array(agents))


def test_another_structure_is_refused(run):
    with pytest.raises(ConfigError, match=r"agents: have the structure .*, must be as those of the run"):
        assign(run, {"cell": np.array([1])})


# Files.


class Person(NamedTuple):
    """An agent with all kinds of leaves."""

    taste: jax.Array  # (3,)
    wish: dict
    early: jax.Array  # () bool


PEOPLE = Population(
    Person(jnp.zeros((2, 3)), {"speed": jnp.zeros(2), "floor": jnp.zeros(2, jnp.int32)}, jnp.zeros(2, bool)),
    lambda agent, outcome: jnp.float32(0),
)


def test_columns_are_the_paths_to_the_leaves(tmp_path):
    names = [name for leaf in agent_leaves(PEOPLE) for name in leaf.names]
    assert names == ["taste_0", "taste_1", "taste_2", "wish.floor", "wish.speed", "early"]
    path = tmp_path / "agents.csv"
    path.write_bytes(
        b'\xef\xbb\xbfwish.speed,early,id,taste_2,taste_0,taste_1,wish.floor\r\n1.5,true,"a,\nb",3,1,2,-4\r\n2e1,0,c,6,4,5,7\r\n\r\n'
    )
    table = read_agents(path, PEOPLE)
    np.testing.assert_array_equal(table.agents.taste, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(table.agents.wish["speed"], [1.5, 20])
    np.testing.assert_array_equal(table.agents.wish["floor"], [-4, 7])
    np.testing.assert_array_equal(table.agents.early, [True, False])
    assert [leaf.dtype for leaf in jax.tree.leaves(table.agents)] == [leaf.dtype for leaf in jax.tree.leaves(PEOPLE.agents)]
    assert (table.weights, table.groups) == (None, None)
    with pytest.raises(ConfigError, match=r"has 1 columns, must be one for each of the 4 leaves"):
        agent_leaves(PEOPLE._replace(columns=(Column("taste"),)))
    with pytest.raises(ConfigError, match=r"two columns of agents have one name"):
        agent_leaves(PEOPLE._replace(columns=(Column("a"), Column("a_0"), Column("a"), Column("b"))))


BAD = {
    b"": "is empty; give a CSV file with names of columns in its first line",
    b"\n\n": "is empty; give a CSV file",
    b"cell\n": "holds no agents, only names of columns; give a row an agent",
    b",\n1,2\n": "its first line is empty; give names of columns there: cell",
    b"sell\n1\n": "column 1 = 'sell' is not known; did you mean 'cell'? (known: cell, group, id, weight); columns are cell",
    b"id\n1\n": "column cell is missing; columns are cell and, as you like, id, weight, group",
    b"cell,cell\n1,2\n": "column 2 = 'cell': must be another than column 1; leave one out",
    b"cell;id\n1;2\n": "column 1 = 'cell;id': must be a name; separate columns by commas",
    b"cell,id\n1,a\n2\n": "row 2 has 1 cells (2), must have 2 as the first line; mend that row",
    b"cell,id\n1,a\n\n2,b\n": "row 2 is empty, must have 2 as the first line; mend that row",
    b"cell\n1\ntwo\n": "row 2: cell = 'two': must be a whole number from 0 to 3 (row by row, from the top left); mend that row",
    b"cell\n1\nnan\n": "row 2: cell = 'nan': must be a whole number from 0 to 3",
    b"cell\ninf\n": "row 1: cell = 'inf': must be a whole number from 0 to 3",
    b"cell\n1e999\n": "row 1: cell = '1e999': must be a whole number from 0 to 3",
    b"cell\n1.5\n": "row 1: cell = '1.5': must be a whole number from 0 to 3",
    b"cell\n4\n": "row 1: cell = '4': must be a whole number from 0 to 3",
    b"cell\n-1\n": "row 1: cell = '-1': must be a whole number from 0 to 3",
    b"cell,id\n,a\n": "row 1: cell = '': must be a whole number from 0 to 3",
    b"cell,weight\n1,0\n": "row 1: weight = '0': must be a finite number above 0; mend",
    b"cell\ntrue\n": "row 1: cell = 'true': must be a whole number from 0 to 3",
    b"cell,weight\n1,true\n": "row 1: weight = 'true': must be a finite number above 0; mend",
    b"cell,weight\n1,1_0\n": "row 1: weight = '1_0': must be a finite number above 0; mend",
    b"cell,weight\n1,many\n": "row 1: weight = 'many': must be a finite number above 0; mend",
    b"cell,id\n1,Andr\xe9\n": "line 2 is not UTF-8 (byte 0xe9); save the table as CSV in UTF-8",
    b"PK\x03\x04\0\0": "is no text (it holds zero bytes); save the table as CSV in UTF-8",
    b'cell,id\n1,"a\n': "line 2 is no CSV (unexpected end of data); see to its quotes and commas",
    b"cell,id\n1," + b"a" * 200_000 + b"\n": "line 2 is no CSV (field larger than field limit (131072))",
}


@pytest.mark.parametrize("content", BAD, ids=lambda content: repr(content[:20]))
def test_bad_files_are_told_in_one_line(run, tmp_path, capsys, content):
    path = tmp_path / "agents.csv"
    path.write_bytes(content)
    message = refused(["assign", str(run.folder.path), str(path)], capsys)
    assert message.startswith(f"{path}: {BAD[content]}")


def test_bad_paths_are_told_in_one_line(run, tmp_path, capsys, monkeypatch):
    folder, path = str(run.folder.path), tmp_path / "agents.csv"
    assert refused(["assign", folder, str(path)], capsys).startswith(f"agents = {path}: cannot be read (No such file")
    assert refused(["assign", folder, str(tmp_path)], capsys).startswith(
        f"agents = {tmp_path}: cannot be read (Is a directory)"
    )
    path.write_text("cell\n1\n")
    message = refused(["assign", folder, str(path), "--out", str(path)], capsys)
    assert message == f"out = {path}: is the file of the agents; choose another file"
    message = refused(["assign", folder, str(path), "--out", str(tmp_path / "no" / "out.csv")], capsys)
    assert message.endswith("out.csv: cannot be written (No such file or directory); choose another file")
    message = refused(["assign", folder, str(path), "--out", "."], capsys)
    assert message == "out = .: must be a file, such as policies.csv, and no folder"
    message = refused(["assign", folder, str(path), "--out", str(path / "x.csv")], capsys)
    assert message.endswith(f"must be in a folder that can be written, which {path} cannot")
    assert refused(["assign", folder, str(path), "--at-most", "0"], capsys).startswith(
        "at_most: the 2 policies have room for 0"
    )
    assert refused(["assign", folder, str(path), "--at-least", "1", "2", "3"], capsys).startswith("at_least = (1, 2, 3): must")
    monkeypatch.setattr("rmdp_jax.records.agents_csv.LARGEST_FILE", 5)
    assert refused(["assign", folder, str(path)], capsys).startswith(f"{path}: has 7 bytes, must be at most 5")


def test_the_command_writes_rows_in_order_and_prints_a_small_table(run, tmp_path, capsys):
    path, out = tmp_path / "agents.csv", tmp_path / "out.csv"
    path.write_text('group,cell,id,weight\nold,3,"a, b",1\nyoung,0,\u00e9,2\nold,1,c,1\n', encoding="utf-8")
    main(["assign", str(run.folder.path), str(path), "--out", str(out)])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "for 3 agents, by 8 kept episodes of each policy" in " ".join(printed.split())
    for group in ("everybody", "group old", "group young"):
        assert group in printed
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a, b", "\u00e9", "c"]
    assert list(rows[0]) == [
        *("group", "cell", "id", "weight"),
        *("policy", "expected_return", "low", "high", "margin", "to_bound", "unserved"),
    ]
    found = assign(run, np.array([3, 0, 1], np.int32))
    np.testing.assert_allclose([float(row["expected_return"]) for row in rows], found.expected, rtol=1e-5)
    assert [int(row["policy"]) for row in rows] == found.policy.tolist()
    main(["assign", str(run.folder.path), str(path), "--json", "--at-most", "2"])
    report = json.loads(capsys.readouterr().out)
    assert sum(policy["agents"] for policy in report["policies"]) == report["agents"] == 3
    assert set(report["fairness"]) == {"everybody", "group old", "group young"}
    weighed = np.array(report["results"]["expected_return"]) @ [1, 2, 1] / 4
    assert report["fairness"]["everybody"]["mean"] == pytest.approx(weighed, rel=1e-5)


def test_evaluate_tells_how_returns_are_spread(run, capsys):
    main(["evaluate", str(run.folder.path), "--episodes", "4", "--json"])
    report = json.loads(capsys.readouterr().out)
    returns = np.array(report["utility"])[report["assignment"], np.arange(N)]
    assert report["fairness"]["mean"] == pytest.approx(report["welfare"], rel=1e-5)
    assert report["fairness"]["minimum"] == pytest.approx(returns.min(), rel=1e-5)
    main(["evaluate", str(run.folder.path), "--episodes", "4"])
    assert "worst tenth" in capsys.readouterr().out
