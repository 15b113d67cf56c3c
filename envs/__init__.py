"""The tasks, by name: ``make(name, n=..., seed=...) -> (Env, Population)``."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from rmdp_jax.env import Env, Population
from rmdp_jax.envs.presets import PRESETS, preset
from rmdp_jax.envs.resource_gathering import make_resource_gathering
from rmdp_jax.envs.speed import BACKENDS, BODIES, make_speed
from rmdp_jax.errors import ConfigError, check, unknown_name

__all__ = ["ENVS", "describe_envs", "make", "options_of", "preset"]

ENVS: dict[str, Callable[..., tuple[Env, Population]]] = {
    "resource_gathering": make_resource_gathering,
    **{f"{body}_speed": partial(make_speed, body) for body in BODIES},
}


def make(name: str, *, n: int | None = None, seed: int = 0, **options: Any) -> tuple[Env, Population]:
    """The env `name` and its population of n agents.

    Args:
        name: a key of `ENVS`.
        n: number of agents; the task's own default when not given.
        seed: draws the agents where they are drawn (target speeds).
        **options: of the env, for instance `size=4` for resource_gathering or `backend="mjx"` for speed tasks.

    Raises:
        ConfigError: the name or an option is not known, or a value breaks its rule.
    """
    known = options_of(name)
    for option in options:
        if option not in known:
            raise ConfigError(f"{option} = {options[option]!r}: {name} takes {', '.join(known) or 'no options'}")
    check("seed", seed, 0 <= seed < 2**32, "a whole number from 0 to 2^32 - 1")
    given = {"seed": seed, **options} if n is None else {"n": n, "seed": seed, **options}
    env, population = ENVS[name](**given)
    return env._replace(spec=env.spec._replace(options={**given, "n": population.n}, probe=False)), population


def options_of(name: str) -> list[str]:
    """Arguments that `make(name, ...)` takes besides n and seed."""
    if name not in ENVS:
        raise unknown_name("env", name, ENVS)
    return [option for option in inspect.signature(ENVS[name]).parameters if option not in ("n", "seed")]


def describe_envs() -> list[tuple[str, str, str, str]]:
    """Rows (name, default number of agents, backends, options) for people."""
    rows = []
    for name in ENVS:
        options = options_of(name)
        backends = ", ".join(["auto", *BACKENDS]) if "backend" in options else "jax"
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in options)
        rows.append((name, str(PRESETS["default"][name].n), backends, flags))
    return rows
