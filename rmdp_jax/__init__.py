"""Personalised reinforcement learning with a budget of policies: k policies for n people, learned together, on JAX.

    from rmdp_jax import em, train
    from rmdp_jax.envs import make, preset

    env, population = make("resource_gathering", seed=0)
    result = train(env, population, preset("resource_gathering", k=5, transitions=300_000), em(k=5, n=25))

Importing this package imports neither brax nor mujoco.
"""

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput
from rmdp_jax.assigners.em import em
from rmdp_jax.assigners.end_to_end import end_to_end
from rmdp_jax.assigners.fixed import fixed, oracle, random_even
from rmdp_jax.assigners.plain_em import plain_em
from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.env import Env, EnvSpec, Population, Step
from rmdp_jax.errors import ConfigError, TrainingError
from rmdp_jax.evaluation.evaluate import Evaluation, evaluate, make_evaluate, make_record
from rmdp_jax.info import Info
from rmdp_jax.policies.model import make_act
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.cache import use_cache
from rmdp_jax.running.cluster import cluster
from rmdp_jax.running.train import Result, train, train_batch
from rmdp_jax.trainer import Trainer, TrainState, make_trainer

__all__ = [
    "Assigner",
    "ConfigError",
    "Copies",
    "EStepInput",
    "Env",
    "EnvSpec",
    "Evaluation",
    "Info",
    "Population",
    "Rates",
    "Result",
    "RunSpec",
    "Sizes",
    "Step",
    "TrainConfig",
    "TrainState",
    "Trainer",
    "TrainingError",
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
    "train_batch",
    "use_cache",
]
