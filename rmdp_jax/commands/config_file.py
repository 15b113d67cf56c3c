"""``--config FILE``: settings of `train` from a config.json, of a run or written by hand."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rmdp_jax.commands.train import Train
from rmdp_jax.config import TrainConfig
from rmdp_jax.errors import ConfigError, plain_number, shown, unknown_name
from rmdp_jax.paths import local_path

# Of a run's own.
_RECORDED = ("format", "backend", "numerics", "algorithm_options", "pretraining_transitions", "frozen", "start", "release")
_OF_TRAIN = tuple(field.name for field in fields(TrainConfig))
_OPTIONS_OF_FLAGS = ("n", "seed", "context")  # which other flags say


def read_config_file(path: Path) -> dict[str, Any]:
    """What the file holds: env, env_options, algorithm and train, all of them optional, and what a run adds.

    Raises:
        ConfigError: it cannot be read, or has a field that is not known.
    """
    from rmdp_jax.records.files import read_json
    from rmdp_jax.records.folder import FORMAT
    from rmdp_jax.records.schema import GIVEN_CONFIG, check_fields

    path = local_path("config", path)
    content = read_json(path / "config.json" if path.is_dir() else path)
    _check_names(path, "", content, ("env", "make", "env_options", "algorithm", "train", *_RECORDED))
    if content.get("format", FORMAT) != FORMAT:
        raise ConfigError(f"config = {path}: has format {shown(content['format'])}, this version reads {FORMAT}")
    check_fields(f"config = {path}", content, GIVEN_CONFIG)
    train = content.get("train", {})
    _check_names(path, "train", train, _OF_TRAIN)
    return content


def with_settings(train: Train, path: Path, content: Mapping[str, Any]) -> Train:
    """`train` with what `read_config_file` read in `path`.

    Raises:
        ConfigError: a value breaks its rule; those of k, n and their like are looked at when all flags are known.
    """
    from rmdp_jax.records.settings import words_of

    of_run = dict(content.get("train", {}))
    sizes, rates = of_run.pop("sizes", {}), of_run.pop("rates", {})
    if "format" in content and isinstance(sizes, dict):  # of a run, which leaves out what is as `Sizes` has it
        sizes = {"explore": type(train.sizes).explore, **sizes}
    _check_names(path, "train: sizes", sizes, [field.name for field in fields(train.sizes)])
    _check_names(path, "train: rates", rates, [field.name for field in fields(train.rates)])
    try:
        changes: dict[str, Any] = {"sizes": replace(train.sizes, **sizes), "rates": replace(train.rates, **rates)}
    except ConfigError as error:
        raise ConfigError(f"config = {path}: {error}") from None
    changes |= {name: _plain(path, name, value) for name, value in of_run.items()}
    if plain_number(of_run.get("transitions")) is not None and content.get("pretraining_transitions"):
        changes["transitions"] += content["pretraining_transitions"]  # the budget that was given
    for flag, name in (("freeze", "frozen"), ("start_from", "start")):
        if content.get(name):
            changes[flag] = words_of(content[name])
    given = content.get("env_options", {})
    _check_names(path, "env_options", given, (*vars(train.env_options), *_OPTIONS_OF_FLAGS))
    options = {name: value for name, value in given.items() if name not in _OPTIONS_OF_FLAGS}
    if given.get("seed", of_run.get("seed")) != of_run.get("seed"):
        options["people_seed"] = given["seed"]
    if "n" in given and "n" not in of_run:
        changes["n"] = _plain(path, "n", given["n"])
    changes["env_options"] = replace(train.env_options, **options)
    named = {"algorithm": content["algorithm"]} if "algorithm" in content else {}
    named |= {"env": task_in(content)} if task_in(content) else {}
    return replace(train, **changes, **named, config=path)


def task_in(content: Mapping[str, Any]) -> str | None:
    """The name by which the task of a config.json is made."""
    name = content.get("make", content.get("env"))
    return None if name is None else str(name)


def _plain(path: Path, name: str, value: Any) -> Any:
    """A number or numbers of the file, as a flag has them."""
    if value is None or plain_number(value) is not None:
        return value
    if isinstance(value, list) and all(plain_number(one) is not None for one in value):
        return tuple(value)
    if name == "welfare_p" and value == "-inf":  # JSON has no infinity
        return -math.inf
    raise ConfigError(f"config = {path}: train: {name} = {shown(value)}: must be a number")


def _check_names(path: Path, where: str, content: Any, known: Any) -> None:
    place = f"config = {path}: {where}: " if where else f"config = {path}: "
    if not isinstance(content, dict):
        raise ConfigError(f"{place}{shown(content)}: must be an object of names and values")
    for name in content:
        if not where and name not in known and name in _OF_TRAIN:
            raise ConfigError(f'{place}{name}: belongs into train, {{"train": {{"{name}": ...}}}}')
        if name not in known:
            raise ConfigError(f"{place}{unknown_name('field', name, known)}")
