"""The authors' figures beside ours: what is run, and what the table and the picture say."""

import json

import pytest

from benchmarks import authors
from benchmarks.authors import TASKS, main, runs_of, table_of, theirs


def a_line(env, kind, algorithm, transitions):
    return {
        **{"env": env, "preset": kind, "algorithm": algorithm, "seed": 0, "budget": transitions, "upper_bound": 91.04},
        **{"welfare": 88.0, "settings": {}, "curve": [[102_400, 50.0, 3.0], [204_800, 70.0, 6.0], [999_424, 88.5, 31.0]]},
    }


@pytest.mark.parametrize(("env", "last"), [("resource_gathering", 86.8), ("halfcheetah_speed", 20.6)])
def test_their_runs_are_those_that_were_measured(env, last):
    curve = theirs(env)
    steps = [point[0] for point in curve]
    assert steps == sorted(steps)
    assert steps[-1] == pytest.approx(TASKS[env].transitions, rel=0.1)
    assert curve[-1][1] == pytest.approx(last, abs=0.1)


def test_ours_take_the_algorithm_of_their_run_and_em():
    assert runs_of("resource_gathering", ("reference", "default")) == [
        *[("reference", "end_to_end_surrogate"), ("default", "end_to_end"), ("default", "em")]
    ]
    assert runs_of("halfcheetah_speed", ("reference", "default")) == [("reference", "em"), ("default", "em")]
    assert runs_of("halfcheetah_speed", ("reference",)) == [("reference", "em")]


def test_welfare_is_told_where_a_run_has_it():
    them, us = table_of("resource_gathering", [a_line("resource_gathering", "default", "em", 1_000_000)])
    assert them[0] == "the authors' end_to_end"
    assert us == ["em, default", "50.0", "70.0", "", "88.5", "", "31"]


def test_lines_table_and_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(authors, "train_one", a_line)
    results = tmp_path / "authors.jsonl"
    monkeypatch.setattr("sys.argv", ["authors", "--quick", "--results", str(results)])
    for _ in range(2):  # a run that is made again takes the place of its line
        main()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["preset"], line["algorithm"]) for line in lines] == runs_of("resource_gathering", ("reference", "default"))
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert "| em, default | 50.0 | 70.0 |" in results.with_suffix(".md").read_text()
    assert (tmp_path / "authors_resource_gathering.png").stat().st_size > 1000
    monkeypatch.setattr("sys.argv", ["authors", "--transitions", "5000", "--results", str(results)])
    main()  # other budgets are other runs, and the table is of the longest
    assert len(results.read_text().splitlines()) == 6
    assert results.with_suffix(".md").read_text().count("| em, default |") == 1
    assert "--transitions 10000`" in results.with_suffix(".md").read_text()


def test_bad_arguments_are_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["authors", "--env", "hopper_speed"])
    with pytest.raises(SystemExit):
        main()
    assert "env = 'hopper_speed' is not known" in capsys.readouterr().err
