"""Which trials `tune` trains together, which go on, and how it goes on itself; one small search from end to end."""

import csv
import json
import math
from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
from test_cli import refused
from tiny import CONFIG

from rmdp_jax import ConfigError
from rmdp_jax.commands.cli import _parse, main
from rmdp_jax.commands.tune import describe_final, print_tuned
from rmdp_jax.envs import make, preset
from rmdp_jax.running import tune as module
from rmdp_jax.running.algorithms import resolve
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.search import Setting, default_search, read_search, values_of, with_values
from rmdp_jax.running.study import Search
from rmdp_jax.running.trials import rungs_of
from rmdp_jax.running.tune import Tuned, tune

CELL = Cell(env="resource_gathering", env_options={"size": 2}, algorithm="plain_em", config=CONFIG)
RATES = (Setting("clip", 0.1, 0.4), Setting("epochs", choices=(1, 2)))


@pytest.fixture
def state(monkeypatch):
    """Trials that are asked for, by iteration; a trial is as good as its clip is large, and `stop` ends the process there."""
    state = {"asked": [], "stop": None}

    def welfare(self, trials, iteration):
        state["asked"].append((iteration, [trial.number for trial in trials], {trial.params.get("epochs") for trial in trials}))
        if len(state["asked"]) == state["stop"]:
            raise KeyboardInterrupt
        return [math.nan if trial.params["clip"] > 0.39 else trial.params["clip"] * iteration for trial in trials]

    monkeypatch.setattr(module.Trials, "welfare", welfare)
    monkeypatch.setattr(module, "_compare", lambda *arguments: {})
    return state


def search_in(folder, search, cell=CELL):
    return tune(cell, search, folder, make=make, progress=False)


def test_rounds_have_one_shape_and_their_better_half_goes_on(state, tmp_path):
    found = search_in(tmp_path, Search(settings=RATES, trials=10, batch=4, rungs=2))
    asked = state["asked"]
    assert [len(trials) for _, trials, _ in asked] == [4, 2, 1, 4, 2, 1, 2, 1, 1]
    assert [iteration for iteration, *_ in asked] == [5, 10, 20] * 3
    assert all(len(shapes) == 1 for *_, shapes in asked)
    first = found.trials[0]
    assert first.params == {"clip": 0.2, "epochs": 2}  # the settings it begins with
    by_number = {trial.number: trial.params["clip"] for trial in found.trials}
    for (_, all_, _), (_, going, _) in pairwise(asked[:3]):
        of_all = sorted((number for number in all_ if by_number[number] <= 0.39), key=by_number.get)
        assert set(going) <= set(of_all[-len(going) :])
    states = [trial.state.name for trial in found.trials]
    assert states.count("COMPLETE") <= 3
    assert (
        found.best.rates.clip
        == found.values["clip"]
        == max(trial.params["clip"] for trial in found.trials if trial.state.name == "COMPLETE")
    )
    assert found.found == pytest.approx(20 * found.values["clip"])


def test_sizes_alone_are_drawn_for_every_trial(state, tmp_path, monkeypatch):
    monkeypatch.setattr(module.Trials, "welfare", lambda self, trials, iteration: [trial.params["epochs"] for trial in trials])
    found = search_in(tmp_path, Search(settings=(Setting("epochs", choices=(1, 2, 3, 4, 5)),), trials=6, batch=4, rungs=1))
    assert {trial.state.name for trial in found.trials} == {"COMPLETE"}  # each was alone in its round
    assert len({trial.params["epochs"] for trial in found.trials}) > 2


def test_a_search_that_goes_on_may_find_other_settings(state, tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(
        module, "_compare", lambda cell, best, *others: labels.append((best.label, best.config.rates.clip)) or {}
    )
    for trials in (3, 6, 9, 12):
        search_in(tmp_path, Search(settings=RATES[:1], trials=trials, batch=3, rungs=0))
    assert len(set(labels)) > 1
    assert len({label for label, _ in labels}) == len({clip for _, clip in labels}) == len(set(labels))


def test_few_choices_are_each_tried_once(state, tmp_path):
    settings = (Setting("clip", choices=(0.1, 0.2, 0.3)), Setting("epochs", choices=(1, 2)))
    found = search_in(tmp_path, Search(settings=settings, trials=24, batch=4, rungs=0))
    tried = [(trial.params["epochs"], trial.params["clip"]) for trial in found.trials]
    assert tried[0] == (2, 0.2)  # the settings it begins with
    assert sorted(tried) == list(product((1, 2), (0.1, 0.2, 0.3)))
    assert all(len(shapes) == 1 for *_, shapes in state["asked"])
    assert len(search_in(tmp_path, Search(settings=settings, trials=24, batch=4, rungs=0)).trials) == 6


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_search_that_was_stopped_goes_on_where_it_was(state, tmp_path, stop):
    search = Search(settings=RATES, trials=8, batch=4, rungs=2)
    state["stop"] = stop
    with pytest.raises(KeyboardInterrupt):
        search_in(tmp_path, search)
    state["stop"] = None
    found = search_in(tmp_path, search)
    asked = state["asked"]
    assert asked[stop - 1] == asked[stop]  # the trials and the rung that it was at
    assert len(found.trials) == 8
    assert not [trial for trial in found.trials if trial.state.name in ("RUNNING", "WAITING")]
    number = len(asked)
    assert search_in(tmp_path, search).values == found.values
    assert len(asked) == number  # nothing was trained again
    assert len(search_in(tmp_path, replace(search, trials=9)).trials) == 9


def test_a_search_of_other_settings_is_refused(state, tmp_path):
    search_in(tmp_path, Search(settings=RATES, trials=1))
    with pytest.raises(ConfigError, match="holds a search with other seeds, search; choose another --out"):
        search_in(tmp_path, Search(settings=RATES[:1], trials=1, seeds=2))
    with pytest.raises(ConfigError, match="holds a search with other train; choose"):
        search_in(tmp_path, Search(settings=RATES, trials=1), replace(CELL, config=replace(CONFIG, k=1)))


def test_no_welfare_at_all_is_an_error(state, tmp_path):
    with pytest.raises(ConfigError, match="no trial came to its end with a welfare"):
        search_in(tmp_path, Search(settings=(Setting("clip", 0.395, 0.4),), trials=2))


def test_rungs_are_shares_of_the_run_in_whole_lines():
    assert rungs_of(CONFIG, 2, 2.0) == [5, 10, 20]
    assert rungs_of(CONFIG, 0, 2.0) == [20]
    assert rungs_of(CONFIG, 3, 3.0) == [5, 10, 20]  # of 0.7, 2.2, 6.7 of 20
    assert rungs_of(replace(CONFIG, log_every=50), 3, 3.0) == [20]


def test_the_words_of_a_search():
    config = preset("resource_gathering", k=2)
    found = read_search(["learning-rate=1e-4..1e-2", "epochs=4,10", "hidden=64x64,128", "normalize_returns=true,false"], config)
    assert [setting.name for setting in found] == ["learning_rate", "epochs", "hidden", "normalize_returns"]
    assert found[0].distribution().log
    assert not Setting("clip", 0.1, 0.4).distribution().log
    assert [setting.fixes_shapes for setting in found] == [False, True, True, True]
    changed = with_values(config, {"learning_rate": 1e-3, "epochs": 4, "hidden": "128", "normalize_returns": False})
    assert changed.rates.learning_rate == (1e-3, pytest.approx(2e-4))  # the end in the preset's proportion
    assert (changed.sizes.epochs, changed.sizes.hidden, changed.sizes.normalize_returns) == (4, (128,), False)
    for settings in (found, default_search(config)):
        assert with_values(config, values_of(config, settings)) == config
        assert all(
            setting.holds(value)
            for setting, value in zip(settings, values_of(config, settings).values(), strict=True)
            if setting.name != "epochs"
        )


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("clip", "search = 'clip': must be NAME=LOW..HIGH or NAME=A,B,C"),
        ("clipp=0.1..0.2", "search = 'clipp' is not known; did you mean 'clip'?"),
        ("clip=0.2..0.1", "search = 'clip=0.2..0.1': must be NAME=LOW..HIGH"),
        ("clip=0.1..x", "search = 'clip=0.1..x': must be NAME=LOW..HIGH"),
        ("epochs=1..4", "search = 'epochs=1..4': must be NAME=LOW..HIGH"),
        ("epochs=4,4", "search = 'epochs=4,4': must be NAME=LOW..HIGH or NAME=A,B,C, such"),
        ("epochs=0,4", "search: epochs = 0: must be a whole number of at least 1"),
        ("gae_lambda=0.5..1.5", "search: gae_lambda = 1.5: must be a number from 0 to 1"),
        ("minibatches=7,8", "search: minibatches = 7: must be a divisor of"),
        ("hidden=64by64,64", "search = hidden=64by64: must be layers such as 64x64"),
        ("environments=1,64 minibatches=8,64", "search: choices do not go together: minibatches = 64: must be a divisor of"),
    ],
)
def test_what_cannot_be_searched_is_refused(word, message, capsys, monkeypatch):
    monkeypatch.setattr("jax.jit", None)
    assert refused(["tune", "resource_gathering", "--search", *word.split(), "--out", "/dev/null/x"], capsys).startswith(
        message
    )


def test_without_optuna_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.tune.find_spec", lambda name: None)
    assert refused(["tune", "resource_gathering"], capsys).startswith("tune: takes optuna, which is not installed; pip install")


@pytest.mark.parametrize(
    ("final", "verdict"),
    [
        ({"preset": {5: 1.0}}, "nothing better than the preset was found"),
        (
            {"preset": {5: 1.0, 6: 1.1, 7: 0.9}, "best": {5: 2.0, 6: 2.1, 7: 1.91}},
            "  better than the preset: +1.00 a seed, paired t-test p = 0.000",
        ),
        (
            {"preset": {5: 2.0, 6: 2.1, 7: 1.9}, "best": {5: 1.0, 6: 1.1, 7: 0.91}},
            "  worse than the preset: -1.00 a seed, paired t-test p = 0.000",
        ),
        (
            {"preset": {5: 1.0, 6: 3.0}, "best": {5: 2.0, 6: 2.5}},
            "  not significantly different from the preset: +0.25 a seed, paired t-test p = 0.795",
        ),
        (
            {"preset": {5: 1.0}, "best": {5: 2.0}},
            "  not significantly different from the preset: +1.00 a seed, too few seeds for a test",
        ),
    ],
)
def test_the_verdict_is_by_seeds_that_the_search_has_not_seen(final, verdict):
    assert describe_final(Tuned(CONFIG, {}, 9.0, final, [], {}))[-1] == verdict


def test_rungs_are_of_what_groups_leave_to_the_policies(state, tmp_path):
    cell = replace(CELL, algorithm="cluster", config=replace(CONFIG, transitions=40_000))
    search_in(tmp_path, Search(settings=RATES, trials=1, batch=1, rungs=1), cell)
    *_, (last, *_) = state["asked"]
    population = make("resource_gathering", size=2)[1]
    assert last == resolve("cluster", population, cell.config).config.iterations < cell.config.iterations


def test_trials_that_diverged_are_listed_last(capsys, tmp_path):
    trials = [
        SimpleNamespace(number=number, last_step=20, intermediate_values={20: welfare}, params={"clip": 0.2})
        for number, welfare in enumerate([1.0, math.nan, 3.0, math.nan, 2.0])
    ]
    print_tuned(Tuned(CONFIG, {"clip": 0.2}, 3.0, {"preset": {1: 3.0}}, trials, {}), tmp_path / "best.json", tmp_path / "t.csv")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows if len(row) == 4][1:4] == [["2", "3.00"], ["4", "2.00"], ["0", "1.00"]]


def test_a_range_is_searched_where_the_settings_have_the_value_of_the_task(state, tmp_path):
    search_in(tmp_path, Search(settings=(*RATES, Setting("discount", 0.9, 0.99)), trials=1, batch=1, rungs=1))
    assert not Setting("discount", 0.9, 0.99).holds(None)


@pytest.mark.slow
def test_a_small_search_from_end_to_end(tmp_path, capsys):
    out = tmp_path / "tune"
    command = ["tune", "resource_gathering", "--algorithm", "plain_em", "--size", "2", "--k", "2", "--transitions", "8192"]
    command += ["--trials", "2", "--batch", "2", "--rungs", "1", "--final-seeds", "1", "--search", "clip=0.1..0.4", "--quiet"]
    command += ["--log-every", "1", "--evaluation-episodes", "4", "--out", str(out)]
    main(command)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith(("trials", "best "))) <= 80
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert sorted(row["state"] for row in rows) == ["complete", "pruned"]
    assert float(rows[0]["clip"]) == 0.2
    parsed = _parse(["train", "--config", str(out / "best.json"), "--seed", "4"])
    best = next(float(row["clip"]) for row in rows if row["state"] == "complete")
    assert (parsed.env, parsed.k, parsed.seed, parsed.rates.clip) == ("resource_gathering", 2, 4, best)
    assert (parsed.transitions, parsed.env_options.size) == (8192, 2)
    finals = [json.loads(line) for line in (out / "final" / "runs.jsonl").read_text().splitlines()]
    assert {line["seed"] for line in finals} == {1}  # the search had 0
    assert len(finals) == (1 if best == 0.2 else 2)
    assert not list((out / "trials").glob("*/checkpoints"))
    main(command)
    assert capsys.readouterr().out == printed
