import itertools
import json
from functools import cache
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmdp_jax.envs.resource_gathering import MOVES, cells_of_walk, make_resource_gathering
from rmdp_jax.envs.resource_gathering_tabular import _best_split, exact_optimum, group_values, planning_mdp, shortest_walks
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.tabular import best_restart, deterministic, discounted, solve, solve_restarts, tabular_mdp

SHAPES = [(6, 3, 6, 3), (4, 2, 5, 2), (5, 3, 4, 1), (2, 2, 3, 3), (1, 3, 2, 2)]  # s, a, n, k: a handful, each compiles once
DISCOUNTS = [0.0, 0.5, 0.9, 0.99]


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


def random_mdp(kind, seed, shape, discount):
    """Gaussian rewards, or one of the kinds that are full of ties."""
    s, a, n, _ = shape
    rng = np.random.default_rng(seed)
    transition, reward = rng.dirichlet(np.full(s, 0.3), (s, a)), rng.normal(size=(n, s, a))
    if kind == "whole":
        transition, reward = np.eye(s)[rng.integers(s, size=(s, a))], rng.integers(-1, 2, (n, s, a)).astype(float)
    if kind == "twins":
        reward = reward[rng.integers(min(2, n), size=n)]
    if kind == "sparse":
        reward = reward * (rng.random((n, s, a)) < 0.1)
    return tabular_mdp(transition, reward, rng.dirichlet(np.ones(s)), discount)


MDPS = st.tuples(st.sampled_from(["dense", "whole", "twins", "sparse"]), st.integers(0, 2**31), st.sampled_from(SHAPES))


def returns_of(mdp, policies):
    """Returns (p, n) of policies (p, s) by NumPy's linear solver."""
    transition, reward, start, discount = (np.asarray(leaf) for leaf in mdp)
    rows = np.arange(len(start))
    ahead, pay = discount * transition[rows, policies], reward[:, rows, policies].transpose(1, 2, 0)
    return start @ np.linalg.solve(np.eye(len(start)) - ahead, pay)


def all_policies(shape):
    return np.array(list(itertools.product(range(shape[1]), repeat=shape[0])))


@settings(max_examples=80)
@given(MDPS, st.sampled_from(DISCOUNTS))
def test_theorem_1(drawn, discount):
    kind, seed, shape = drawn
    k = shape[3]
    mdp = random_mdp(kind, seed, shape, discount)
    found = jax.tree.map(np.asarray, solve_restarts(discounted, mdp, k, jax.random.split(jax.random.key(seed), 4)))
    assert found.fixed.all()
    assert np.diff(found.welfare).min() >= -1e-12  # at no half step
    best_of_all = returns_of(mdp, all_policies(shape))
    for labels, policies, utility, welfare in zip(*found[:4], strict=True):
        assert set(labels) == set(range(k))
        np.testing.assert_allclose(utility, returns_of(mdp, policies), rtol=1e-9, atol=1e-9)
        served = utility[labels, np.arange(len(labels))]
        assert welfare[-1] == pytest.approx(served.mean(), abs=1e-12)
        assert (utility.max(0) <= served + 2e-9).all()  # no single reassignment improves
        for j in range(k):  # no single policy change improves
            assert best_of_all[:, labels == j].sum(1).max() <= served[labels == j].sum() + 2e-9


@settings(max_examples=40)
@given(MDPS, st.sampled_from(DISCOUNTS))
def test_m_step_is_the_best_of_all_policies_for_soft_weights(drawn, discount):
    kind, seed, shape = drawn
    mdp = random_mdp(kind, seed, shape, discount)
    weights = np.random.default_rng(seed).dirichlet(np.ones(shape[2]))
    policy = improve(mdp, weights)
    assert returns_of(mdp, np.asarray(policy)[None])[0] @ weights == pytest.approx(
        (returns_of(mdp, all_policies(shape)) @ weights).max(), abs=1e-9
    )


@jax.jit
def improve(mdp, weights):
    return discounted(mdp).improve(weights)


def bandit(discount=0.5):
    """One state; agent i is paid 1 for action i, the last agent 0.4 for each."""
    return tabular_mdp(np.ones((1, 3, 1)), np.array([[[1.0, 0, 0]], [[0, 1.0, 0]], [[0.4, 0.4, 0.4]]]), np.ones(1), discount)


@pytest.mark.parametrize(("k", "welfare"), [(1, 2 * 1.4 / 3), (3, 2 * 2.4 / 3)])
def test_bandit_by_hand(k, welfare):
    found = solve_restarts(discounted, bandit(), k, jax.random.split(jax.random.key(0), 8))
    assert best_restart(found).welfare[-1] == pytest.approx(welfare, abs=1e-12)


def test_a_batch_of_mdps_equals_them_one_by_one():
    keys = jax.random.split(jax.random.key(1), 4)
    mdps = [random_mdp("dense", seed, SHAPES[1], discount) for seed, discount in enumerate([0.0, 0.5, 0.99])]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mdps)
    together = jax.vmap(lambda mdp: solve_restarts(discounted, mdp, 2, jax.random.clone(keys)))(batch)
    for index, mdp in enumerate(mdps):
        alone = solve_restarts(discounted, mdp, 2, jax.random.clone(keys))
        np.testing.assert_array_equal(alone.labels, together.labels[index])
        np.testing.assert_allclose(alone.welfare, together.welfare[index], rtol=1e-12)


def test_a_limit_too_small_is_told():
    keys = jax.random.split(jax.random.key(0), 16)
    found = solve_restarts(discounted, random_mdp("dense", 3, SHAPES[0], 0.9), 3, keys, limit=1)
    assert not found.fixed.all()
    assert (found.half_steps == 2).all()


def test_float32_agrees():
    key, shape = jax.random.split(jax.random.key(5), 4), SHAPES[1]
    exact = solve_restarts(discounted, random_mdp("dense", 9, shape, 0.9), 2, jax.random.clone(key))
    with jax.enable_x64(False):
        rough = solve_restarts(discounted, random_mdp("dense", 9, shape, 0.9), 2, key, tolerance=1e-4)
    assert rough.welfare.dtype == jnp.float32
    np.testing.assert_allclose(rough.welfare[:, -1], exact.welfare[:, -1], rtol=1e-4)


P, R, START = np.full((2, 3, 2), 0.5), np.zeros((4, 2, 3)), np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((P, R, START, 1.0), "discount = 1.0"),
        ((P * 2, R, START, 0.9), "transition"),
        ((P, R, np.array([2.0, -1.0]), 0.9), "start"),
        ((P, R[0], START, 0.9), "reward"),
        ((P, R + np.nan, START, 0.9), "finite"),
    ],
)
def test_wrong_mdps_are_refused(arguments, named):
    with pytest.raises(ConfigError, match=named):
        tabular_mdp(*arguments)
    with pytest.raises(ConfigError, match="k = 4"):
        solve(discounted(bandit()), 4, jax.random.key(0))


@pytest.mark.parametrize(("size", "length"), [(2, 5), (3, None)])
def test_the_table_is_the_env(size, length):
    env, population = make_resource_gathering(size=size, episode_length=length)
    plans = jax.random.randint(jax.random.key(size), (200, env.spec.episode_length), 0, 4, jnp.int32)

    def play(plan):
        def step(carry, action):
            state, alive = carry
            state, stepped = env.step(state, action)
            ends = stepped.terminated | stepped.truncated
            return (state, alive & ~ends), jnp.where(alive, population.rewards(stepped), 0.0)

        return jax.lax.scan(step, (env.reset(jax.random.key(0))[0], jnp.array(True)), plan)[1].sum(0)

    table = planning_mdp(size, length)
    model = np.asarray(jax.jit(jax.vmap(deterministic(table).evaluate))(plans))
    with jax.enable_x64(False):
        played = np.asarray(jax.jit(jax.vmap(play))(plans.astype(jnp.int32)))
    np.testing.assert_allclose(model, played, atol=1e-6)
    assert (model.sum(1) > 0).mean() > 0.3


def plain_walks(size):
    """Fewest steps by set of visited cells, by the plainest search over (cell, visited set)."""
    home = (size - 1, size // 2)
    layer, seen, closed = {(home, frozenset())}, set(), {}
    for t in range(1, 41):
        fresh = set()
        for (row, column), visited in layer:
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                cell = min(max(row + down, 0), size - 1), min(max(column + right, 0), size - 1)
                if cell == home:
                    closed.setdefault(visited | {cell}, t)
                else:
                    fresh.add((cell, visited | {cell}))
        layer, seen = fresh - seen, seen | fresh
    return closed


@cache
def brute_force(size):
    """Best pay of each group; and entry k: best of all partitions into at most k groups. In summed hundredths."""
    closed = [(sum(1 << row * size + column for row, column in visited), t) for visited, t in plain_walks(size).items()]
    value = [max((group & visited).bit_count() * (100 - t) for visited, t in closed) for group in range(2 ** (size * size))]
    best = [0] * (size * size + 1)

    def divide(cell, groups):
        if cell == size * size:
            best[len(groups)] = max(best[len(groups)], sum(value[group] for group in groups))
            return
        for index, group in enumerate(groups):
            divide(cell + 1, [*groups[:index], group | 1 << cell, *groups[index + 1 :]])
        divide(cell + 1, [*groups, 1 << cell])

    divide(0, [])
    return value, list(itertools.accumulate(best, max))


@pytest.mark.parametrize("size", [2, 3])
def test_exact_optimum_is_brute_force_over_partitions(size):
    value, best = brute_force(size)
    np.testing.assert_array_equal(group_values(size), value)
    for k in range(1, size * size + 1):
        assert exact_optimum(size, k)["welfare"] == pytest.approx(best[k] / (100 * size * size), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_best_of_many_restarts_is_the_optimum_of_3x3(k):
    found = solve_restarts(deterministic, planning_mdp(3, 14), k, jax.random.split(jax.random.key(k), 128))
    assert found.fixed.all()
    assert np.diff(found.welfare).min() >= -1e-12
    assert best_restart(found).welfare[-1] == pytest.approx(brute_force(3)[1][k] / 900, abs=1e-12)


def test_2x2_by_hand():
    # Home is bottom right. The round pays four agents 0.96; out and home pays two 0.98; a bump pays home 0.99.
    welfare = [exact_optimum(2, k)["welfare"] for k in (1, 2, 3, 4, 9)]
    assert welfare == pytest.approx([0.96, 0.97, 0.975, 0.9775, 0.9775])
    assert exact_optimum(2, 1)["walks"][0] in ("ULDR", "LURD")


def test_shortest_walks_of_4x4():
    shortest, state = shortest_walks(4)
    assert shortest[2**16 - 1] == 16  # a round through all cells
    assert shortest[1 << 14] == 1  # a bump at home
    assert shortest[1 << 13] == 100  # no walk avoids home
    assert ((shortest == 100) == (state == -1)).all()
    with pytest.raises(ConfigError, match="size = 5"):
        exact_optimum(5, 2)


@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_data_file_of_4x4(k):
    data = json.loads(resources.files("rmdp_jax.envs").joinpath("data/resource_gathering_4x4.json").read_text())
    entry = data["optimum"][str(k)]
    assert entry["welfare"] == exact_optimum(4, k)["welfare"]
    pays = np.zeros((k, 16))
    for j, walk in enumerate(entry["walks"]):
        cells = [row * 4 + column for row, column in cells_of_walk(walk, 4)]
        assert set(walk) <= set(MOVES)
        assert cells.index(14) == len(walk) - 1  # home at the end and not before
        pays[j, cells] = 1 - len(walk) / 100
    assert pays.max(0).mean() == pytest.approx(entry["welfare"], abs=1e-12)


@given(st.integers(0, 2**31), st.integers(2, 6))
def test_best_split_looks_at_every_pair(seed, bits):
    rng = np.random.default_rng(seed)
    f, g = rng.integers(0, 100, (2, 2**bits))
    expected = [max(f[m & ~s] + g[s] for s in range(2**bits) if s & ~m == 0) for m in range(2**bits)]
    np.testing.assert_array_equal(_best_split(f, g), expected)
