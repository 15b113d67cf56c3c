# %% [markdown]
# # On an accelerator
#
# Many people, many environments, physics on the device. On a GPU or TPU this trains HalfCheetah for 100,000 people; on a CPU
# the same cells run small, to be read.

# %% tags=["parameters"]
transitions = None  # of each policy; chosen by the device

# %%
from dataclasses import replace
from importlib.util import find_spec
from time import perf_counter

import jax

from rmdp_jax import em, make_trainer, train, use_cache
from rmdp_jax.envs import make, preset

use_cache()
large = jax.default_backend() != "cpu"
print(jax.devices())

# %% [markdown]
# ## Physics
#
# `warp` is the fastest on a CUDA device (extra `[warp]`), `mjx` runs on any, `native` is C MuJoCo on a CPU's threads. All are
# the same task, so a policy that was learned here is judged there.

# %%
backend = "native" if not large else "warp" if jax.default_backend() == "gpu" and find_spec("warp") else "mjx"
k, n = (8, 100_000) if large else (2, 1_000)
env, population = make("halfcheetah_speed", n=n, seed=0, backend=backend)
print(f"{backend}, k = {k}, n = {n:,}")

# %% [markdown]
# ## Width
#
# An accelerator wants many environments (E) and short unrolls (T). Beyond `agents_exact` (4096) people, nothing is scored for
# everybody at every step: a policy trains on the mean reward of a sample of its people, and the returns of all n are
# estimated from `utility_steps` random steps, without bias.

# %%
config = preset("halfcheetah_speed", k=k, n=n, transitions=transitions or (2_000_000 if large else 8_192))
wide = replace(config.sizes, environments=2048, unroll=16, epochs=4, minibatches=4)
small = replace(config.sizes, environments=16, unroll=64, epochs=2, minibatches=4)
config = replace(config, sizes=wide if large else small, evaluation_episodes=16 if large else 2)
print(f"{config.iterations} iterations of {config.k} x {config.sizes.transitions:,} transitions")

# %% [markdown]
# ## How fast is one iteration?
#
# The first call compiles. JAX returns before the device is done, so wait for the result; donate the state, so that it is not
# held twice.

# %%
trainer = make_trainer(env, population, config, em(k=k, n=n))
step = jax.jit(trainer.step, donate_argnums=0)
state = jax.jit(trainer.init)(jax.random.key(0))
for call in ("with compilation", "again", "again"):
    begin = perf_counter()
    state, info = jax.block_until_ready(step(state))
    seconds = perf_counter() - begin
    print(f"{call}: {seconds:.2f} s, {k * config.sizes.transitions / seconds:,.0f} transitions/s")
del state

# %% [markdown]
# ## Train
#
# On several devices `train` spreads policies and environments over all of them; on several machines a command does it with
# `--distributed`. A run that is cut off goes on bit for bit with `resume`.

# %%
result = train(env, population, config, em(k=k, n=n))
result

# %%
result.plot.targets()
