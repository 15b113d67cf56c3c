"""A mesh of devices with axes ("policy", "env"), or one device without a mesh; `layout.py` says what lies where on it.

The compiler moves data between devices (`jax.jit` with shardings). Code below `jit` says where something has to be by
`constrain`, and knows of no mesh otherwise.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rmdp_jax.errors import ConfigError, whole_number
from rmdp_jax.types import PyTree


def choose_mesh(k: int, environments: int, backend: str, devices: int | None = None) -> Mesh | None:
    """The mesh for k policies with E environments each; None where one device does it all.

    The policy axis takes the largest share of the devices that divides k, the env axis the rest, which must divide E. Where
    nothing fits all devices, fewer are taken.

    Args:
        k, environments: k and E.
        backend: of the env; "native" physics is stepped by the CPU of one process, whatever devices there are.
        devices: how many to take at most; all of all processes when not given.

    Raises:
        ConfigError: there are not so many devices, or several processes, each of which has to take part, cannot.
    """
    check_devices(devices)
    known = jax.devices()
    most = len(known) if devices is None else int(devices)
    number = 1 if backend == "native" else max(number for number in range(1, most + 1) if _fits(number, k, environments))
    if jax.process_count() > 1 and number < len(known):
        raise _idle_processes(len(known), k, environments, backend, devices)
    shape = (math.gcd(number, k), number // math.gcd(number, k))
    return None if number == 1 else Mesh(np.array(known[:number]).reshape(shape), ("policy", "env"), axis_types=_AUTO)


def check_devices(devices: int | None) -> None:
    """Raise `ConfigError` where JAX does not find so many."""
    known = jax.device_count()
    if devices is not None:
        whole_number("devices", devices, 1, known, f"from 1 to {known}, the devices that JAX finds")


_AUTO = (AxisType.Auto, AxisType.Auto)


def _fits(number: int, k: int, environments: int) -> bool:
    return environments % (number // math.gcd(number, k)) == 0


def _idle_processes(number: int, k: int, environments: int, backend: str, devices: int | None) -> ConfigError:
    if devices is not None:
        return ConfigError(f"devices = {devices}: several processes take all {number} devices; leave it out")
    if backend == "native":
        return ConfigError("backend = native: steps on the CPU of one process; for several processes take backend mjx")
    rest = number // math.gcd(number, k)
    return ConfigError(
        f"environments = {environments}: {number} devices in several processes, with k = {k}, take a multiple of {rest}; "
        f"choose that, or a k with more divisors in common with {number}"
    )


def describe_mesh(mesh: Mesh | None) -> str:
    """How many devices do what."""
    if mesh is None:
        return f"1 of {jax.device_count()} devices"
    policy, env = mesh.devices.shape
    of = "" if mesh.size == jax.device_count() else f" of {jax.device_count()}"
    return f"{mesh.size}{of} devices: policies over {policy}, environments of each over {env}"


def constrain(tree: PyTree, *axes: str) -> PyTree:
    """`tree` with the leading axes of its leaves over these axes of the mesh; whole on each device along all others.

    The mesh is that of the program being traced (`jax.set_mesh`); without one, `tree` as it is.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if "policy" not in mesh.axis_names:
        return tree
    return jax.lax.with_sharding_constraint(tree, P(*axes))


def tracing_on(mesh: Mesh | None) -> AbstractContextManager:
    """The context in which a program for `mesh` is traced, so that `constrain` knows of it."""
    return nullcontext() if mesh is None else jax.set_mesh(mesh)


def on_mesh(mesh: Mesh | None, **shardings: PyTree) -> dict[str, PyTree]:
    """`shardings` as arguments of `jax.jit`; none without a mesh."""
    return {} if mesh is None else shardings


def everywhere(mesh: Mesh | None) -> NamedSharding | None:
    """Every device has all of it, and so has every process. None without a mesh."""
    return None if mesh is None else NamedSharding(mesh, P())
