"""The tasks, by name: ``make(name, n=..., seed=...) -> (Env, Population)``."""

import inspect
from collections.abc import Callable
from typing import Any

from rmdp_jax.env import Env, Population
from rmdp_jax.envs.resource_gathering import make_resource_gathering
from rmdp_jax.errors import ConfigError, unknown_name


def _speed(body: str) -> Callable[..., tuple[Env, Population]]:
    def make_body(n: int = 100, seed: int = 0, *, backend: str = "auto", episode_length: int = 1000) -> Any:
        from rmdp_jax.envs.speed import make_speed  # brings brax and mujoco, which take seconds

        return make_speed(body, n=n, seed=seed, backend=backend, episode_length=episode_length)

    return make_body


BACKENDS = ("auto", "native", "mjx", "spring", "positional", "generalized")  # of speed tasks

ENVS: dict[str, Callable[..., tuple[Env, Population]]] = {
    "resource_gathering": make_resource_gathering,
    **{f"{body}_speed": _speed(body) for body in ("halfcheetah", "walker2d", "ant", "hopper")},
}


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """Arguments that `make(name, ...)` takes besides n and seed."""
    parameters = inspect.signature(_factory(name)).parameters
    return {option: parameter for option, parameter in parameters.items() if option not in ("n", "seed")}


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
    given = {"seed": seed, **options} if n is None else {"n": n, "seed": seed, **options}
    env, population = _factory(name)(**given)
    described = {**given, "n": population.n}
    return env._replace(spec=env.spec._replace(options=described)), population


def describe_envs() -> list[tuple[str, str, str, str]]:
    """Rows (name, default number of agents, backends, options) for people."""
    from rmdp_jax.envs.presets import PRESETS

    rows = []
    for name in ENVS:
        options = options_of(name)
        backends = ", ".join(BACKENDS) if "backend" in options else "jax"
        rows.append((name, str(PRESETS["default"][name].n), backends, ", ".join(f"--{o.replace('_', '-')}" for o in options)))
    return rows


def _factory(name: str) -> Callable[..., tuple[Env, Population]]:
    if name not in ENVS:
        raise unknown_name("env", name, ENVS)
    return ENVS[name]
