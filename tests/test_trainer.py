import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, Copies, Rates, Sizes, TrainConfig, em, fixed, make_evaluate, make_trainer
from rmdp_jax.envs import make
from rmdp_jax.learning.learner import schedule_at
from rmdp_jax.trainer import copy_members, policies_of

K, N = 2, 4
SIZES = Sizes(environments=4, unroll=8, epochs=2, minibatches=2, hidden=(8,), normalize_observations=True)
CONFIG = TrainConfig(k=K, n=N, transitions=100 * SIZES.transitions, sizes=SIZES)
LABELS = np.arange(N) % K
STILL = Rates(learning_rate=(1e-12, 1e-12), utility_decay=0.9995)


@pytest.fixture(scope="module")
def task():
    return make("resource_gathering", size=2)


@pytest.fixture(scope="module")
def trainer(task):
    """`fixed`, with init and step jitted; rates are traced, so all tests share one program."""
    trainer = make_trainer(*task, CONFIG, fixed(K, N, LABELS))
    return trainer._replace(init=jax.jit(trainer.init), step=jax.jit(trainer.step))


@pytest.fixture(scope="module")
def together(trainer):
    """init and step, vmapped over two seeds and two rates."""
    return jax.jit(jax.vmap(trainer.init)), jax.jit(jax.vmap(trainer.step))


def data(tree):
    """Leaves as numpy arrays, keys as the data behind them."""
    plain = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    return jax.tree.map(np.asarray, plain)


def same(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(data(a)), jax.tree.leaves(data(b)), strict=True))


def run(trainer, state, steps):
    info = None
    for _ in range(steps):
        state, info = trainer.step(state)
    return state, info


@pytest.mark.parametrize("sizes", [{}, {"trunk": "shared"}, {"critic": "per_agent"}, {"normalize_observations": False}])
@pytest.mark.parametrize("assigner", [em(K, N), fixed(K, N, LABELS)], ids=lambda assigner: assigner.name)
def test_step_keeps_the_abstract_state(task, sizes, assigner):
    config = TrainConfig(k=K, n=N, sizes=Sizes(**{**vars(SIZES), **sizes}))
    trainer = make_trainer(*task, config, assigner)
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    after, info = jax.eval_shape(trainer.step, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    weak = [leaf for leaf in jax.tree.leaves((state, after, info)) if leaf.weak_type]
    assert weak == []
    assert jax.tree.leaves(after) == jax.tree.leaves(state)
    assert info.utility.shape == (K, N)
    assert (info.welfare.shape, info.flips.shape, info.assignment.shape) == ((), (), (N,))
    for leaf in (info.policy_sizes, info.episodes, info.diverged, *info.losses):
        assert leaf.shape == (K,)


def test_five_steps_are_traced_once(task):
    env, population = task
    calls = []

    def step(state, action):
        calls.append(action)
        return env.step(state, action)

    trainer = make_trainer(env._replace(step=step), population, CONFIG, fixed(K, N, LABELS))
    calls.clear()  # it has looked at the env
    chex.clear_trace_counter()
    advance = jax.jit(chex.assert_max_traces(trainer.step, n=1))
    state = jax.jit(trainer.init)(jax.random.key(0))
    assert calls == []
    state, _ = advance(state)
    traced = len(calls)
    assert traced >= 1
    for _ in range(4):
        state, _ = advance(state)
    assert len(calls) == traced
    assert advance._cache_size() == 1
    assert int(state.iteration) == 5


@pytest.mark.slow
def test_two_seeds_and_rates_together_equal_each_alone(trainer, together):
    seeds = jax.random.split(jax.random.key(5), 2)
    rates = [Rates(learning_rate=(1e-3, 1e-3)), Rates(learning_rate=(2e-3, 1e-4), entropy=(1e-1, 1e-2), clip=0.1)]
    init, step = together
    both = init(jax.random.clone(seeds), jax.tree.map(lambda *x: jnp.stack([jnp.float32(y) for y in x]), *rates))
    for _ in range(3):
        both, infos = step(both)
    for seed in range(2):
        alone, info = run(trainer, trainer.init(seeds[seed], rates[seed]), 3)
        one, one_info = jax.tree.map(lambda x, seed=seed: x[seed], (both, infos))
        # Episodes, actions and counts are equal bit for bit; what is summed in another order differs in the last digits.
        assert same(alone.episodes, one.episodes)
        for a, b in zip(jax.tree.leaves(data((alone, info))), jax.tree.leaves(data((one, one_info))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(jax.tree.leaves(both.learner.params)[0][0], jax.tree.leaves(both.learner.params)[0][1])


def test_rates_are_read_from_the_state(trainer):
    still, moving = (trainer.init(jax.random.key(0), Rates(learning_rate=(rate, rate))) for rate in (1e-12, 1e-2))
    assert same(still.learner.params, moving.learner.params)
    begun = data(still.learner.params)
    still, moving = run(trainer, still, 2)[0], run(trainer, moving, 2)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), data(still.learner.params), begun)
    assert (
        max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (data(moving.learner.params), begun)), strict=True))
        > 1e-2
    )


def test_policies_with_fixed_agents_do_not_feel_each_other(trainer):
    state = trainer.init(jax.random.key(0))
    changed = state._replace(keys=jnp.stack([jax.random.key(99), state.keys[1]]))
    here, info = run(trainer, state, 3)
    there, other = run(trainer, changed, 3)

    def kept(state, info, j):
        own = state.learner.params.own, state.learner.opt_state.own
        return jax.tree.map(lambda x: x[j], (own, state.statistics, state.utilities, state.episodes, info.losses, info.utility))

    assert same(kept(here, info, 1), kept(there, other, 1))
    assert not same(kept(here, info, 0)[0], kept(there, other, 0)[0])
    assert not same(kept(here, info, 0)[2], kept(there, other, 0)[2])


def test_same_key_same_run_and_another_key_another(trainer):
    first, again, other = (run(trainer, trainer.init(jax.random.key(seed)), 2)[0] for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first.learner.params, other.learner.params)


def test_schedules_are_geometric(trainer):
    # Adam's first step is the learning rate, whatever the gradient; entropy is halved over the 100 iterations of the config.
    rates = Rates(learning_rate=(1e-2, 1e-4), max_kl=1e6, adam_epsilon=1e-12)
    state = trainer.init(jax.random.key(0), rates)
    steps = []
    for iteration in (0, 50, 100):
        after, _ = trainer.step(state._replace(iteration=jnp.int32(iteration)))
        change = [
            np.abs(a - b).max()
            for a, b in zip(*map(jax.tree.leaves, (data(after.learner.params), data(state.learner.params))), strict=True)
        ]
        steps.append(max(change))
    np.testing.assert_allclose([steps[1] / steps[0], steps[2] / steps[0]], [0.1, 0.01], rtol=0.25)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.0, 0.0), [0.0, 0.0, 0.0]),
        ((0.4, 0.0), [0.4, 0.2, 0.0]),
        ((0.0, 0.4), [0.0, 0.2, 0.4]),
        ((0.4, 0.1), [0.4, 0.2, 0.1]),
    ],
)
def test_a_schedule_that_begins_or_ends_at_0_is_linear(ends, expected):
    rates = jax.tree.map(jnp.float32, Rates(entropy=ends))
    values = [jax.jit(schedule_at, static_argnums=2)(rates, jnp.int32(iteration), 100).entropy for iteration in (0, 50, 100)]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_tiny_kl_limit_stops_the_epochs(trainer):
    def updates(rates):
        state, _ = trainer.step(trainer.init(jax.random.key(0), rates))
        (count,) = [leaf for leaf in jax.tree.leaves(state.learner.opt_state.own) if leaf.dtype == jnp.int32]
        return count.tolist()

    assert updates(Rates(learning_rate=(1e-2, 1e-2), max_kl=1e6)) == [SIZES.epochs * SIZES.minibatches] * K
    # The first minibatch has no divergence yet; the second shows that of the first update, is applied, and is the last.
    assert updates(Rates(learning_rate=(1e-2, 1e-2), max_kl=1e-6)) == [2] * K


def test_reward_scaling_is_of_what_policies_learn_from_alone(trainer):
    def collect(scaling):  # without any discount the targets are the rewards
        state = trainer.init(jax.random.key(0), Rates(discount=0.0, gae_lambda=0.0, reward_scaling=scaling))
        return trainer.collect(state)[1]

    plain, scaled = collect(1.0), collect(8.0)
    assert float(plain.batch.target.max()) > 0.1
    np.testing.assert_allclose(scaled.batch.target, 8 * plain.batch.target, atol=1e-5)
    assert same(scaled.totals, plain.totals)


@pytest.mark.slow
def test_running_utilities_agree_with_fresh_episodes(task, trainer):
    state = trainer.init(jax.random.key(2), STILL)
    advance = jax.jit(lambda state: jax.lax.fori_loop(0, 3999, lambda _, state: trainer.step(state)[0], state))
    state, info = trainer.step(advance(state))
    judge = jax.jit(make_evaluate(*task, CONFIG, episodes=8192))
    judged = judge(policies_of(state), jnp.asarray(LABELS, jnp.int32), jax.random.key(1))
    assert float(judged.utility.min()) > 5.0
    np.testing.assert_allclose(info.utility, judged.utility, rtol=0.05)
    np.testing.assert_allclose(info.welfare, judged.welfare, rtol=0.05)
    own = np.asarray(judged.utility)[LABELS, np.arange(N)].mean()
    np.testing.assert_allclose(judged.welfare, own, rtol=1e-5)
    np.testing.assert_allclose(judged.best_welfare, np.asarray(judged.utility).max(0).mean(), rtol=1e-5)


def test_policies_follow_their_parents(trainer):
    state, _ = run(trainer, trainer.init(jax.random.key(0)), 2)
    assert same(copy_members(Copies(jnp.arange(K, dtype=jnp.int32)), state), state)
    led = copy_members(Copies(jnp.array([1, 1], jnp.int32)), state)
    for before, after in [
        (state.learner.params.own, led.learner.params.own),
        (state.learner.opt_state.own, led.learner.opt_state.own),
        (state.statistics, led.statistics),
        (state.utilities, led.utilities),
    ]:
        assert not same(*(jax.tree.map(lambda x, j=j: x[j], before) for j in range(K)))
        for j in range(K):
            assert same(jax.tree.map(lambda x, j=j: x[j], after), jax.tree.map(lambda x: x[1], before))
    assert same((led.episodes, led.keys, led.assignment), (state.episodes, state.keys, state.assignment))


def test_stored_policies_come_back(task):
    """Copies that archive both policies, and one that restores them after they have learned on."""
    store, restore = jnp.array([0, 1], jnp.int32), jnp.array([3, 2], jnp.int32)

    def reassign(key, labels, inputs):
        back = inputs.iteration == 2
        sources = jnp.where(back, restore, jnp.arange(K, dtype=jnp.int32))
        return labels, Copies(sources, jnp.where(inputs.iteration == 0, store, jnp.array([2, 3], jnp.int32)))

    assigner = fixed(K, N, LABELS)._replace(reassign=reassign, archive_size=2)
    trainer = make_trainer(*task, CONFIG, assigner)
    trainer = trainer._replace(init=jax.jit(trainer.init), step=jax.jit(trainer.step))
    first, _ = trainer.step(trainer.init(jax.random.key(0)))
    third, info = run(trainer, first, 2)
    assert int(info.copies) == K
    for stored in (first.archive, third.archive):
        assert same(stored.params, first.learner.params.own)
    assert same(jax.tree.map(lambda x: x[::-1], third.learner.params.own), first.learner.params.own)
    assert same(jax.tree.map(lambda x: x[::-1], third.learner.opt_state.own), first.learner.opt_state.own)
    assert same(jax.tree.map(lambda x: x[::-1], third.utilities), first.utilities)


@pytest.mark.parametrize(
    ("config", "assigner", "message"),
    [
        (TrainConfig(k=2, n=5), em(2, 5), "n = 5: the population has 4 agents"),
        (TrainConfig(k=2, n=4), em(3, 4), "assigner of k = 3, n = 4: the config has k = 2, n = 4"),
        (TrainConfig(k=2, n=4), em(2, 5), "assigner of k = 2, n = 5: the config has k = 2, n = 4"),
        (TrainConfig(k=2, n=4), "em", r"assigner = 'em': must be an Assigner, such as em\(k=2, n=4\)"),
    ],
)
def test_disagreement_is_named(task, config, assigner, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(*task, config, assigner)


def test_an_env_that_breaks_its_word_is_named(task):
    env, population = task

    def changed(**changes):
        def step(state, action):
            state, step = env.step(state, action)
            return state, step._replace(**{name: change(getattr(step, name)) for name, change in changes.items()})

        return env._replace(step=step), population

    for broken, message in (
        (
            (env._replace(spec=env.spec._replace(observation_size=7)), population),
            r"the obs of reset is float32 \(\d+,\), must be ",
        ),
        (changed(obs=lambda obs: obs[:3]), r"the obs of step is float32 \(3,\), must be float32 "),
        (changed(terminated=jnp.float32), r"terminated of step is float32 \(\), must be bool \(\)"),
        (changed(truncated=lambda over: over[None]), r"truncated of step is bool \(1,\), must be bool \(\)"),
        ((env, population._replace(reward=lambda agent, outcome: jnp.zeros(2))), r"the reward of one agent is float32 \(2,\)"),
    ):
        with pytest.raises(ConfigError, match=f"env = resource_gathering: {message}"):
            make_trainer(*broken, CONFIG, fixed(K, N, LABELS))


@pytest.mark.timeout(120)
def test_many_seeds_are_drawn_many_times(trainer):
    """Batched QR inside one program used to hang here now and then on two cores."""
    init = jax.jit(jax.vmap(lambda key: trainer.init(key).learner.params.own))
    drawn = [init(jax.random.split(jax.random.key(i), 8))["body"]["params"]["Dense_0"]["kernel"] for i in range(100)]
    kernels = np.stack(drawn).reshape(-1, 6, 8)  # 100 draws of 8 seeds of 2 policies
    np.testing.assert_allclose(kernels @ kernels.swapaxes(1, 2), np.broadcast_to(2 * np.eye(6), (1600, 6, 6)), atol=1e-4)
    assert len({kernel.tobytes() for kernel in kernels}) == 1600
