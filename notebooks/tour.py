# %% [markdown]
# # A tour on Resource Gathering
#
# Five policies for 25 people, from training to the page for a reviewer, in a minute or two on a CPU. A walker leaves home,
# visits cells of a 5 x 5 grid and comes back; each person wants one cell visited on a short walk.

# %% tags=["parameters"]
transitions = 300_000  # of each policy

# %%
from rmdp_jax import assign, budget, em, load_run, make_act, train, use_cache
from rmdp_jax.envs import make, preset

_ = use_cache()  # compiled programs are kept for the next start

# %% [markdown]
# ## Train
#
# An env knows nothing of the people; a population is n people and one reward function for each of them. `em` is the
# algorithm: who is served by which policy is learned together with the policies. With `resume=True` this cell may be run
# again: a finished run is read, one that was interrupted goes on.

# %%
env, population = make("resource_gathering", n=25, seed=0)
config = preset("resource_gathering", k=5, transitions=transitions)
result = train(env, population, config, em(k=5, n=25), out="runs/tour", resume=True)

# %% [markdown]
# ## What came out
#
# Welfare is the mean return of all people, 0 to 100, in fresh episodes; the bound is proved for five policies.

# %%
result

# %%
print(f"welfare {result.welfare:.2f} of {result.summary['upper_bound']:.2f} that any five policies can reach")
print(result.assignment.reshape(5, 5))  # which policy serves the person who wants this cell

# %%
result.plot.walks()

# %%
result.plot.welfare()

# %%
result.plot.agents()

# %% [markdown]
# What else the pictures say: *Reading the pictures* in the documentation.
#
# ## Act
#
# One policy, from the start of an episode: its most likely actions (0 up, 1 down, 2 left, 3 right).

# %%
import jax

act = make_act(env, config)
state, obs = env.reset(jax.random.key(0))
moves = []
for _ in range(env.spec.episode_length):
    action = act(result.policies, 0, obs)
    state, step = env.step(state, action)
    obs = step.obs
    moves.append("UDLR"[int(action)])
    if step.terminated:
        break
print("policy 0:", "".join(moves))

# %% [markdown]
# ## Somebody new
#
# Three more people want cells 0, 12 and 23. The folder of the run is enough, today or next year: they are scored on the
# episodes that it kept, and nothing is trained or simulated.

# %%
import numpy as np

run = load_run("runs/tour")
someone = assign(run, np.array([0, 12, 23], np.int32))
print("policy", someone.policy, "brings", someone.expected.round(1), "of 100")

# %% [markdown]
# ## How many policies are worth having?
#
# From the same run: the welfare that every number of policies is predicted to reach, and the least that reaches 95% of what
# the best of all policies that the run met brings each person.

# %%
found = budget(run, ks=(1, 2, 3, 5, 8))
for k, welfare in zip(found.ks, found.welfare, strict=True):
    print(f"k = {k}: {welfare:.2f}")
print("recommended: k =", found.recommended.k)

# %% [markdown]
# ## For the reviewer
#
# One page, a sheet a policy, every figure with its interval.

# %%
from rmdp_jax.dossier.write import write_dossier

print(write_dossier(run).written.page)
