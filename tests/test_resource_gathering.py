import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError
from rmdp_jax.env import guard
from rmdp_jax.envs import make
from rmdp_jax.envs.resource_gathering import MOVES, cells_of_walk, optimum

LENGTH = 40
PROVED = {1: 74.00, 2: 86.00, 3: 89.28, 4: 90.40, 5: 91.04, 6: 91.52, 7: 91.76, 8: 92.00, 9: 92.16, 10: 92.32, 25: 93.56}
WALKS = sorted({walk for k in range(1, 26) for walk in optimum(k)["walks"]})


@pytest.fixture(scope="module")
def replay():
    """`replay(moves) -> rewards (T, n), terminated (T,), truncated (T,), obs (T, o)` on the 5x5 grid, every step to the cut."""
    env, population = make("resource_gathering")

    def play(actions):
        def advance(state, action):
            state, stepped = env.step(state, action)
            return state, (population.rewards(stepped), stepped.terminated, stepped.truncated, stepped.obs)

        return jax.lax.scan(advance, env.reset(jax.random.key(0))[0], actions)[1]

    play = jax.jit(play)

    def replay(moves):
        padded = moves.ljust(LENGTH, "U")
        seen = play(jnp.array([MOVES.index(move) for move in padded], jnp.int32))
        return tuple(np.asarray(x)[: len(moves)] for x in seen)

    return replay


def returns_of(replay, walk):
    return replay(walk)[0].sum(0, dtype=np.float64)


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_pays_for_the_cells_it_visits(replay, walk):
    rewards, terminated, truncated, _ = replay(walk)
    row, column, visited = 4, 2, set()
    for move in walk:  # a walker of our own, which knows nothing of the package's
        row = min(max(row + {"U": -1, "D": 1}.get(move, 0), 0), 4)
        column = min(max(column + {"L": -1, "R": 1}.get(move, 0), 0), 4)
        visited.add(5 * row + column)
    expected = [1 - len(walk) / 100 if cell in visited else 0.0 for cell in range(25)]
    np.testing.assert_allclose(rewards[-1], expected, atol=1e-6)
    assert not rewards[:-1].any()
    assert terminated.tolist() == [False] * (len(walk) - 1) + [True]
    assert not truncated.any()
    assert {5 * row + column for row, column in cells_of_walk(walk)} == visited


@pytest.mark.parametrize("k", range(1, 26))
def test_the_walks_of_k_reach_its_welfare(replay, k):
    returns = np.stack([returns_of(replay, walk) for walk in optimum(k)["walks"]])
    assert len(returns) <= k
    assert returns.max(0).mean() == pytest.approx(optimum(k)["welfare"], abs=1e-6)


@pytest.mark.parametrize("k", range(1, 26))
def test_oracle_groups_reach_the_welfare(replay, k):
    _, population = make("resource_gathering", n=50)
    groups = population.oracle_groups(k)
    assert groups.shape == (50,)
    assert groups.dtype == np.int32
    walks = optimum(k)["walks"]
    returns = np.stack([returns_of(replay, walk) for walk in walks])
    assert returns[groups, np.arange(50) % 25].mean() == pytest.approx(optimum(k)["welfare"], abs=1e-6)


def test_upper_bound_is_the_proved_table():
    _, population = make("resource_gathering")
    for k, welfare in PROVED.items():
        assert 100 * population.upper_bound(k) == pytest.approx(welfare, abs=1e-9)
    bounds = [population.upper_bound(k) for k in range(1, 26)]
    assert bounds == sorted(bounds)
    assert population.upper_bound(40) == population.upper_bound(25)


@pytest.mark.parametrize("move", "UDLR")
def test_a_bump_at_home_ends_it_at_once(replay, move):
    rewards, terminated, _, obs = replay(move)
    bump = move == "D"
    assert terminated.tolist() == [bump]
    np.testing.assert_allclose(rewards[0].sum(), 0.99 if bump else 0.0, atol=1e-6)
    position = {"U": [3, 2], "D": [4, 2], "L": [4, 1], "R": [4, 3]}[move]
    np.testing.assert_array_equal(obs[0, :2], position)
    assert np.flatnonzero(obs[0, 2:]).tolist() == [5 * position[0] + position[1]]


def test_a_cut_walk_pays_nothing_and_is_truncated(replay):
    rewards, terminated, truncated, _ = replay("U" * LENGTH)
    assert not rewards.any()
    assert not terminated.any()
    assert truncated.tolist() == [False] * (LENGTH - 1) + [True]


def test_coming_home_at_the_last_step_is_no_cut(replay):
    rewards, terminated, truncated, _ = replay("U" * (LENGTH - 4) + "DDDD")
    assert terminated[-1]
    assert not truncated.any()
    np.testing.assert_allclose(np.unique(rewards[-1]), [0.0, 0.6], atol=1e-6)
    assert (rewards[-1] > 0).sum() == 5  # home and the four cells above it


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_first_observation(size):
    env, population = make("resource_gathering", size=size)
    _, obs = env.reset(jax.random.key(3))
    assert population.n == size**2
    assert env.spec.observation_size == 2 + size**2
    np.testing.assert_array_equal(obs[:2], [size - 1, size // 2])
    assert not np.asarray(obs[2:]).any()  # home is not visited at the start
    bumped = env.step(env.reset(jax.random.key(3))[0], jnp.int32(1))[1]
    assert bumped.terminated
    np.testing.assert_array_equal(np.flatnonzero(bumped.obs[2:]), [(size - 1) * size + size // 2])


def test_episode_length_can_be_changed():
    env, _ = make("resource_gathering", episode_length=2)
    state, _ = env.reset(jax.random.key(0))
    cuts = []
    for _ in range(2):
        state, stepped = env.step(state, jnp.int32(0))
        cuts.append(bool(stepped.truncated))
    assert cuts == [False, True]
    assert make("resource_gathering", size=7)[0].spec.episode_length == 78


def test_agents_of_a_multiple_share_cells(replay):
    _, one = make("resource_gathering")
    env, two = make("resource_gathering", n=50)
    env = guard(env)
    step = env.step(env.reset(jax.random.key(0))[0], jnp.int32(1))[1]
    np.testing.assert_array_equal(two.rewards(step), np.tile(one.rewards(step), 2))
    assert float(two.rewards(step).sum()) == pytest.approx(2 * 0.99)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 24}, r"n = 24: .* multiple of size\^2 = 25"),
        ({"n": 0}, "n = 0: .* multiple"),
        ({"n": -25}, "n = -25: .* multiple"),
        ({"size": 3, "n": 10}, r"n = 10: .* multiple of size\^2 = 9 \(try --n 9\)"),
        ({"size": 1}, "size = 1: .* at least 2 x 2"),
        ({"episode_length": 1}, "episode_length = 1: .* at least 2 steps"),
        ({"backend": "mjx"}, "backend = 'mjx': resource_gathering takes size, episode_length"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make("resource_gathering", **options)


def test_unknown_env_suggests_the_nearest():
    with pytest.raises(ConfigError, match="env = 'resource_gatherin' is not known; did you mean 'resource_gathering'"):
        make("resource_gatherin")


@pytest.mark.parametrize(("size", "k", "welfare"), [(3, 2, 0.94), (4, 2, 0.91), (4, 4, 0.93), (4, 99, 0.949375)])
def test_smaller_grids_have_a_proved_optimum_too(size, k, welfare):
    _, population = make("resource_gathering", size=size)
    assert population.upper_bound(k) == pytest.approx(welfare, abs=1e-9)
    groups = population.oracle_groups(k)
    pays = np.zeros((groups.max() + 1, size * size))
    for j, walk in enumerate(optimum(k, size)["walks"]):
        for row, column in cells_of_walk(walk, size):
            pays[j, size * row + column] = 1 - len(walk) / 100
    assert pays[groups, np.arange(size * size)].mean() == pytest.approx(welfare, abs=1e-9)


@pytest.mark.parametrize("options", [{"size": 6}, {"size": 5, "episode_length": 30}])
def test_a_grid_nobody_has_solved_has_no_bound(options):
    _, population = make("resource_gathering", **options)
    assert population.upper_bound(2) is None
    assert population.oracle_groups is None
