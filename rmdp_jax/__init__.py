"""Personalised reinforcement learning with a budget of policies: k policies for n people, learned together, on JAX.

    from rmdp_jax import em, train
    from rmdp_jax.envs import make, preset

    env, population = make("resource_gathering", seed=0)
    result = train(env, population, preset("resource_gathering", k=5, transitions=300_000), em(k=5, n=25))

Importing this package imports neither brax nor mujoco.
"""

from rmdp_jax.assigners.base import Assigner, Seen, Succession, fixed, plain_em, random_even
from rmdp_jax.assigners.end_to_end import end_to_end
from rmdp_jax.assigners.placement import em
from rmdp_jax.baselines import cluster, oracle
from rmdp_jax.cache import use_cache
from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.env import Env, EnvSpec, Population, Step
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluate import Evaluation, evaluate, make_evaluate, make_record
from rmdp_jax.info import Info
from rmdp_jax.model import make_act
from rmdp_jax.together import Entry
from rmdp_jax.trainer import Trainer, TrainState, make_trainer
from rmdp_jax.training import Result, train, train_together

__all__ = [
    "Assigner",
    "ConfigError",
    "Entry",
    "Env",
    "EnvSpec",
    "Evaluation",
    "Info",
    "Population",
    "Rates",
    "Result",
    "Seen",
    "Sizes",
    "Step",
    "Succession",
    "TrainConfig",
    "TrainState",
    "Trainer",
    "cluster",
    "em",
    "end_to_end",
    "evaluate",
    "fixed",
    "make_act",
    "make_evaluate",
    "make_record",
    "make_trainer",
    "oracle",
    "plain_em",
    "random_even",
    "train",
    "train_together",
    "use_cache",
]
