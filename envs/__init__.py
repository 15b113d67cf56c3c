"""The tasks, by name: ``make(name, n=..., seed=...) -> (Env, Population)``."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from rmdp_jax.config import LARGEST_N
from rmdp_jax.context import with_context
from rmdp_jax.env import Env, Population
from rmdp_jax.envs.brax_adapter import from_brax
from rmdp_jax.envs.gymnax_adapter import from_gymnax
from rmdp_jax.envs.jumanji_adapter import from_jumanji
from rmdp_jax.envs.objectives import weighted_objectives
from rmdp_jax.envs.own import is_own, make_own, own_options
from rmdp_jax.envs.pictures import pictures_of
from rmdp_jax.envs.playground_adapter import from_playground
from rmdp_jax.envs.presets import PRESETS, preset
from rmdp_jax.envs.resource_gathering import make_resource_gathering
from rmdp_jax.envs.speed import BACKENDS, BODIES, make_speed
from rmdp_jax.errors import ConfigError, flag, known_name, plain_number, seed_number, shown, whole_number

__all__ = [
    "ENVS",
    "describe_envs",
    "from_brax",
    "from_gymnax",
    "from_jumanji",
    "from_playground",
    "make",
    "options_of",
    "preset",
    "weighted_objectives",
]

ENVS: dict[str, Callable[..., tuple[Env, Population]]] = {
    "resource_gathering": make_resource_gathering,
    **{f"{body}_speed": partial(make_speed, body) for body in BODIES},
}


def make(
    name: str,
    *,
    n: int | None = None,
    seed: int = 0,
    people_seed: int | None = None,
    context: bool = False,
    **options: Any,
) -> tuple[Env, Population]:
    """The env `name` and its population of n agents.

    Args:
        name: a key of `ENVS`; or of a task of your own ``package.module:make`` or ``path/to/file.py:make``, a function that
            returns (Env, Population) and gets n and seed where it takes them. See `rmdp_jax.envs.own`.
        n: number of agents; the task's own default when not given.
        seed: draws the agents where they are drawn (target speeds).
        people_seed: does that in its place, where the same options are given for runs of several seeds.
        context: let each episode be for one agent, which the policy is told (`rmdp_jax.context.with_context`).
        **options: of the env, for instance `size=4` for resource_gathering, `backend="mjx"` or `model="gymnasium"` for speed
            tasks.

    Raises:
        ConfigError: the name or an option is not known, or a value breaks its rule.
    """
    drawn = seed_number("seed", seed) if people_seed is None else seed_number("people_seed", people_seed)
    given = {"seed": drawn, **{option: _plain(value) for option, value in options.items()}}
    given = (
        given
        if n is None
        else {"n": whole_number("n", n, -LARGEST_N, LARGEST_N, f"a whole number of at most {LARGEST_N:,}"), **given}
    )
    env, population = make_own(name, given) if is_own(name) else _make_known(name, given)
    return with_context(env, population) if flag("context", context) else (env, population)


def _make_known(name: str, given: dict[str, Any]) -> tuple[Env, Population]:
    known = options_of(name)
    for option in given:
        if option not in (*known, "n", "seed"):
            raise ConfigError(f"{option} = {shown(given[option])}: {name} takes {', '.join(known) or 'no options'}")
    env, population = ENVS[name](**given)
    spec = env.spec._replace(options={**given, "n": population.n}, probe=False)
    return env._replace(spec=spec, pictures=pictures_of(name)), population


def options_of(name: str) -> list[str]:
    """Arguments that `make(name, ...)` takes besides n and seed."""
    if is_own(name):
        return [*own_options(name)]
    factory = known_name("env", name, ENVS)
    return [option for option in inspect.signature(factory).parameters if option not in ("n", "seed")]


def _plain(value: Any) -> Any:
    """An option as JSON takes it: numbers as Python's own, whole ones as ints."""
    number = plain_number(value)
    if number is None:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def describe_envs() -> list[tuple[str, str, str, str]]:
    """Rows (name, default number of agents, backends, options) for people."""
    rows = []
    for name in ENVS:
        options = options_of(name)
        backends = ", ".join(["auto", *BACKENDS]) if "backend" in options else "jax"
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in options)
        rows.append((name, str(PRESETS["default"][name].n), backends, flags))
    return rows
