"""Outcomes of fresh episodes that a run keeps: the same numbers with and without, and the same numbers scored from them."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config
from test_evaluate_many import make_walk
from tiny import CONFIG, SIZES, K, N, assert_same, make_tiny

from rmdp_jax import ConfigError, RunSpec, Sizes, TrainConfig, make_evaluate, make_trainer, plain_em, random_even, train
from rmdp_jax import train_batch as train_together
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.evaluation.episodes import (
    KEPT_BYTES,
    bytes_per_episode,
    kept_episodes,
    outcome_like,
    score_episodes,
)
from rmdp_jax.records.loading import load_episodes, load_run
from rmdp_jax.running.memory import estimate_evaluation, kept_bytes
from rmdp_jax.trainer import policies_of

EPISODES = CONFIG.evaluation_episodes


def assert_alike(a, b):
    """The same episodes, up to the last digit, which is another program's."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(*make_tiny(), CONFIG, random_even(K, N), out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(run_dir):
    return load_run(run_dir, make)


def test_kept_episodes_score_the_own_agents_as_the_result_says(run):
    kept = load_episodes(run)
    assert kept.episodes.alive.shape == (K, EPISODES, 40)
    assert (kept.iterations, kept.seed, kept.deterministic) == (20, CONFIG.seed + 1, False)
    assert run.result["episodes_kept"] == kept.episodes.number == EPISODES
    returns = jax.jit(lambda episodes, agents: score_episodes(run.population, episodes, agents).mean(1))
    utility = 100.0 * returns(kept.episodes, run.population.agents)
    np.testing.assert_allclose(utility, run.result["utility"], rtol=1e-6)
    lengths = np.asarray(kept.episodes.alive).sum(2).mean(1)
    np.testing.assert_allclose(lengths, run.result["episode_length"], atol=0.005)


def test_episodes_are_scored_one_by_one_as_rewards_say(run):
    """Agent 1 of a 2 x 2 grid is paid 1 - t/100 at the end of a walk that stood on cell 1: by hand, from the record."""
    kept = load_episodes(run).episodes
    pay, visited, alive = np.asarray(kept.outcome.pay), np.asarray(kept.outcome.visited), np.asarray(kept.alive)
    by_hand = np.zeros((K, EPISODES))
    for j in range(K):
        for e in range(EPISODES):
            last = alive[j, e].sum() - 1
            by_hand[j, e] = pay[j, e, last] * visited[j, e, last, 1]
    returns = score_episodes(run.population, kept, jnp.array([1, 3], jnp.int32))
    assert returns.shape == (K, EPISODES, 2)
    np.testing.assert_allclose(returns[:, :, 0], by_hand, rtol=1e-6)
    assert by_hand.max() > 0


def evaluation_of(task, config, keep):
    state = make_trainer(*task, config, plain_em(config.k, config.n)).init(jax.random.key(0))
    labels = jnp.arange(config.n, dtype=jnp.int32) % config.k
    return jax.jit(make_evaluate(*task, config, keep=keep))(policies_of(state), labels, jax.random.key(1))


@pytest.mark.parametrize("exact", [40, 8], ids=["scored at all steps", "at some"])
def test_keeping_changes_no_number(exact):
    sizes = Sizes(environments=2, unroll=2, minibatches=1, hidden=(4,), agents_exact=exact, utility_steps=5)
    task, config = make_walk(), TrainConfig(k=2, n=make_walk()[1].n, evaluation_episodes=6, sizes=sizes)
    without, all_six, two = (evaluation_of(task, config, keep) for keep in (0, 6, 2))
    assert without.episodes is None
    for kept in (all_six, two):
        assert_same(without, kept._replace(episodes=None))
    assert_same(two.episodes, jax.tree.map(lambda x: x[:, :2], all_six.episodes))
    steps = np.asarray(all_six.episodes.alive).sum(2)
    np.testing.assert_allclose(steps.mean(1), np.asarray(without.episode_length), rtol=1e-6)


def test_steps_that_diverged_pay_nothing():
    kept = evaluation_of(make_probe(PROBES["constant"], 2), probe_config(1, 2, 1), 3).episodes
    population = make_probe(PROBES["constant"], 2)[1]
    sound = score_episodes(population, kept, population.agents)
    assert np.asarray(sound).max() > 0
    broken = kept._replace(diverged=jnp.ones_like(kept.diverged))
    assert not np.asarray(score_episodes(population, broken, population.agents)).any()
    ended = kept._replace(alive=jnp.zeros_like(kept.alive))
    assert not np.asarray(score_episodes(population, ended, population.agents)).any()


def test_not_more_is_kept_than_fits(monkeypatch):
    env, _ = make_tiny()
    one = K * 40 * (4 + 4 + 2)  # visited, pay, and two flags
    assert bytes_per_episode(env, CONFIG) == one
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(outcome_like(env))) == 8
    assert kept_episodes(env, CONFIG, EPISODES) == EPISODES
    assert kept_episodes(env, CONFIG, 10**6) == KEPT_BYTES // one
    monkeypatch.setattr("rmdp_jax.evaluation.episodes.KEPT_BYTES", 3 * one + 1)
    assert kept_episodes(env, CONFIG, EPISODES) == 3
    assert kept_bytes(env, CONFIG, EPISODES) == 3 * one
    more = [estimate_evaluation(100, env.spec, CONFIG, EPISODES, kept) for kept in (0, 3 * one)]
    assert more[1] - more[0] == 6 * one
    result = train(*make_tiny(), CONFIG, random_even(K, N), progress=False)
    assert result.summary["episodes_kept"] == result.evaluation.episodes.number == 3
    monkeypatch.setattr("rmdp_jax.evaluation.episodes.KEPT_BYTES", one - 1)
    nothing = train(*make_tiny(), CONFIG, random_even(K, N), progress=False)
    assert (nothing.summary["episodes_kept"], nothing.evaluation.episodes) == (0, None)
    assert nothing.summary["welfare"] == result.summary["welfare"]


@pytest.mark.slow
def test_runs_that_are_trained_together_keep_their_own(run, tmp_path):
    env, population = make_tiny()
    runs = [
        RunSpec(population, replace(CONFIG, seed=seed), random_even(K, N), tmp_path / str(seed)) for seed in (CONFIG.seed, 9)
    ]
    train_together(env, runs, progress=False)
    first, second = (load_episodes(load_run(tmp_path / str(seed), make)) for seed in (CONFIG.seed, 9))
    assert_alike(first.episodes, load_episodes(run).episodes)
    assert (first.seed, second.seed) == (CONFIG.seed + 1, 10)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(first.episodes), jax.tree.leaves(second.episodes), strict=True))


def flip(path, share):
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 4
    path.write_bytes(data)


def rewrite(path, **changes):
    arrays = dict(np.load(path))
    np.savez(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})


DAMAGE = {
    "missing": (lambda path: path.unlink(), "is not there, as of older runs"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("alive"), "cannot be read"),
    "a bit": (lambda path: flip(path, 0.3), "cannot be read"),
    "no flags": (lambda path: rewrite(path, alive=None), "cannot be read .*alive"),
    "other flags": (lambda path: rewrite(path, alive=np.ones((K, 0, 40), bool)), r"its flags are not \(k, e, L\) bool"),
    "no outcome": (lambda path: rewrite(path, **{"outcome.pay": None}), r"cannot be read .*outcome\.pay"),
    "other outcome": (
        lambda path: rewrite(path, **{"outcome.pay": np.zeros((K, EPISODES, 39), np.float32)}),
        r"outcome\.pay is float32 \(2, 8, 39\), not float32 \(2, 8, 40\)",
    ),
    "pickled": (lambda path: rewrite(path, **{"outcome.pay": np.array([{}], object)}), "cannot be read .*pickle"),
    "newer": (lambda path: rewrite(path, format=np.asarray(2)), "it has format 2, this version reads 1"),
    "older": (lambda path: rewrite(path, iterations=np.asarray(15)), "is of iteration 15, the result of the run of 20"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_or_missing_is_told_with_the_way_out(run_dir, run, tmp_path, kind):
    damage, message = DAMAGE[kind]
    shutil.copytree(run_dir, tmp_path / "run")
    damage(tmp_path / "run" / "episodes.npz")
    copy = run._replace(folder=replace(run.folder, path=tmp_path / "run"))
    with pytest.raises(ConfigError, match=rf"episodes\.npz: .*{message}.*; make it by: rmdp-jax evaluate .*run --keep$"):
        load_episodes(copy)


def test_evaluate_keeps_episodes_for_older_runs(run_dir, run, tmp_path, capsys):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "run" / "episodes.npz").unlink()
    seed, number = str(CONFIG.seed + 1), str(EPISODES)
    main(["evaluate", str(tmp_path / "run"), "--keep", "--seed", seed, "--episodes", number])
    assert "8 episodes of each policy kept" in " ".join(capsys.readouterr().out.split())
    again = load_episodes(load_run(tmp_path / "run", make))
    assert_alike(again.episodes, load_episodes(run).episodes)
    assert again.iterations == 20
    main(["evaluate", str(tmp_path / "run"), "--keep", "--episodes", "11", "--deterministic"])
    more = load_episodes(load_run(tmp_path / "run", make))
    assert (more.episodes.number, more.deterministic, more.seed) == (11, True, 0)


def test_a_full_disk_leaves_neither_half_a_file_nor_a_result_without_it(tmp_path, monkeypatch):
    def full(path, **arrays):
        if "episodes" in path.name:
            path.write_bytes(b"PK")
            raise OSError(28, "No space left on device")
        return original(path, **arrays)

    original = np.savez_compressed
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(ConfigError, match=r"episodes\.npz: cannot be written \(No space left on device\)"):
            train(*make_tiny(), CONFIG, random_even(K, N), out=tmp_path, progress=False)
    assert not {"episodes.npz", "episodes.part.npz", "result.json"} & {path.name for path in tmp_path.iterdir()}
    train(*make_tiny(), CONFIG, random_even(K, N), out=tmp_path, progress=False, resume=True)
    assert load_episodes(load_run(tmp_path, make)).episodes.number == EPISODES


def test_small_sizes_are_those_of_this_test():
    assert SIZES.agents_exact >= N  # so that the result's utility is exact
