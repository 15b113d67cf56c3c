"""Whether an `Assigner` keeps its word, before anything is compiled. Those of this package are held to it by their tests."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.assigners.base import LARGEST_BEHAVIOURS, Assigner, Copies, EStepInput, Together, check_sizes
from rmdp_jax.checks import Broken, being_traced, check_array, check_like, kind_of, shapes_of
from rmdp_jax.errors import INT32, ConfigError, flag, in_line, instance_of, whole_number

LARGEST_WEIGHED = 10**7  # entries of weights (k, n) up to which the first ones are looked at

_OWN = "rmdp_jax."


def check_assigner(assigner: Assigner, *, can_restore: bool) -> None:
    """Raise `ConfigError` unless fields, shapes, dtypes and the first weights of an assigner are as `Assigner` promises.

    Args:
        assigner: any; the functions of those in this package are not traced, as that takes time and tests have done so.
        can_restore: as in `EStepInput`.
    """

    def broken(rest: str) -> ConfigError:
        return ConfigError(f"assigner = {in_line(assigner.name)}: {rest}")

    _check_fields(broken, assigner)
    functions = [assigner.init, assigner.weights, assigner.descend, assigner.reassign]
    functions += [function for function in (assigner.conclude, assigner.together) if function is not None]
    if not all(getattr(function, "__module__", None) and function.__module__.startswith(_OWN) for function in functions):
        _check_functions(broken, assigner, can_restore)


def _check_functions(broken: Broken, assigner: Assigner, can_restore: bool) -> None:
    k, n, key = assigner.k, assigner.n, jax.eval_shape(lambda: jax.random.key(0))
    way_out = "init, descend and reassign must give the same structure, shapes and dtypes"
    inputs = _like_inputs(assigner, can_restore)
    known = {"can_restore": can_restore, "can_explore": can_restore}  # what is no array is not traced
    state = shapes_of(broken, "init", assigner.init, key)
    first = ("init", state)
    check_array(broken, "weights", shapes_of(broken, "weights", assigner.weights, state), (k, n), jnp.float32)
    descended = shapes_of(broken, "descend", assigner.descend, inputs.utility, state)
    check_like(broken, ("descend", descended), first, weakly=False, way_out=way_out)
    reassign, conclude = (_with_known(function, known) for function in (assigner.reassign, assigner.conclude))
    reassigned = shapes_of(broken, "reassign", reassign, key, state, inputs)
    if not isinstance(reassigned, tuple | list) or len(reassigned) != 2 or not isinstance(reassigned[1], Copies):
        raise broken(f"reassign returns {kind_of(reassigned)}, must be (state, Copies(...)), such as no_copies(k)")
    check_like(broken, ("reassign", reassigned[0]), first, weakly=False, way_out=way_out)
    check_array(broken, "sources of reassign", reassigned[1].sources, (k,), jnp.int32)
    if assigner.archive_size:
        check_array(broken, "archive_sources of reassign", reassigned[1].archive_sources, (assigner.archive_size,), jnp.int32)
    if conclude is not None:
        concluded = shapes_of(broken, "conclude", conclude, state, inputs)
        if not isinstance(concluded, tuple | list) or len(concluded) != 2:
            raise broken(f"conclude returns {kind_of(concluded)}, must be (labels, sources)")
        check_array(broken, "labels of conclude", concluded[0], (n,), jnp.int32)
        check_array(broken, "sources of conclude", concluded[1], (k,), jnp.int32)
    if assigner.together is not None:
        returned = shapes_of(broken, "together", assigner.together, state)
        if not isinstance(returned, Together):
            raise broken(f"together returns {kind_of(returned)}, must be Together(now, weights)")
        check_array(broken, "now of together", returned.now, (), jnp.bool_)
        check_array(broken, "weights of together", returned.weights, (n,), jnp.float32)
    if k * n <= LARGEST_WEIGHED and not being_traced():
        _check_first(broken, assigner)


def _with_known(function: Any, known: dict[str, Any]) -> Any:
    """`function` of arguments of which the last is an `EStepInput`, whose fields that are no arrays are filled in."""
    if not callable(function):
        return function
    return lambda *arguments: function(*arguments[:-1], arguments[-1]._replace(**known))


def _check_fields(broken: Broken, assigner: Assigner) -> None:
    check_sizes(assigner.k, assigner.n)
    instance_of("assigner.name", assigner.name, str, "a word")
    instance_of("assigner.options", assigner.options, Mapping, "a mapping from names to values")
    flag("assigner.needs_per_agent_critic", assigner.needs_per_agent_critic)
    for name, high in (("pretraining", 2**63), ("segment_environments", LARGEST_BEHAVIOURS), ("archive_size", INT32)):
        whole_number(f"assigner.{name}", getattr(assigner, name), 0, high)
    sampled = assigner.sampled_agents
    if sampled is None:
        return
    sampled = np.asarray(sampled)
    if sampled.ndim != 1 or not np.issubdtype(sampled.dtype, np.integer) or not sampled.size:
        raise broken(f"sampled_agents is {sampled.dtype} {sampled.shape}, must be whole numbers (m,)")
    if sampled.min() < 0 or sampled.max() >= assigner.n:
        raise broken(f"sampled_agents are {sampled.min()}..{sampled.max()}, must be of 0..{assigner.n - 1}")


def _like_inputs(assigner: Assigner, can_restore: bool) -> EStepInput:
    """Shapes of what the trainer gives an E-step."""

    def floats(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    k, n, number, size = assigner.k, assigner.n, assigner.segment_environments, assigner.archive_size
    m = n if assigner.sampled_agents is None else len(assigner.sampled_agents)
    return EStepInput(
        utility=floats(k, n),
        iteration=jax.ShapeDtypeStruct((), jnp.int32),  # type: ignore[arg-type]
        progress=floats(),
        segments=floats(k, number, m) if number else None,
        archived=floats(size, n) if size and can_restore else None,
        can_restore=None,  # type: ignore[arg-type]  # no array
        can_explore=None,  # type: ignore[arg-type]
    )


def _check_first(broken: Broken, assigner: Assigner) -> None:
    """What shapes do not show of the first weights."""
    weights = np.asarray(assigner.weights(assigner.init(jax.random.key(0))))
    sums = weights.sum(0, dtype=np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0.0:
        raise broken(f"the first weights are from {weights.min():g} to {weights.max():g}, must be shares from 0 to 1")
    if not np.allclose(sums, 1.0, atol=1e-3):
        worst = int(np.abs(sums - 1.0).argmax())
        raise broken(
            f"the first weights of agent {worst} sum to {sums[worst]:g}, must to 1 over the policies (labels in 0..k-1)"
        )
