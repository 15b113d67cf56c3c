"""What `rmdp_jax` offers, imported when the first of its names is asked for; `rmdp_jax.__all__` lists them."""

# ruff: noqa: F401

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, Together
from rmdp_jax.assigners.cover import cover
from rmdp_jax.assigners.em import em
from rmdp_jax.assigners.end_to_end import end_to_end
from rmdp_jax.assigners.fixed import fixed, oracle, random_even
from rmdp_jax.assigners.plain_em import plain_em
from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.context import with_context
from rmdp_jax.env import Column, Env, EnvSpec, Population, Step
from rmdp_jax.errors import ConfigError, TrainingError
from rmdp_jax.evaluation.evaluate import Evaluation, evaluate, make_evaluate, make_record
from rmdp_jax.evaluation.limits import Limits
from rmdp_jax.info import Info
from rmdp_jax.policies.model import make_act
from rmdp_jax.programs import clear_programs
from rmdp_jax.records.spec import RunSpec
from rmdp_jax.running.affinity import affinity
from rmdp_jax.running.assign import assign
from rmdp_jax.running.budget import budget
from rmdp_jax.running.cache import use_cache
from rmdp_jax.running.cluster import cluster
from rmdp_jax.running.train import Result, train, train_batch
from rmdp_jax.trainer import Trainer, TrainState, make_trainer
