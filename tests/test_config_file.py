"""`train --config FILE`: of a run or by hand, with flags beside it."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import refused
from tiny import COMMAND, CONFIG

from rmdp_jax import plain_em
from rmdp_jax.commands.cli import _parse, main
from rmdp_jax.envs import make
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.lines import describe_run
from rmdp_jax.records.settings import changed_settings, check_algorithm_options
from rmdp_jax.records.spec import RunSpec


def written(folder, content):
    path = folder / "settings.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_the_config_of_a_run_is_that_run(tmp_path):
    config = replace(CONFIG, welfare_p=-float("inf"), at_most=(3.0,))
    env, population = make("resource_gathering", size=2, seed=3)
    described = describe_run(env, RunSpec(population, config, plain_em(2, 4)))
    parsed = _parse(["train", "--config", written(tmp_path, {"format": 1, **described, "release": {"by": "rmdp-jax"}})])
    assert (parsed.env, parsed.algorithm, parsed.env_options.size) == ("resource_gathering", "plain_em", 2)
    assert parsed.task()[2] == config


def test_people_of_another_seed_than_the_run_stay(tmp_path):
    by_hand = {"env": "ant_speed", "env_options": {"seed": 1}, "train": {"seed": 2}}
    parsed = _parse(["train", "--config", written(tmp_path, by_hand)])
    assert (parsed.seed, parsed.env_options.people_seed) == (2, 1)


def test_flags_win_and_the_rest_is_the_preset_of_the_env(tmp_path):
    by_hand = {
        "env": "halfcheetah_speed",
        "train": {"k": 3, "transitions": 1e6, "rates": {"clip": 0.3}, "sizes": {"epochs": 4}},
    }
    parsed = _parse(["train", "--config", written(tmp_path, by_hand), "--k", "4", "--epochs", "2"])
    assert (parsed.env, parsed.k, parsed.transitions) == ("halfcheetah_speed", 4, 1_000_000)
    assert (parsed.sizes.epochs, parsed.sizes.unroll) == (2, 64)  # of the flag, of the preset
    assert parsed.rates.clip == 0.3
    assert _parse(["train", "hopper_speed", f"--config={written(tmp_path, by_hand)}"]).env == "hopper_speed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"k": 3}, 'k: belongs into train, {"train": {"k": ...}}'),
        ({"kk": 3}, "field = 'kk' is not known"),
        ({"train": {"kk": 3}}, "train: field = 'kk' is not known; did you mean 'k'?"),
        (
            {"train": {"rates": {"learning_rat": 1}}},
            "train: rates: field = 'learning_rat' is not known; did you mean 'learning_rate'?",
        ),
        ({"train": {"sizes": {"epochs": 0}}}, "epochs = 0: must be a whole number of at least 1"),
        ({"train": {"k": "five"}}, "train: k = 'five': must be a number"),
        ({"env_options": {"sise": 3}}, "env_options: field = 'sise' is not known; did you mean 'size'?"),
        ({"format": 7}, "has format 7, this version reads 1"),
        ([], "[]: must be an object of names and values"),
        ({"train": {"k": 26}}, "k = 26: must be at most n = 25"),
        *[({"frozen": value}, "frozen = ") for value in (["run:0"], 5, [{"run": "run"}])],
        ({"algorithm_options": 5}, "algorithm_options = 5: must be an object"),
        ({"train": {"transitions": 1000}, "pretraining_transitions": "x"}, "pretraining_transitions = 'x': must be a whole"),
    ],
)
def test_what_a_file_may_not_hold_is_named(tmp_path, capsys, monkeypatch, content, message):
    monkeypatch.setattr("jax.jit", None)
    path = written(tmp_path, content)
    line = refused(["train", "resource_gathering", "--config", path, "--out", str(tmp_path / "run")], capsys)
    assert line.removeprefix(f"config = {path}: ").startswith(message)


def test_as_other_programs_write_it(tmp_path):
    path = Path(written(tmp_path, {"env": "ant_speed", "env_options": {"n": 30}, "train": {"k": 3}}))
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as of Windows
    parsed = _parse(["train", "--config", str(path)])
    assert (parsed.env, parsed.k, parsed.n) == ("ant_speed", 3, 30)
    other = written(tmp_path, {"train": {"k": 4, "n": 40}})
    twice = _parse(["train", "ant_speed", "--config", str(tmp_path / "none.json"), "--config", other])
    assert (twice.k, str(twice.config)) == (4, other), "the last of a flag counts"
    assert _parse(["train", "ant_speed", "--preset", "reference", "--preset", "default"]).sizes.environments > 1


def test_a_file_that_is_none_is_refused(tmp_path, capsys):
    assert refused(["train", "--config", str(tmp_path / "none.json")], capsys).endswith(
        "cannot be read (No such file or directory)"
    )


def test_options_that_only_python_sets_are_refused(tmp_path):
    path = Path(written(tmp_path, {"algorithm_options": {"warmup": 3}}))
    with pytest.raises(ConfigError, match="algorithm_options: warmup = 3: is set in Python only, here 10"):
        check_algorithm_options(path, {"warmup": 10})
    check_algorithm_options(path, {"warmup": 3})


def test_one_command_begins_a_run_by_a_file_and_ends_it(tmp_path, capsys):
    begun = _parse([*COMMAND, "--out", str(tmp_path / "run")])
    content = {"algorithm": "plain_em", "env": "resource_gathering", "env_options": {"size": 2}}
    content |= {"train": {"k": 2, "transitions": 32, "evaluation_episodes": 2, "sizes": {**vars(begun.sizes)}}}
    command = ["train", "--config", written(tmp_path, content), "--out", str(tmp_path / "run"), "--resume", "--quiet"]
    main(command)
    capsys.readouterr()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["finished"]
    content["train"]["k"] = 1
    written(tmp_path, content)
    assert refused(command, capsys).startswith("resume: k (2 there, 1 here) differ from the run in")
    assert refused(["train", str(tmp_path / "run"), *command[1:3]], capsys).endswith("leave it out")


def test_options_that_one_side_lacks_are_told():
    """Those of people and backend are reported elsewhere."""
    train = {"sizes": {}, "rates": {}}

    def config(**options):
        return {"env": "ant_speed", "algorithm": "em", "backend": "native", "env_options": {"n": 3, **options}, "train": train}

    def changed(there, here):
        return changed_settings(SimpleNamespace(read_config=lambda: config(**there)), config(**here), ())

    assert changed({"model": "gymnasium"}, {}) == ["model (gymnasium there, None here)"]
    assert changed({}, {"model": "gymnasium"}) == ["model (None there, gymnasium here)"]
    assert changed({"context": True}, {}) == ["context (True there, None here)"]
    assert changed({"backend": "auto"}, {"backend": "native"}) == []


def test_a_run_is_gone_on_with_by_its_name_under_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env, population = make("resource_gathering", size=2, seed=3)
    folder = RunFolder(Path("runs/first"))
    folder.path.mkdir(parents=True)
    folder.write_config(describe_run(env, RunSpec(population, CONFIG, plain_em(2, 4))))
    parsed = _parse(["train", "first", "--extend", "960"])
    assert (parsed.env, parsed.out, parsed.algorithm) == ("resource_gathering", Path("runs/first"), "plain_em")


@pytest.mark.parametrize(("algorithm", "k"), [("single", 3), ("individual", 3), ("contextual", 3)])
def test_an_algorithm_that_says_its_k_takes_few_people(algorithm, k):
    _, population, config = _parse(["train", "halfcheetah_speed", "--algorithm", algorithm, "--n", "3"]).task()
    assert (population.n, config.k) == (3, k)
