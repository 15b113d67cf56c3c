# %% [markdown]
# # Inside the jitted step
#
# `train` is a loop around one pure function. Here it is by itself: seeds by `vmap`, iterations by `scan`, and an assigner of
# your own in 20 lines.

# %% tags=["parameters"]
iterations = 60
seeds = 4

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from rmdp_jax import fixed, make_trainer, plain_em
from rmdp_jax.assigners.base import no_copies
from rmdp_jax.assigners.fixed import round_robin
from rmdp_jax.envs import make, preset

env, population = make("resource_gathering", n=25)
config = preset("resource_gathering", k=3)

# %% [markdown]
# ## A trainer is functions
#
# `init(key) -> state` and `step(state) -> (state, info)`: k policies act, learn, and agents are reassigned. `state` (a
# `TrainState`) is what the next step reads, `info` what people read. Nothing is compiled yet; shapes are known all the same.

# %%
trainer = make_trainer(env, population, config, plain_em(k=3, n=25))
state, info = jax.eval_shape(trainer.step, jax.eval_shape(trainer.init, jax.random.key(0)))
print("utility", info.utility.shape, "assignment", info.assignment.shape, "losses", info.losses.loss.shape)

# %% [markdown]
# ## An assigner in 20 lines
#
# An assigner is four functions over a state of its own. This one is a *bandit*: an agent mostly takes the policy that is best
# for it, and now and then, less and less often, any policy at all. `fixed` gives the parts that stay as they are (labels as
# state, one-hot weights).


# %%
def epsilon_greedy(k, n, epsilon=0.3):
    """Each agent goes to its best policy, or with probability epsilon (1 - progress) to one drawn at random."""

    def reassign(key, labels, inputs):
        try_key, draw_key = jax.random.split(key)
        best = inputs.utility.argmax(0).astype(jnp.int32)  # utility: (k, n) running estimates
        tries = jax.random.uniform(try_key, (n,)) < epsilon * (1.0 - inputs.progress)
        drawn = jax.random.randint(draw_key, (n,), 0, k)
        return jnp.where(tries, drawn, best), no_copies(k)

    return fixed(k, n, round_robin)._replace(name="epsilon_greedy", reassign=reassign, options={"epsilon": epsilon})


# %% [markdown]
# ## Seeds by vmap, iterations by scan
#
# One program trains all seeds of an algorithm; the axis of seeds comes before all others.


# %%
def learn(assigner):
    """Welfare (seeds, iterations) of the running estimates."""
    trainer = make_trainer(env, population, config, assigner)

    def run(state):
        return jax.lax.scan(lambda state, _: trainer.step(state), state, None, iterations)

    states = jax.vmap(trainer.init)(jax.random.split(jax.random.key(0), seeds))
    _, infos = jax.jit(jax.vmap(run), donate_argnums=0)(states)
    return infos.welfare


curves = {"plain_em": learn(plain_em(k=3, n=25, warmup=10)), "epsilon_greedy": learn(epsilon_greedy(k=3, n=25))}

# %%
figure, axes = plt.subplots(figsize=(7, 4))
for name, welfare in curves.items():
    steps = config.sizes.transitions * jnp.arange(1, iterations + 1)
    (line,) = axes.plot(steps, welfare.mean(0), label=name)
    axes.fill_between(steps, welfare.min(0), welfare.max(0), alpha=0.2, color=line.get_color())
axes.axhline(100 * population.upper_bound(3), color="black", linestyle="--", label="proved optimum")
axes.set(xlabel="transitions per policy", ylabel="welfare (0 to 100)", title=f"Mean and range of {seeds} seeds")
_ = axes.legend()

# %% [markdown]
# Moving people about while policies learn costs welfare here: plain EM is ahead.
#
# `train(env, population, config, epsilon_greedy(3, 25), seeds=4)` takes it as it takes any other, with checkpoints,
# evaluation and a bar. Rates may be batched too: `trainer.init(key, rates)` under `vmap` sweeps them in one program.
