"""What a dossier refuses, each in one line and before anything is restored; and how alike runs are."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_cli import refused
from tiny import CONFIG, SIZES, K, N, make_tiny

from rmdp_jax import random_even, train
from rmdp_jax.dossier.stability import Beside, describe_stability, overlap, read_beside


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs for the same people, and one for others; of the last two what lies in small files alone."""
    folder = tmp_path_factory.mktemp("runs")
    train(*make_tiny(), replace(CONFIG, transitions=SIZES.transitions), random_even(K, N), out=folder / "first", progress=False)
    for name, task in (("second", {}), ("others", {"env_options": {"size": 3, "n": 9}})):
        shutil.copytree(folder / "first", folder / name)
        edit(
            folder / name / "config.json", lambda config, task=task: {**config, **task, "train": {**config["train"], "seed": 4}}
        )
        edit(folder / name / "result.json", lambda result, task=task: {**result, **task, "seed": 4})
    return folder


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.fixture
def nothing_is_restored(monkeypatch):
    def fail(*arguments):
        raise AssertionError("a run was restored")

    monkeypatch.setattr("rmdp_jax.records.loading.load_run", fail)


def refuse(runs, capsys, *arguments):
    return refused(["dossier", str(runs / "first"), *map(str, arguments)], capsys)


@pytest.mark.usefixtures("nothing_is_restored")
def test_runs_beside_are_of_the_same_people(runs, capsys, tmp_path):
    found = refuse(runs, capsys, "--beside", runs / "others")
    assert found.startswith(
        f"beside = {runs / 'others'}: env_options = {{'size': 3, 'n': 9}}: must be {{'size': 2, 'n': 4}} as of"
    )
    assert found.endswith("leave it out, or give a run of the same task for the same people")
    assert refuse(runs, capsys, "--beside", tmp_path / "none").startswith(f"run = {tmp_path / 'none'}: holds no")
    assert "is the run itself; leave it out" in refuse(runs, capsys, "--beside", runs / "second" / ".." / "first")
    assert "is given twice; leave it out" in refuse(runs, capsys, "--beside", runs / "second", runs / "second")
    moved = tmp_path / "moved"
    shutil.copytree(runs / "second", moved)
    with np.load(moved / "agents.npz") as kept:
        arrays = dict(kept)
    np.savez(moved / "agents.npz", **{**arrays, "agents": arrays["agents"][::-1]})
    assert f"agents: are others than those of {runs / 'first'}, must be the same people" in refuse(
        runs, capsys, "--beside", moved
    )
    (moved / "agents.npz").unlink()
    assert "agents.npz is missing, so nobody knows" in refuse(runs, capsys, "--beside", moved)


@pytest.mark.usefixtures("nothing_is_restored")
def test_what_is_no_finished_run(runs, capsys, tmp_path):
    assert "holds no result.json, so it is not the folder of a finished run" in refused(["dossier", str(tmp_path)], capsys)
    stopped = tmp_path / "stopped"
    shutil.copytree(runs / "second", stopped)
    edit(stopped / "result.json", lambda result: {**result, "finished": False})
    line = f"{stopped}: was stopped early, at iteration 1; end it with rmdp-jax train DIR --resume"
    assert refused(["dossier", str(stopped)], capsys) == line
    assert refuse(runs, capsys, "--beside", stopped) == line
    (stopped / "result.json").unlink()
    assert refused(["dossier", str(stopped)], capsys).endswith("; --resume ends it")


def test_episodes_and_people(runs, capsys, tmp_path):
    older = tmp_path / "older"
    shutil.copytree(runs / "second", older)
    (older / "episodes.npz").unlink()
    assert refused(["dossier", str(older)], capsys).endswith(f"make it by: rmdp-jax evaluate {older} --keep")
    (tmp_path / "people.csv").write_text("cell\n0\n1\n2\n")
    few = refuse(runs, capsys, "--people", tmp_path / "people.csv")
    assert few == f"people = {tmp_path / 'people.csv'}: has 3 rows, must have one for each of the n = 4 agents"
    (tmp_path / "people.csv").write_text("cell\n0\n1\n3\n2\n")
    wrong = refuse(runs, capsys, "--people", tmp_path / "people.csv")
    assert "row 3: cell = 3: must be 2, as of agent 2; give the run's own agents in their order" in wrong


@pytest.mark.usefixtures("nothing_is_restored")
def test_a_place_that_cannot_be_written(runs, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    found = refuse(runs, capsys, "--out", tmp_path / "file" / "folder")
    assert "cannot be written" in found
    assert "choose another --out" in found


def test_two_seeds_for_the_same_people(runs):
    (second,) = read_beside(runs / "first", [runs / "second"])
    assert (second.name, second.result["seed"]) == ("second", 4)
    np.testing.assert_array_equal(second.assignment, second.result["assignment"])


def test_the_adjusted_rand_index_by_hand():
    """Of four agents in two pairs: the same pairs with other numbers 1; two pairs that cross: (0 - 2/3) / (2 - 2/3) = -1/2."""
    facts = {"algorithm": "em", "k": 2, "seed": 0, "welfare": 1.0, "welfare_standard_error": None}
    own, named, crossed = (Beside(str(i), facts, np.array(x)) for i, x in enumerate(([0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1])))
    found = describe_stability(own, [named, crossed])
    np.testing.assert_allclose(found["adjusted_rand_index"], [[1, 1, -0.5], [1, 1, -0.5], [-0.5, -0.5, 1]])
    assert (found["mean"], found["least"]) == (0.0, -0.5)
    assert describe_stability(own, []) is None
    assert [overlap(own.assignment, one.assignment, 0) for one in (named, crossed)] == [1.0, 1 / 3]
    assert overlap(np.zeros(4, int), own.assignment, 1) is None
