"""Policies that a run is given: frozen ones stay bit for bit, agents choose them, and their folders are not needed again."""

import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config
from tiny import CONFIG, assert_same, make_tiny, stop_at

from rmdp_jax import (
    ConfigError,
    Copies,
    RunSpec,
    Sizes,
    em,
    end_to_end,
    fixed,
    make_trainer,
    plain_em,
    random_even,
    train,
)
from rmdp_jax.assigners.base import Given
from rmdp_jax.commands.cli import main
from rmdp_jax.commands.tables import print_summary
from rmdp_jax.commands.train import read_policies, settings_of
from rmdp_jax.records.checkpoint import saved_steps
from rmdp_jax.records.files import RunWarning
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.given import checksums, load_members
from rmdp_jax.records.lines import describe_run
from rmdp_jax.records.people import write_people
from rmdp_jax.records.spec import GivenPolicies, Source
from rmdp_jax.state import members_of

pytestmark = pytest.mark.slow

N, ITERATIONS = 4, 200
WISHES = np.array([0, 0, 1, 1])
TASK = make_probe(PROBES["both"], N)  # agents 0 and 1 have one wish, 2 and 3 the other; each policy can grant one


def config_of(k, **changes):
    return replace(probe_config(k, N, ITERATIONS, normalize_observations=True), log_every=20, evaluation_episodes=16, **changes)


def learn(k, assigner, **options):
    return train(*TASK, config_of(k), assigner, progress=False, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folder and result of a run whose policy j grants wish j."""
    folder = tmp_path_factory.mktemp("source") / "run"
    return folder, learn(2, fixed(2, N, WISHES), out=folder)


@pytest.fixture(scope="module")
def beside(source, tmp_path_factory):
    """Folder and result of a run beside the policy that grants wish 1."""
    folder = tmp_path_factory.mktemp("beside") / "run"
    return folder, learn(2, plain_em(2, N, warmup=10), out=folder, frozen=[(source[0], 1)])


def member(result, j):
    """All state of a policy but its utilities, which are of the run."""
    return jax.tree.map(lambda x: np.asarray(x)[j], members_of(result.state)._replace(utilities=()))


def test_agents_choose_the_frozen_policy_and_the_other_learns_for_the_rest(source, beside):
    result = beside[1]
    np.testing.assert_array_equal(result.assignment, [1, 1, 0, 0])
    assert result.evaluation.welfare > 90  # of 100: who wishes 1 is served by the frozen policy, who wishes 0 by the new one
    assert_same(member(result, 0), member(source[1], 1))


@pytest.mark.parametrize(
    ("assigner", "start"), [(em(3, N), [0]), (end_to_end(3, N), [])], ids=lambda value: getattr(value, "name", None)
)
def test_frozen_policies_stay_bit_for_bit_and_others_learn(source, assigner, start):
    folder, before = source
    result = learn(3, assigner, frozen=[(folder, 1)], start=[(folder, j) for j in start])
    assert_same(member(result, 0), member(before, 1))
    for policy in start:  # begun as they were, they went on
        assert int(optax_count(member(result, 1))) > int(optax_count(member(before, policy)))
    assert result.evaluation.utility[0, 2:].min() > 90
    assert result.evaluation.welfare > 90
    assert np.asarray(result.state.utilities.steps)[0] > 0  # it acted, and was measured
    assert [line["kl"][0] for line in result.metrics] == [0.0] * len(result.metrics)


def test_no_assigner_can_make_a_frozen_policy_a_copy():
    env, population = make_tiny()
    copier = fixed(3, N, np.arange(N) % 3)._replace(
        takes_given=True,
        reassign=lambda key, labels, inputs: (labels, Copies(jnp.full(3, 2, jnp.int32))),
        conclude=lambda labels, inputs: (labels, jnp.full(3, 2, jnp.int32)),
    )
    trainer = make_trainer(env, population, replace(CONFIG, k=3), copier, Given(frozen=1, number=1))
    before = trainer.init(jax.random.key(0))
    after, _ = jax.jit(trainer.step)(before)
    first, second, third = (jax.tree.map(lambda x, j=j: x[j], after.learner.params.own) for j in range(3))
    assert_same(first, jax.tree.map(lambda x: x[0], before.learner.params.own))
    assert_same(second, third)
    assert trainer.conclude(after).sources.tolist() == [0, 2, 2]


def optax_count(of):
    return next(leaf for path, leaf in jax.tree_util.tree_leaves_with_path(of.opt_state) if "count" in str(path))


def test_config_and_result_prove_it(source, beside):
    folder, result = beside
    recorded, ended = RunFolder(folder).read_config()["frozen"], RunFolder(folder).read_result()["frozen"]
    assert recorded == ended == result.summary["frozen"]
    assert recorded == [{"run": str(source[0]), "policy": 1, "sha256": checksums(source[1].policies)[1]}]
    assert len({*checksums(source[1].policies), *checksums(result.policies)}) == 3  # frozen is the same as one, others differ


def test_a_resumed_run_is_bit_for_bit_and_needs_no_source(source, beside, tmp_path):
    moved, folder, seen = tmp_path / "moved", tmp_path / "run", []
    shutil.copytree(source[0], moved)

    def stop(line):
        seen.append(saved_steps(folder / "checkpoints"))
        stop_at(100)(line)

    of_moved = {"out": folder, "frozen": [(moved, 1)]}
    learn(2, plain_em(2, N, warmup=10), **of_moved, on_metrics=stop)
    assert seen[0] == [0]  # from the first line on
    shutil.rmtree(moved)
    with pytest.raises(ConfigError, match=r"resume: frozen .*:0 are others than .* frozen .*moved:1"):
        learn(2, plain_em(2, N, warmup=10), out=folder, frozen=[(moved, 0)], resume=True)
    resumed = learn(2, plain_em(2, N, warmup=10), **of_moved, resume=True)
    assert resumed.summary["finished"]
    assert_same(resumed.state, beside[1].state)
    assert [of["sha256"] for of in resumed.summary["frozen"]] == [of["sha256"] for of in beside[1].summary["frozen"]]


def test_seeds_in_one_program_and_the_same_episodes_as_where_it_comes_from(source):
    folder, before = source
    for result in learn(2, plain_em(2, N, warmup=10), seeds=2, frozen=[(folder, 0)]):
        assert_same(member(result, 0), member(before, 0))
        np.testing.assert_array_equal(np.asarray(result.assignment)[:2], [0, 0])
        if result.summary["seed"] == before.summary["seed"]:
            np.testing.assert_array_equal(result.evaluation.utility[0], before.evaluation.utility[0])


BAD = {
    "one pair": ({"frozen": ["run"]}, r"frozen = 'run': must be pairs of the folder of a run and a policy"),
    "no policy": ({"frozen": [("SOURCE", 2)]}, r"SOURCE:2: must be one of 0\.\.1, as that run has k = 2 policies"),
    "negative": ({"frozen": [("SOURCE", -1)]}, r"policy = -1: must be a whole number from 0 up"),
    "twice": (
        {"frozen": [("SOURCE", 1)], "start": [("SOURCE/../run", 1)], "k": 3},
        r"frozen, start = SOURCE:1: is named twice",
    ),
    "none left": ({"frozen": [("SOURCE", 0), ("SOURCE", 1)]}, r"k = 2: must be above 2, as it counts the policies"),
    "no run": ({"frozen": [("SOURCE/nothing", 0)]}, r"nothing: holds no config.json, so it is not the folder of a finished"),
    "hidden": ({"sizes": {"hidden": (8,)}}, r"hidden = \(16,\) there, \(8,\) here: must be the same; give what that run has"),
    "normalisation": ({"sizes": {"normalize_observations": False}}, r"normalize_observations = True there, False here"),
    "critic": ({"sizes": {"critic": "per_agent"}}, r"critic = 'mixed' there, 'per_agent' here"),
    "shared": ({"sizes": {"trunk": "shared"}}, r"trunk = 'shared': must be 'separate' where policies are given"),
    "env": ({"task": make_tiny()}, r"env = 'probe' there, 'resource_gathering' here: must be the same"),
    "algorithm": ({"assigner": random_even(2, N)}, r"algorithm = 'random': must be em, plain_em or end_to_end where policies"),
}


def refused(source, k=2, task=TASK, sizes=None, assigner=None, **named):
    config = config_of(k)
    config = replace(config, sizes=Sizes(**{**vars(config.sizes), **(sizes or {})}))
    named = {"frozen": [("SOURCE", 0)], **named}
    place = {
        name: [(str(of[0]).replace("SOURCE", str(source)), of[1]) if isinstance(of, tuple) else of for of in policies]
        for name, policies in named.items()
    }
    with pytest.raises(ConfigError) as error:
        train(*task, config, assigner or plain_em(k, N), progress=False, **place)
    return str(error.value).replace(str(source), "SOURCE")


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("it was compiled")

    monkeypatch.setattr("rmdp_jax.running.train.learn", refuse)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_given_is_told_in_a_line(source, name):
    changes, message = BAD[name]
    line = refused(source[0], **changes)
    assert len(line.splitlines()) == 1
    assert re.search(message, line), line


@pytest.mark.usefixtures("no_training")
def test_damaged_and_unfinished_runs_are_refused(source, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(source[0], folder)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "finished": False}))
    assert "is not finished; end it with `rmdp-jax train SOURCE --resume`" in refused(folder)
    (folder / "result.json").write_text(json.dumps(result))
    damaged = max((folder / "checkpoints" / str(ITERATIONS)).rglob("*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.warns(RunWarning, match="is not what was written; the older checkpoint"):
        assert "SOURCE:0: the checkpoint of its result is lost or damaged; bring it back" in refused(folder)
    shutil.rmtree(folder / "checkpoints")
    assert "holds no checkpoint, so the policies are lost" in refused(folder)


def test_a_policy_that_changed_since_is_noticed(source):
    given = GivenPolicies((Source(str(source[0]), 0, checksums(source[1].policies)[1]),))
    with pytest.raises(ConfigError, match="run:0: is another policy than when this run was begun"):
        load_members(TASK[0], config_of(2), given)


@pytest.fixture
def described(tmp_path):
    """The folder of a run as far as `extend` reads it."""
    env, population = make_tiny()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config(describe_run(env, RunSpec(population, CONFIG, plain_em(2, N))))
    write_people(folder.people, env, population)
    return folder.path


@pytest.fixture
def trained(monkeypatch):
    """What `train` was called with."""
    calls = []

    def record(env, population, config, assigner, **options):
        calls.append((env, config, assigner, options))
        raise KeyboardInterrupt("stopped here")

    monkeypatch.setattr("rmdp_jax.running.train.train", record)
    return calls


def test_extend_gives_all_policies_of_a_run_and_its_settings(described, trained, monkeypatch):
    monkeypatch.setattr("rmdp_jax.records.given.given_policies", lambda *of: None)  # it looks at the whole run
    for words in ([], ["--keep-learning", "--transitions", "1e3", "--out", str(described / "new")]):
        with pytest.raises(SystemExit):
            main(["extend", str(described), "--k", "3", "--quiet", *words])
    (env, config, assigner, first), (_, shorter, _, second) = trained
    policies = [(str(described), 0), (str(described), 1)]
    assert (first["frozen"], first["start"], first["out"]) == (policies, [], described.with_name("run-k3"))
    assert (second["frozen"], second["start"], second["out"]) == ([], policies, described / "new")
    monkeypatch.chdir(described)
    with pytest.raises(SystemExit):
        main(["extend", ".", "--k", "3", "--quiet", "--at-most", "9"])
    *_, (_, limited, _, here) = trained
    assert (here["out"], limited.at_most) == (described.with_name("run-k3"), (9.0,))
    assert config == replace(CONFIG, k=3)
    assert shorter == replace(CONFIG, k=3, transitions=1000)
    assert (env.spec.name, assigner.name, assigner.k) == ("resource_gathering", "plain_em", 3)


@pytest.mark.parametrize("algorithm", ["single", "individual"])
def test_a_run_that_says_its_k_is_extended_by_em(described, trained, monkeypatch, algorithm):
    monkeypatch.setattr("rmdp_jax.records.given.given_policies", lambda *of: None)
    folder = RunFolder(described)
    config = folder.read_config()
    folder.write_config({**config, "algorithm": algorithm, "train": {**config["train"], "k": 1}})
    with pytest.raises(SystemExit):
        main(["extend", str(described), "--k", "3", "--quiet"])
    ((_, config, assigner, options),) = trained
    assert (assigner.name, config.k, options["frozen"]) == ("em", 3, [(str(described), 0)])


def test_what_extend_is_not_told_again_is_as_it_was(described, trained, monkeypatch, tmp_path):
    monkeypatch.setattr("rmdp_jax.records.given.given_policies", lambda *of: None)
    monkeypatch.chdir(tmp_path)
    out = RunFolder(tmp_path / "more")
    out.path.mkdir()
    shorter = replace(CONFIG, k=3, transitions=320, at_most=(3.0,))
    frozen = [{"run": "run", "policy": j, "sha256": "0"} for j in (0, 1)]
    env, population = make_tiny()
    out.write_config({**describe_run(env, RunSpec(population, shorter, plain_em(3, N))), "frozen": frozen})
    with pytest.raises(SystemExit):
        main(["extend", str(described), "--k", "3", "--out", "more", "--quiet", "--resume"])
    ((_, config, _, options),) = trained
    assert (config, options["frozen"]) == (shorter, [("run", 0), ("run", 1)])


def test_a_folder_says_which_policies_it_was_given(described):
    config = RunFolder(described).read_config()
    RunFolder(described).write_config(
        {**config, "frozen": [{"run": f"runs/{run}", "policy": j, "sha256": "0"} for run, j in (("a", 2), ("a", 0), ("b", 1))]}
    )
    assert settings_of(described)["freeze"] == ("runs/a:2,0", "runs/b:1")
    assert read_policies("freeze", ("runs/a:2,0", "runs/b:1")) == [("runs/a", 2), ("runs/a", 0), ("runs/b", 1)]
    assert settings_of(described)["start_from"] == ()


def test_a_folder_says_whose_seed_drew_its_people(described):
    config = RunFolder(described).read_config()
    assert settings_of(described)["env_options"].people_seed == 0, "the run's own is another"
    RunFolder(described).write_config({**config, "env_options": {**config["env_options"], "seed": CONFIG.seed}})
    assert settings_of(described)["env_options"].people_seed is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze", "here"], "freeze = here: must be DIR:J,J, the folder of a run and numbers of its policies"),
        (["--freeze", "here:1,x"], "freeze = here:1,x: must be DIR:J,J"),
        (["--freeze", "here:0", "--algorithm", "cluster"], "algorithm = 'cluster': must be em, plain_em or end_to_end"),
        (["--start-from", "here:0,1", "--k", "2"], "k = 2: must be above 2"),
        (["--freeze", "here:0"], "run = here: holds no config.json, so it is not the folder of a finished run"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_bad_words_are_refused(words, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["train", "resource_gathering", "--out", str(tmp_path / "run"), *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_table_names_what_was_given(beside, capsys):
    summary = {**beside[1].summary, "frozen": [{"run": "runs/a", "policy": 2, "sha256": ""}]}
    print_summary(summary)
    print_summary({**summary, "frozen": [], "start": summary["frozen"]})
    printed = capsys.readouterr().out
    assert "runs/a:2 stay as they are" in printed
    assert "runs/a:2 were the start" in printed


def test_other_people_are_not_extended(described, capsys):
    env, population = make_tiny()
    write_people(RunFolder(described).people, env, population._replace(weights=np.ones(N, np.float32)))
    with pytest.raises(SystemExit):
        main(["extend", str(described), "--k", "3"])
    assert "weights: are there in" in capsys.readouterr().err
