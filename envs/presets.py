"""Settings that suit each task, as values: what the command line starts from."""

from dataclasses import replace
from typing import Any

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.errors import unknown_name

_SPEED = TrainConfig(
    n=100,
    transitions=1_000_000,
    evaluation_episodes=16,
    sizes=Sizes(environments=32, unroll=64, epochs=10, minibatches=32, normalize_observations=True),
    rates=Rates(learning_rate=(3e-4, 1e-4), entropy=(1e-3, 1e-4)),
)

PRESETS: dict[str, TrainConfig] = {
    "resource_gathering": TrainConfig(
        n=25,
        transitions=1_000_000,
        sizes=Sizes(environments=64, unroll=32, epochs=10, minibatches=8),
        rates=Rates(learning_rate=(5e-4, 1e-4), entropy=(5e-2, 1e-3)),
    ),
    "halfcheetah_speed": _SPEED,
    "walker2d_speed": _SPEED,
    "ant_speed": _SPEED,
    "hopper_speed": _SPEED,
}


def preset(name: str, **changes: Any) -> TrainConfig:
    """The preset of env `name` with fields of `TrainConfig` changed: ``preset("ant_speed", k=5, seed=1)``.

    Raises:
        ConfigError: the env has no preset, or a change breaks its field's rule.
    """
    if name not in PRESETS:
        raise unknown_name("env", name, PRESETS)
    return replace(PRESETS[name], **changes)
