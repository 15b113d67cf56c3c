"""Personalised reinforcement learning with a budget of policies: k policies for n people, learned together, on JAX.

    from rmdp_jax import em, train
    from rmdp_jax.envs import make, preset

    env, population = make("resource_gathering", seed=0)
    result = train(env, population, preset("resource_gathering", k=5, transitions=300_000), em(k=5, n=25))

Importing this package takes no time: JAX comes with the first name that is asked for, brax and mujoco with the first task.
"""

# ruff: noqa: F405

from typing import TYPE_CHECKING, Any

from rmdp_jax.version import __version__ as __version__

__all__ = [
    "Assigner",
    "Column",
    "ConfigError",
    "Copies",
    "EStepInput",
    "Env",
    "EnvSpec",
    "Evaluation",
    "Info",
    "Limits",
    "Population",
    "Rates",
    "Result",
    "Results",
    "RunSpec",
    "Sizes",
    "Step",
    "Together",
    "TrainConfig",
    "TrainState",
    "Trainer",
    "TrainingError",
    "affinity",
    "assign",
    "budget",
    "clear_programs",
    "cluster",
    "cover",
    "em",
    "end_to_end",
    "evaluate",
    "fixed",
    "load_run",
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
    "with_context",
]

if TYPE_CHECKING:
    from rmdp_jax.api import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rmdp_jax import api

        return getattr(api, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
