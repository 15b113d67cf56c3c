import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import Rates, Sizes, TrainConfig, evaluate, fixed, make_trainer
from rmdp_jax.envs import make
from rmdp_jax.trainer import policies_of

STILL = Rates(learning_rate=(1e-12, 1e-12), utility_decay=0.99)  # the policies stay as they begin


@pytest.mark.slow
@pytest.mark.parametrize("name", ["halfcheetah_speed", "hopper_speed"])  # cut by the clock; ended by falls
def test_running_welfare_agrees_with_fresh_episodes(name):
    env, population = make(name, n=8, episode_length=100)
    population = population._replace(agents=jnp.linspace(0.0, 0.4, 8))  # slow enough for policies that know nothing
    sizes = Sizes(environments=16, unroll=50, epochs=1, minibatches=1)
    config = TrainConfig(k=2, n=8, transitions=60 * sizes.transitions, sizes=sizes, rates=STILL)
    trainer = make_trainer(env, population, config, fixed(2, 8, np.arange(8) % 2))
    state = jax.jit(trainer.init)(jax.random.key(0))
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: trainer.step(s), s, None, length=60))
    state, info = run(state)
    judged = evaluate(env, population, config, policies_of(state), info.assignment[-1], episodes=256)
    assert float(judged.welfare) > 1
    assert float(info.welfare[-1]) == pytest.approx(float(judged.welfare), rel=0.05)
    assert int(info.diverged.sum()) == 0
