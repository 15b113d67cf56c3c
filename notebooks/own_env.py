# %% [markdown]
# # Bring your own env and rewards
#
# A heater warms a room. Everybody likes another temperature, and some mind the bill more than others: 60 people, three
# thermostats.

# %% tags=["parameters"]
transitions = 100_000

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from rmdp_jax import Column, Env, EnvSpec, Population, Rates, Sizes, Step, TrainConfig, em, evaluate, train

# %% [markdown]
# ## The env: two functions and a spec
#
# It is unbatched, and it knows no people: `step` reports an *outcome*, here the temperature and the power. A stochastic env
# keeps a key in its state. Actions of continuous tasks are in [-1, 1].

# %%
OUTSIDE, LEAK, GAIN = 5.0, 0.1, 2.0  # degrees; share lost in a step; degrees at full power


def reset(key):
    """A cold room, and what a policy sees of it."""
    temperature = jax.random.uniform(key, (), minval=8.0, maxval=15.0)
    return temperature, observe(temperature)


def observe(temperature):
    """(1,) float32, of size 1 or so."""
    return (temperature[None] - 15.0) / 10.0


def step(temperature, action):
    """One step; the episode is cut by the clock alone."""
    power = (action[0] + 1.0) / 2.0
    temperature = temperature - LEAK * (temperature - OUTSIDE) + GAIN * power
    outcome = {"temperature": temperature, "power": power}
    return temperature, Step(observe(temperature), outcome, jnp.bool_(False), jnp.bool_(False))


spec = EnvSpec(
    name="heating",
    observation_size=1,
    action_size=1,
    discrete=False,
    episode_length=64,
    discount=0.97,
    reference_scale=100.0 / 64,  # the best return, 64, is 100
    backend="jax",
)
env = Env(spec, reset, step)

# %% [markdown]
# ## The people: one reward function for one of them
#
# Agents are a pytree with one row a person. The reward looks at one person and one outcome; the trainer does the rest with
# `vmap`.

# %%
rng = np.random.default_rng(0)
likes = rng.uniform(14.0, 24.0, 60).astype(np.float32)  # degrees
thrift = rng.uniform(0.0, 0.4, 60).astype(np.float32)  # what full power costs, in comfort


def reward(person, outcome):
    """At most 1 a step: nearness within 3 degrees, less the price of the power."""
    near = jnp.maximum(0.0, 1.0 - jnp.abs(outcome["temperature"] - person["likes"]) / 3.0)
    return near - person["thrift"] * outcome["power"]


columns = (Column("likes", 14, 24, "degrees"), Column("thrift", 0, 1, "comfort lost at full power"))
people = Population({"likes": likes, "thrift": thrift}, reward, columns=columns)

# %% [markdown]
# ## Train
#
# What breaks its word (shapes, kinds, a step that gives something else each time) is named before training is compiled,
# rewards that are not finite while it trains. A `TrainConfig` of your own: the sizes fix shapes, the rates may be swept.

# %%
config = TrainConfig(
    k=3,
    n=60,
    transitions=transitions,
    sizes=Sizes(environments=32, unroll=32, epochs=4, minibatches=8, normalize_observations=True),
    rates=Rates(learning_rate=(1e-3, 3e-4), entropy=(1e-2, 1e-4)),
)
result = train(env, people, config, em(k=3, n=60))

# %%
result.agents().sort_values("return").head()  # who is served worst

# %%
labels = np.asarray(result.assignment)
figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
for j in range(3):
    own = labels == j
    axes.scatter(likes[own], thrift[own], label=f"policy {j}: {own.sum()} people")
axes.set(xlabel="likes (degrees)", ylabel="thrift", title=f"Who shares a thermostat; welfare {result.welfare:.1f}")
_ = figure.legend(loc="outside lower center", ncols=3)

# %% [markdown]
# ## Other rewards, same policies
#
# Rewards are apart from the env, so the same policies can be judged by other people at once: here everybody becomes a
# spendthrift.

# %%
spendthrifts = people._replace(agents={"likes": likes, "thrift": np.zeros_like(thrift)})
judged = evaluate(env, spendthrifts, config, result.policies, labels)
print(f"welfare {result.welfare:.1f} as they are, {judged.welfare:.1f} without a bill")

# %% [markdown]
# Envs of other libraries come in by adapters (gymnax, jumanji, MuJoCo Playground, Brax), and commands take a task of your own
# by its name: the page *Your own task*. A whole task of this kind, beside its exact optimum, is
# `examples/deep_sea_treasure.py`.
