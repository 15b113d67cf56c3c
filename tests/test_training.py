import json
import shutil
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, ITERATIONS, SIZES, K, N, assert_same, leaves, make_tiny, stop_at, timeless

from rmdp_jax import ConfigError, Rates, RunSpec, em, end_to_end, evaluate, fixed, make_trainer, random_even, train, train_batch
from rmdp_jax.envs import make
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run

RESULT = {
    *("env", "algorithm", "k", "n", "seed", "backend", "transitions_per_policy", "welfare", "upper_bound", "assignment"),
    *("policy_sizes", "utility", "wall_s", "compile_s", "transitions_per_s", "device", "versions"),
}
LINE = {
    *("iteration", "transitions_per_policy", "wall_s", "transitions_per_s", "welfare", "flips", "policy_sizes"),
    *("policy_utility", "policy_loss", "value_loss", "entropy", "kl", "episodes", "diverged"),
}


def run(**options):
    return train(*make_tiny(), CONFIG, em(K, N, anneal=3), **{"progress": False, **options})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run straight through, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    heard = []
    return run(out=folder, on_metrics=heard.append), RunFolder(folder), heard


def test_result(written):
    result, folder, _ = written
    kept = folder.read_result()
    assert set(kept) >= RESULT
    assert json.loads(json.dumps(result.summary)) == {name: value for name, value in kept.items() if name != "format"}
    assert (kept["env"], kept["algorithm"], kept["backend"]) == ("resource_gathering", "em", "jax")
    assert (kept["k"], kept["n"], kept["seed"]) == (K, N, 3)
    assert kept["finished"] is True
    assert kept["transitions_per_policy"] == ITERATIONS * SIZES.transitions
    assert kept["upper_bound"] is None  # only the 5x5 grid has one
    utility, labels = np.array(kept["utility"]), np.array(kept["assignment"])
    assert utility.shape == (K, N)
    assert utility[labels, np.arange(N)].mean() == pytest.approx(kept["welfare"], abs=1e-3)
    assert 0 < kept["welfare"] <= 99
    assert kept["policy_sizes"] == np.bincount(labels, minlength=K).tolist()
    assert min(kept["policy_sizes"]) >= 1
    assert kept["softness"] == 0
    assert kept["runs_together"] == 1
    assert kept["transitions_per_s"] == pytest.approx(K * ITERATIONS * SIZES.transitions / kept["wall_s"], rel=0.2)
    assert kept["device"].startswith("cpu")
    assert {"jax", "python", "rmdp-jax", "gymnasium"} <= set(kept["versions"])  # the last where it is installed, as here
    np.testing.assert_array_equal(result.assignment, labels)
    assert result.evaluation.utility.shape == (K, N)


def test_config_and_metrics(written):
    result, folder, heard = written
    config = folder.read_config()
    assert (config["env"], config["env_options"]) == ("resource_gathering", {"seed": 0, "size": 2, "n": 4})
    assert config["train"]["sizes"]["environments"] == SIZES.environments
    lines = folder.read_metrics()
    assert [line["iteration"] for line in lines] == [5, 10, 15, 20]
    assert lines == result.metrics == heard
    for line in lines:
        assert set(line) >= LINE
        assert sum(line["policy_sizes"]) == N
        assert line["transitions_per_policy"] == line["iteration"] * SIZES.transitions
        assert all(len(line[name]) == K for name in ("policy_utility", "entropy", "kl", "episodes", "diverged"))
        assert line["diverged"] == [0, 0]
        assert min(line["episodes"]) > 0
    names = {".lock", "agents.npz", "checkpoints", "config.json", "episodes.npz", "metrics.jsonl", "result.json"}
    assert {path.name for path in folder.path.iterdir()} == names


def test_the_same_seed_gives_the_same_and_nothing_is_written_unasked(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = run(out=None)
    assert list(tmp_path.iterdir()) == []
    assert timeless(again.summary) == timeless(written[0].summary)
    assert list(map(timeless, again.metrics)) == list(map(timeless, written[0].metrics))
    assert_same(again.state, written[0].state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_cleanly_and_goes_on_bit_for_bit(written, tmp_path, number):
    before = signal.getsignal(number)
    stopped = run(out=tmp_path, on_metrics=stop_at(10, number))
    assert signal.getsignal(number) is before
    kept = RunFolder(tmp_path).read_result()
    assert kept["finished"] is False
    assert kept["iterations"] == 10
    assert [line["iteration"] for line in stopped.metrics] == [5, 10]
    utility = np.array(kept["utility"])
    assert utility[kept["assignment"], np.arange(N)].mean() == pytest.approx(kept["welfare"], abs=1e-3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 15, "welfare": -1.0}) + '\n{"iteration": 20, "wel')  # killed after the checkpoint

    resumed = run(out=tmp_path, resume=True)
    assert_same(resumed.state, written[0].state)
    assert timeless(resumed.summary) == timeless(written[0].summary)
    assert list(map(timeless, resumed.metrics)) == list(map(timeless, written[0].metrics))
    assert RunFolder(tmp_path).read_metrics() == resumed.metrics
    assert RunFolder(tmp_path).read_result()["finished"] is True


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [None, 2])
def test_a_stopped_run_is_judged_by_whom_the_assigner_names(written, tmp_path, seeds):
    assigner = em(K, N, anneal=3)
    named = [
        assigner.archive_size - 1,
        0 - K,
    ]  # the first self of policy 1, archived at iteration 1, and policy 0 as it is

    def conclude(state, inputs):
        return jnp.array([1, 0, 0, 1]), K + jnp.array(named, jnp.int32)

    def go(**options):
        end = assigner._replace(conclude=conclude)
        return train(*make_tiny(), CONFIG, end, out=tmp_path, seeds=seeds, progress=False, **options)

    stop = stop_at(10)
    results = go(on_metrics=lambda line: stop(line) if line.get("seed", CONFIG.seed) == CONFIG.seed else None)
    for folder, result in (
        [(tmp_path, results)] if seeds is None else zip(sorted(tmp_path.glob("seed-*")), results, strict=True)
    ):
        assert result.assignment.tolist() == result.summary["assignment"] == [1, 0, 0, 1]
        assert result.summary["policies_from"] == [K + row for row in named]
        run = load_run(folder, make)
        assert_same(run.policies.params.own, result.policies.params.own)
        for now, stored, judged in zip(*map(jax.tree.leaves, _own(result)), strict=True):
            np.testing.assert_array_equal(judged, np.stack([stored[-1], now[0]]))
        fresh = evaluate(run.env, run.population, run.config, run.policies, run.assignment, seed=CONFIG.seed + 1)
        if seeds is None:
            np.testing.assert_array_equal(fresh.utility, result.evaluation.utility)
    if seeds is None:
        resumed = go(resume=True)
        assert_same(resumed.state, written[0].state)
        assert "policies_from" not in resumed.summary


def _own(result):
    return result.state.learner.params.own, result.state.archive.params, result.policies.params.own


@pytest.fixture
def no_compilation(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was compiled")

    monkeypatch.setattr("jax.jit", refuse)


@pytest.mark.usefixtures("no_compilation")
def test_a_folder_that_holds_a_run_is_refused(written):
    with pytest.raises(ConfigError, match="already holds a run; choose another folder, or --resume"):
        run(out=written[1].path)


@pytest.mark.usefixtures("no_compilation")
def test_another_run_is_not_resumed(written, tmp_path):
    env, population = make_tiny()
    options = {"out": written[1].path, "resume": True, "progress": False}
    with pytest.raises(ConfigError, match=r"resume: seed \(3 there, 4 here\) differ"):
        train(env, population, replace(CONFIG, seed=4), em(K, N, anneal=3), **options)
    with pytest.raises(ConfigError, match=r"resume: algorithm \(em there, random here\) differ"):
        train(env, population, CONFIG, random_even(K, N), **options)
    with pytest.raises(ConfigError, match=r"resume: anneal \(3 there, 4 here\) differ"):
        train(env, population, CONFIG, em(K, N, anneal=4), **options)
    with pytest.raises(ConfigError, match=r"resume: epochs \(2 there, 3 here\) differ"):
        train(env, population, replace(CONFIG, sizes=replace(SIZES, epochs=3)), em(K, N, anneal=3), **options)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match=r"holds no config\.json beside its metrics\.jsonl"):
        run(out=tmp_path, resume=True)


@pytest.mark.usefixtures("no_compilation")
def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written .*choose another folder"):
        run(out=tmp_path / "file" / "run")


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_anew(written, tmp_path):
    run(out=tmp_path, on_metrics=stop_at(5))
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "result.json").unlink()
    resumed = run(out=tmp_path, resume=True)
    assert timeless(resumed.summary) == timeless(written[0].summary)
    assert [line["iteration"] for line in RunFolder(tmp_path).read_metrics()] == [5, 10, 15, 20]


def test_resuming_a_finished_run_keeps_how_long_it_took(tmp_path):
    first = run(out=tmp_path).summary
    again = run(out=tmp_path, resume=True).summary
    assert [again[name] for name in ("wall_s", "compile_s", "transitions_per_s")] == [
        first[name] for name in ("wall_s", "compile_s", "transitions_per_s")
    ]


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        ended = run(on_metrics=stop_at(5, signal.SIGHUP))
        assert ended.summary["finished"] is True
    finally:
        signal.signal(signal.SIGHUP, before)


def test_softness_is_the_entropy_of_the_last_weights():
    result = train(*make_tiny(), replace(CONFIG, transitions=2 * SIZES.transitions), end_to_end(K, N), progress=False)
    weights = np.asarray(jax.nn.softmax(result.state.assignment.logits, axis=0), float)
    assert weights.shape == (K, N)
    assert result.summary["softness"] == pytest.approx(-(weights * np.log(weights)).sum(0).mean(), abs=1e-4)


def assert_close(result, alone):
    """Actions, episodes and labels are the same; what is summed in another order differs in the last digits."""
    for a, b in zip(leaves(result.state), leaves(alone.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(result.assignment, alone.assignment)
    assert result.summary["welfare"] == pytest.approx(alone.summary["welfare"], abs=1e-2)
    assert [line["flips"] for line in result.metrics] == [line["flips"] for line in alone.metrics]


@pytest.mark.slow
def test_runs_in_one_program_learn_what_they_learn_alone(written):
    env, population = make_tiny()
    alike = population._replace(agents=jnp.zeros(N, jnp.int32))  # all want the first cell
    assigner = em(K, N, anneal=3)
    entries = [
        RunSpec(population, CONFIG, assigner),
        RunSpec(alike, replace(CONFIG, seed=4), assigner),
        RunSpec(population, replace(CONFIG, rates=Rates(learning_rate=(1e-12, 1e-12))), assigner),
    ]
    first, same_wishes, still = train_batch(env, entries, progress=False)
    assert_close(first, written[0])

    utility = np.asarray(same_wishes.evaluation.utility)
    np.testing.assert_array_equal(utility, np.broadcast_to(utility[:, :1], (K, N)))
    assert np.ptp(np.asarray(first.evaluation.utility), axis=1).min() > 1
    assert same_wishes.summary["seed"] == 4

    begun = make_trainer(env, population, CONFIG, assigner).init(jax.random.key(3)).learner.params
    alike = jax.tree.map(lambda first: np.broadcast_to(first[:1], first.shape), begun)  # since they explored as one
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), still.policies.params, alike)

    assert {result.summary["runs_together"] for result in (first, same_wishes, still)} == {3}
    speed = 3 * K * ITERATIONS * SIZES.transitions / first.summary["wall_s"]
    assert first.summary["transitions_per_s"] == pytest.approx(speed, rel=0.2)


@pytest.mark.slow
def test_every_run_begins_with_the_labels_of_its_own_assigner():
    env, population = make_tiny()
    groups = ([1, 1, 1, 0], [0, 1, 0, 1])
    config = replace(CONFIG, transitions=SIZES.transitions)
    entries = [RunSpec(population, config, fixed(K, N, np.array(labels))) for labels in groups]
    results = train_batch(env, entries, progress=False)
    assert [result.summary["assignment"] for result in results] == list(groups)


@pytest.mark.slow
def test_seeds_stop_and_go_on_together(written, tmp_path):
    heard = []

    def listen(line):
        heard.append((line["seed"], line["iteration"]))
        if heard[-1] == (3, 10):
            stop_at(10)(line)

    options = {"assigner": em(K, N, anneal=3), "seeds": 2, "out": tmp_path, "progress": False}
    stopped = train(*make_tiny(), CONFIG, on_metrics=listen, **options)
    assert heard == [(3, 5), (4, 5), (3, 10), (4, 10)]
    assert [result.summary["finished"] for result in stopped] == [False, False]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seed-3", "seed-4"]

    resumed = train(*make_tiny(), CONFIG, resume=True, **options)
    assert_close(resumed[0], written[0])
    for seed, result in zip((3, 4), resumed, strict=True):
        folder = RunFolder(tmp_path / f"seed-{seed}")
        assert folder.read_result() == {"format": 1, **result.summary}
        assert folder.read_config()["train"]["seed"] == seed
        assert [line["iteration"] for line in folder.read_metrics()] == [5, 10, 15, 20]

    shutil.rmtree(tmp_path / "seed-4" / "checkpoints")
    with pytest.raises(ConfigError, match=r"seed-4/checkpoints holds no checkpoint, though the run came to iteration 20"):
        train(*make_tiny(), CONFIG, resume=True, **options)


@pytest.mark.usefixtures("no_compilation")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(CONFIG, transitions=64)}, "config = .*transitions=64.*train them apart"),
        ({"config": replace(CONFIG, rates=Rates(discount=0.9))}, "rates = "),
        ({"assigner": random_even(K, N)}, r"algorithm = \('random', 2, 4, 0\): .* has \('em', 2, 4, 0\)"),
        ({"assigner": em(K, N, relocate_every=7)}, r"algorithm options = .*'relocate_every': 7, .* train them apart"),
        ({"population": make_tiny()[1]._replace(reward=lambda agent, outcome: outcome.pay)}, "reward = .* train them apart"),
        ({"out": "here"}, "out: two of the runs would write to the same folder"),
    ],
)
def test_runs_that_differ_are_not_trained_together(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    env, population = make_tiny()
    entry = RunSpec(population, CONFIG, em(K, N), "here")
    with pytest.raises(ConfigError, match=message):
        train_batch(env, [entry, entry._replace(**{"out": "there", **change})], progress=False)
    assert list(tmp_path.iterdir()) == []
