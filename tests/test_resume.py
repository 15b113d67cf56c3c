"""Going on with runs: one command for all starts, nothing but what the folder says, for the same people and rewards."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe
from tiny import CONFIG, FLAGS, ITERATIONS, SIZES, K, N, assert_same, make_tiny, stop_at

import rmdp_jax
from rmdp_jax import ConfigError, Population, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import evaluate_run, load_run
from rmdp_jax.records.people import PROBES as PROBES_OF_PEOPLE
from rmdp_jax.records.people import probe_rewards

BUDGET = ITERATIONS * SIZES.transitions
ASSIGNER = random_even(K, N)
GRID = ["train", "resource_gathering", "--algorithm", "random", "--size", "2", "--k", "2", "--quiet", *FLAGS]


def run(**options):
    return train(*make_tiny(), CONFIG, ASSIGNER, **{"progress": False, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of the command line."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    main([*GRID, "--transitions", str(BUDGET), "--out", str(folder), "--resume"])  # the first start of the one command
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def said(folder):
    """What config.json and result.json say of how far the run goes."""
    files = RunFolder(folder)
    return files.read_config()["train"]["transitions"], files.read_result()["transitions_per_policy"]


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def no_training(monkeypatch):
    """Runs are evaluated, but none is trained."""

    def refuse(*arguments, **options):
        raise AssertionError("it was trained")

    monkeypatch.setattr("rmdp_jax.running.loop.metrics_line", refuse)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("words", [["FOLDER"], [*GRID[1:], "--out", "FOLDER", "--resume"]])
def test_a_finished_run_stays_as_it_is(copied, words):
    before = RunFolder(copied).read_metrics()
    main(["train", *[word.replace("FOLDER", str(copied)) for word in words], "--quiet"])
    assert said(copied) == (BUDGET, BUDGET)
    assert RunFolder(copied).read_metrics() == before


def test_settings_that_differ_are_refused_and_change_nothing(copied, capsys):
    before = (copied / "config.json").read_text()
    for words in ([str(copied)], [*GRID[1:], "--out", str(copied)]):
        for transitions in ("320", "1280"):
            line = refused(["train", *words, "--resume", "--transitions", transitions], capsys)
            assert f"transitions (640 there, {transitions} here) differ" in line
            assert "goes on beyond its end by --extend" in line
    assert "epochs (2 there, 3 here)" in refused(["train", str(copied), "--epochs", "3"], capsys)
    assert "algorithm (random there, em here)" in refused(["train", str(copied), "--algorithm", "em"], capsys)
    assert "extend" in refused(["train", str(copied), "--extend", "320"], capsys)
    other = ["train", "ant_speed", "--out", str(copied), "--resume"]
    assert "resume: env (resource_gathering there, ant_speed here) differs" in refused(other, capsys)
    assert (copied / "config.json").read_text() == before


def test_a_run_is_extended_by_name_and_said_in_words(copied, capsys):
    main(["train", str(copied), "--extend", "960", "--no-cache"])
    printed = " ".join(capsys.readouterr().err.split())
    assert "extended from 640 to 960 transitions per policy" in printed
    # Resource Gathering's preset: 5e-4 to 1e-4; two thirds of the longer way: 5e-4 * 0.2 ** (2 / 3) = 1.71e-4
    assert "learning rate 0.0001 -> 0.000171" in printed
    assert said(copied) == (960, 960)
    assert [line["iteration"] for line in RunFolder(copied).read_metrics()] == [5, 10, 15, 20, 25, 30]
    assert RunFolder(copied).read_result()["finished"] is True


def test_what_was_kept_of_a_finished_run_stays(copied):
    main(["evaluate", str(copied), "--episodes", "24", "--keep"])
    folder = RunFolder(copied)
    result, kept = folder.read_result(), folder.episodes.read_bytes()
    folder.write_result({**result, "device": "gpu: of another machine", "versions": {"jax": "0.0.1"}})
    main(["train", str(copied), "--resume", "--quiet"])
    after = folder.read_result()
    assert folder.episodes.read_bytes() == kept
    assert (after["device"], after["versions"], after["episodes_kept"]) == ("gpu: of another machine", {"jax": "0.0.1"}, 24)


def test_seeds_that_are_added_begin_nothing_anew(tmp_path):
    run(out=tmp_path, seeds=1)
    folder = RunFolder(tmp_path / f"seed-{CONFIG.seed}")
    checkpoints = sorted(path.name for path in folder.checkpoints.iterdir())
    with pytest.raises(
        ConfigError, match=r"has no checkpoint, and .* is at iteration 20; .* so train the new ones by themselves"
    ):
        run(out=tmp_path, seeds=2, resume=True)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == checkpoints
    assert len(folder.read_metrics()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["cluster", "affinity"])
def test_a_run_whose_groups_took_training_is_extended_with_its_groups_and_what_they_took(tmp_path, algorithm, monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.cluster.CLUSTER_TRANSITIONS", 32)
    folder = RunFolder(tmp_path / "run")
    words = [algorithm if word == "random" else word for word in GRID]
    main([*words, "--transitions", str(BUDGET), "--out", str(folder.path)])
    before = folder.read_config()["pretraining_transitions"]
    groups = folder.read_result()["assignment"]
    for _ in range(2):  # as what was extended is extended
        main(["train", str(folder.path), "--extend", str(2 * BUDGET), "--quiet"])
        assert folder.read_config()["pretraining_transitions"] == before
        assert said(folder.path) == (2 * BUDGET - before,) * 2
        assert folder.read_result()["assignment"] == groups
    main(["train", str(folder.path), "--resume", "--quiet"])
    assert said(folder.path) == (2 * BUDGET - before,) * 2


@pytest.mark.parametrize(
    ("refuses", "transitions", "ended"),
    [("records.writer.RunWriter.restore", BUDGET, True), ("running.loop._loop", 960, False)],
    ids=["refused_checkpoint", "read_checkpoint"],
)
def test_config_and_result_agree_while_a_run_is_extended(copied, monkeypatch, refuses, transitions, ended):
    def refuse(*arguments, **options):
        raise ConfigError("stopped here")

    monkeypatch.setattr(f"rmdp_jax.{refuses}", refuse)
    with pytest.raises(SystemExit):
        main(["train", str(copied), "--extend", "960", "--quiet"])
    assert RunFolder(copied).read_config()["train"]["transitions"] == transitions
    assert RunFolder(copied).read_result()["finished"] is ended


def test_a_stopped_run_exits_with_75_and_the_same_command_ends_it(tmp_path, finished, monkeypatch, capsys):
    from rmdp_jax.records.writer import RunWriter

    command = [*GRID, "--transitions", str(BUDGET), "--out", str(tmp_path / "run"), "--resume"]
    add = RunWriter.add
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "add", lambda writer, line: (add(writer, line), stop_at(10)(line)))
        with pytest.raises(SystemExit) as stop:
            main(command)
    assert stop.value.code == 75
    assert "stopped early" in capsys.readouterr().out
    main(command)
    whole, again = (RunFolder(folder).read_result() for folder in (finished, tmp_path / "run"))
    assert again["finished"] is True
    assert again["utility"] == whole["utility"]


# The people of a run.


def make_other(name="mine", **options):
    """A user's own: the probe of actions, with the wishes of `flip`ped people, or of others than the run had."""
    env, population = make_probe(PROBES["action"], N)
    env = env._replace(spec=env.spec._replace(name="mine"))
    if options.get("reversed"):
        population = population._replace(agents=jax.tree.map(lambda leaf: leaf[::-1], population.agents))
    return env, population


OWN = replace(CONFIG, transitions=2 * SIZES.transitions, log_every=1)


@pytest.fixture(scope="module")
def of_mine(tmp_path_factory):
    """A run of a user's own env, whose people `make_other` does not give by itself."""
    folder = tmp_path_factory.mktemp("mine")
    env, population = make_other(reversed=True)
    return folder, train(env, population, OWN, ASSIGNER, out=folder, progress=False)


def test_a_run_comes_back_with_its_own_people(of_mine):
    folder, result = of_mine
    loaded = load_run(folder, make_other)
    assert_same(loaded.population.agents, make_other(reversed=True)[1].agents)
    assert loaded.population.agents.wish.tolist() == [1, 1, 0, 0]
    evaluation = evaluate_run(loaded, OWN.evaluation_episodes, OWN.seed + 1, False)
    np.testing.assert_array_equal(evaluation.utility, result.evaluation.utility)


def test_nobody_else_s_bound_is_known_of_people_that_were_loaded(of_mine):
    def make_bounded(name, **options):
        env, population = make_other()
        return env, population._replace(upper_bound=lambda k: 1.0)

    assert load_run(of_mine[0], make_bounded).population.upper_bound(K) is None


def test_other_people_do_not_go_on_with_a_run(of_mine):
    env, population = make_other()
    with pytest.raises(ConfigError, match=r"agents\.scale: 4 of 4 agents are others .* give the people of that run"):
        train(env, population, OWN, ASSIGNER, out=of_mine[0], resume=True, progress=False)
    fewer = Population(jnp.zeros((N, 2)), population.reward)
    with pytest.raises(ConfigError, match="do not fit the agents that make gives"):
        load_run(of_mine[0], lambda name: (env, fewer))


def test_other_rewards_are_refused(of_mine):
    env, population = make_other(reversed=True)
    other = population._replace(reward=lambda agent, outcome: 1.0 - population.reward(agent, outcome))
    with pytest.raises(ConfigError, match="reward: pays other than in the run of"):
        train(env, other, OWN, ASSIGNER, out=of_mine[0], resume=True, progress=False)
    with pytest.raises(ConfigError, match="reward: pays other than in the run of"):
        load_run(of_mine[0], lambda name: (env, other))


@pytest.mark.parametrize("body", [None, "halfcheetah"])
def test_probes_tell_rewards_apart(body):
    """Of both kinds of tasks: most agents are paid other than the next, for some made-up outcome."""
    env, population = make("resource_gathering") if body is None else make(f"{body}_speed", n=25)
    rewards = probe_rewards(env, population)
    assert rewards.shape == (PROBES_OF_PEOPLE, 25)
    assert (np.abs(np.diff(rewards, axis=1)).max(0) > 0).mean() > 0.5
    np.testing.assert_array_equal(rewards, probe_rewards(env, population))


def test_a_file_of_agents_runs_no_code(of_mine, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    shutil.copytree(of_mine[0], tmp_path / "run")
    arrays = dict(np.load(tmp_path / "run" / "agents.npz"))
    np.savez(tmp_path / "run" / "agents.npz", **{**arrays, "agents.wish": np.array([Evil()] * N, object)})
    with pytest.raises(ConfigError, match=r"agents\.npz: cannot be read \(Object arrays cannot be loaded"):
        load_run(tmp_path / "run", make_other)
    assert not (tmp_path / "ran").exists()


def test_a_run_of_before_there_were_agents_is_read_with_a_warning(of_mine, tmp_path):
    shutil.copytree(of_mine[0], tmp_path / "run")
    (tmp_path / "run" / "agents.npz").unlink()
    with pytest.warns(RunWarning, match=r"holds no agents\.npz"):
        assert load_run(tmp_path / "run", make_other).population.agents.wish.tolist() == [0, 0, 1, 1]


def test_nothing_in_the_package_unpickles():
    """Nor runs what it reads in another way: a hostile folder of a run runs no code."""
    package = Path(rmdp_jax.__file__).parent
    for path in [*package.rglob("*.py"), *(package / "envs").resolve().rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
            called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(names), path
            assert called not in ("eval", "exec", "compile"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert node.value.value is False, path


def test_a_number_that_is_none_is_null_in_files(tmp_path):
    result = {"welfare": float("nan"), "utility": [[float("inf"), 1.0]], "assignment": [0], "k": np.int32(2)}
    folder = RunFolder(tmp_path)
    folder.write_result(result)
    folder.append_metrics({"iteration": 1, "welfare": float("-inf")})
    text = (tmp_path / "result.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (strict["welfare"], strict["utility"], strict["k"]) == (None, [[None, 1.0]], 2)
    assert folder.read_metrics() == [{"iteration": 1, "welfare": None}]
