"""The formats that a policy is exported as, by name: each makes one file of it."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.errors import ConfigError, known_name, not_installed, shown
from rmdp_jax.types import Array

PLATFORMS = ("cpu", "cuda", "tpu")  # of `jax`
RUNNER = Path(__file__).with_name("run_policy.py")  # not imported: it takes packages of the extra
OPSET = 17  # of `onnx`; has all that a policy takes, and old runtimes know it


class Source(NamedTuple):
    """One policy, as formats take it."""

    choose: Callable[[Array], Array]  # observations (b, o) float32 -> actions (b,) int32 or (b, a) float32
    arrays: dict[str, np.ndarray]  # of `plain_arrays`
    observation_size: int  # o


class Format(NamedTuple):
    """How a policy becomes a file."""

    suffix: str
    packages: tuple[str, ...]  # to import when it is written
    write: Callable[[Source], bytes]
    beside: tuple[Path, ...] = ()  # files that go with it


def check_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """The names in `formats`, each once.

    Raises:
        ConfigError: one is not known, there are none, or packages that one takes are not installed.
    """
    names = tuple(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    if not names:
        raise ConfigError(f"formats = {shown(names)}: must be one or more of {', '.join(FORMATS)}")
    for name in names:
        missing = [package for package in known_name("format", name, FORMATS).packages if find_spec(package) is None]
        if missing:
            raise not_installed(f"format = {name!r}", ", ".join(missing), "export")
    return names


def write_onnx(source: Source) -> bytes:
    """An ONNX model: observation (batch, o) float32 -> action (batch,) int32 or (batch, a) float32."""
    with _silent("jax2onnx"), _put_back("jax", "flax"):
        from jax2onnx import to_onnx

        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            model = to_onnx(
                source.choose,
                inputs=[("batch", source.observation_size)],
                input_names=["observation"],
                output_names=["action"],
                model_name="policy",
                opset=OPSET,
            )
    return model.SerializeToString(deterministic=True)


def write_jax(source: Source) -> bytes:
    """What `jax.export.deserialize` reads, for `PLATFORMS`: its `call` takes observations (b, o) float32 of any b."""
    from jax import export

    obs = jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {source.observation_size}"), jnp.float32)
    return bytes(export.export(jax.jit(source.choose), platforms=PLATFORMS)(obs).serialize())


def write_safetensors(source: Source) -> bytes:
    """The arrays of `plain_arrays`."""
    from safetensors.numpy import save

    return save(source.arrays)


FORMATS = {
    "onnx": Format(".onnx", ("jax2onnx",), write_onnx),
    "jax": Format(".jax", ("flatbuffers",), write_jax),
    "safetensors": Format(".safetensors", ("safetensors",), write_safetensors, beside=(RUNNER,)),
}


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what a library logs and warns of: jax2onnx reports each plugin that does not fit this JAX, with tracebacks."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _put_back(*packages: str) -> Iterator[None]:
    """Afterwards functions in public modules and classes of `packages` are those of before: jax2onnx leaves a `jnp.cumsum` of
    its own, without positional axis, and some layers of Flax."""

    def public(name: str) -> bool:
        return name.split(".")[0] in packages and "._" not in name

    modules = [module for name, module in sys.modules.items() if public(name) and isinstance(module, ModuleType)]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    places: list[Any] = [*modules, *(each for each in classes if public(each.__module__))]
    before = [(place, {name: value for name, value in vars(place).items() if callable(value)}) for place in places]
    try:
        yield
    finally:
        for place, functions in before:
            for name, function in functions.items():
                if vars(place).get(name) is not function:
                    setattr(place, name, function)
