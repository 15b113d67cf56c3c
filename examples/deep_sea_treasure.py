"""Deep-sea treasure as a task of your own: 100 people, who differ in what time is worth to them, and 4 policies for them.

A submarine begins in the top left corner of 11 x 10 cells. Each column holds one treasure, never above the one to its left
and always worth more; below it is the sea bed, into which no move leads. A step costs 1 of time, and the first treasure that
is reached ends the episode. After Vamplew et al., "Empirical evaluation methods for multiobjective reinforcement learning
algorithms", Machine Learning 84 (2011), with the values of MO-Gymnasium, whose front is convex.

    python examples/deep_sea_treasure.py [FOLDER [TRANSITIONS [SEED]]]
"""

import sys
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax import Env, EnvSpec, Population, Rates, Sizes, Step, TrainConfig, assign, budget, em, train
from rmdp_jax.dossier.write import write_dossier
from rmdp_jax.records.loading import load_run

VALUE, DEPTH = np.float32([0.7, 8.2, 11.5, 14, 15.1, 16.1, 19.6, 20.3, 22.4, 23.7]), np.array([1, 2, 3, 4, 4, 4, 7, 7, 9, 10])
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # up, down, left, right
LIKES = np.linspace(0.3, 0.7, 100, dtype=np.float32)  # the weight of treasure; the rest of 1 is that of time


def start(at):
    """The submarine in a cell, and what a policy sees of it: its row and its column."""
    return at, jnp.concatenate([jax.nn.one_hot(at[0], 11), jax.nn.one_hot(at[1], 10)])


def step(at, action):
    """One move; rewards may look at both parts of its outcome."""
    to = jnp.clip(at + jnp.asarray(MOVES)[action], 0, np.array([10, 9]))
    bottom = jnp.asarray(DEPTH)[to[1]]
    at, found = jnp.where(to[0] > bottom, at, to), to[0] == bottom
    outcome = {"time": jnp.float32(-1), "treasure": jnp.where(found, jnp.asarray(VALUE)[to[1]], 0.0)}
    return at, Step(start(at)[1], outcome, found, jnp.bool_(False))


def optimum(k):
    """Mean return of the best k treasures, each by a shortest way: exact, as no other policy brings anybody more."""
    returns = LIKES[:, None] * VALUE - (1 - LIKES[:, None]) * (DEPTH + np.arange(10))
    return float(max(returns[:, chosen].max(1).mean() for chosen in combinations(range(10), min(k, 10))))


def main(out="runs/treasure", transitions=300_000, seed=0):
    """Train, compare with the optimum, assign others, ask how many policies, write the dossier."""
    spec = EnvSpec("deep_sea_treasure", 21, 4, True, 100, 1.0, 9.0, "jax")  # 9 makes the best return 98
    env = Env(spec, lambda key: start(jnp.zeros(2, jnp.int32)), step)
    people = Population({"time": 1 - LIKES, "treasure": LIKES}, lambda likes, got: sum(likes[x] * got[x] for x in got), optimum)
    rates = Rates(entropy=(0.2, 1e-4), gae_lambda=1.0)
    config = TrainConfig(k=4, n=100, seed=int(seed), transitions=int(transitions), sizes=Sizes(epochs=4), rates=rates)
    summary = train(env, people, config, em(k=4, n=100), out=out).summary
    print(f"welfare {summary['welfare']:.2f}, share of the exact optimum {summary['welfare'] / summary['upper_bound']:.2%}")
    run = load_run(out, lambda name, **options: (env, people))
    others = np.array([0.35, 0.5, 0.65])
    print("policies of three more people:", assign(run, {"time": 1 - others, "treasure": others}).policy)
    print("policies worth having:", *budget(run).recommended)
    print("dossier:", write_dossier(run).written.page)


if __name__ == "__main__":
    main(*sys.argv[1:])
