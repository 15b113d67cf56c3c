# %% [markdown]
# # Choosing k, and new people
#
# How many policies are worth their reviews, who gets which, and what happens when more people come. On the 4 x 4 grid, 16
# people, which is learned in a minute.

# %% tags=["parameters"]
transitions = 200_000
episodes = 64

# %%
from dataclasses import replace

import numpy as np

from rmdp_jax import Limits, assign, budget, em, load_run, plots, train
from rmdp_jax.envs import make, preset

# %%
env, population = make("resource_gathering", size=4)
config = preset("resource_gathering", k=4, n=16, transitions=transitions, evaluation_episodes=episodes)
train(env, population, config, em(k=4, n=16), out="runs/choosing", resume=True)
run = load_run("runs/choosing")
run

# %% [markdown]
# ## How many?
#
# A run knows more than its k policies: its archive holds what it met on the way. For every k the best k of all are chosen in
# some episodes, and what they bring is measured in others. The rule here: one policy more has to add a point of welfare
# (`price`); the other rule is a share of the individual end.

# %%
found = budget(run, ks=(1, 2, 3, 4, 6, 8), price=1.0)
curve = plots.Curve("predicted", found.welfare, found.standard_error)
print("recommended: k =", found.recommended.k)
plots.welfare_by_budget(found.ks, [curve], found.individual, bound=found.bound, recommended=found.recommended.k, price=1.0)

# %% [markdown]
# For a k far below its own a run predicts too little, as nobody trained for that: `rmdp-jax budget ENV --ks 1 2 4` trains the
# ladder to confirm it.
#
# ## New people
#
# Ten people who were not there in training, most of whom want the far corner.

# %%
wanted = np.array([0, 0, 0, 0, 1, 4, 5, 9, 13, 15], np.int32)
free = assign(run, wanted)
for cell, policy, expected, low, high in zip(wanted, free.policy, free.expected, free.low, free.high, strict=True):
    print(f"cell {cell:2}: policy {policy}, {expected:.1f} of 100 ({low:.1f} to {high:.1f})")

# %% [markdown]
# ## Limits
#
# Nobody can look after more than four people of one policy: the best assignment within the limits, exactly, and who pays for
# it.

# %%
limited = assign(run, wanted, limits=Limits(at_most=4))
print("people of each policy:", np.bincount(free.policy, minlength=4), "->", np.bincount(limited.policy, minlength=4))
print(f"mean return: {free.expected.mean():.1f} -> {limited.expected.mean():.1f}")
moved = np.flatnonzero(free.policy != limited.policy)
print("who was moved, and gave up:", {int(i): round(float(free.expected[i] - limited.expected[i]), 1) for i in moved})

# %% [markdown]
# ## One policy more, the approved ones stay
#
# The budget grows by one. The four that were reviewed are frozen, bit for bit; the fifth learns for those who gain most.

# %%
more = replace(config, k=5)
frozen = [("runs/choosing", j) for j in range(4)]
grown = train(env, population, more, em(k=5, n=16), frozen=frozen, out="runs/choosing_more", resume=True)
print(f"welfare {run.welfare:.2f} with 4, {grown.welfare:.2f} with 5")
grown.table()
