"""Which settings a run in a folder was made with, and whether others may go on with it."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.env import task_options
from rmdp_jax.errors import ConfigError, shown
from rmdp_jax.records.files import read_json, reason_of, to_json
from rmdp_jax.records.folder import NUMERICS, RunFolder

_MAY_CHANGE_ON_RESUME = ("log_every", "checkpoint_every", "evaluation_episodes")


def load_train_config(content: dict[str, Any]) -> TrainConfig:
    """The `TrainConfig` of a config.json.

    Raises:
        ConfigError: a field is unknown or breaks its rule.
    """
    try:
        train = dict(content["train"])
        sizes, rates = dict(train.pop("sizes")), dict(train.pop("rates"))
        sizes["hidden"] = tuple(sizes["hidden"])
        for name in ("learning_rate", "entropy"):
            rates[name] = tuple(rates[name])
        train["welfare_p"] = float(train.get("welfare_p", 1.0))  # 1 of versions that did not know it, "-inf" of no number
        return TrainConfig(**train, sizes=Sizes(**sizes), rates=Rates(**rates))
    except ConfigError as error:
        raise ConfigError(f"config.json: {error}") from None
    except KeyError as error:
        raise ConfigError(f"config.json: has no {error.args[0]}; bring back what was there, or train again") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"config.json: {reason_of(error)}; it was written by another version, or changed") from None


def changed_settings(folder: RunFolder, config: dict[str, Any], may_change: Sequence[str]) -> list[str]:
    """The settings in `config`, as config.json holds them, that differ from those of the run in `folder`, with both values.

    Raises:
        ConfigError: there is no run.
    """
    old = folder.read_config()
    there, here = (_flat(content, with_options=old["algorithm"] == config["algorithm"]) for content in (old, config))
    names = [*here, *(name for name in task_options(old["env_options"]) if name not in here and config["env_options"])]
    changed = [name for name in names if name not in may_change and there.get(name) != here.get(name)]
    return [f"{name} ({there.get(name)} there, {here.get(name)} here)" for name in changed]


def check_same_run(folder: RunFolder, config: dict[str, Any], extend: bool) -> int | None:
    """Raise `ConfigError` unless `config` is that of the run in `folder`, but for what may change.

    Args:
        folder: of a run.
        config: what config.json is to hold.
        extend: it may go on for more transitions than it was made for.

    Returns:
        How many it was made for, where it is extended.
    """
    there, here = folder.read_config()["train"].get("transitions"), config["train"]["transitions"]
    longer = extend and isinstance(there, int) and here > there
    may_change = (*_MAY_CHANGE_ON_RESUME, *(["transitions"] if longer else []))
    changed = changed_settings(folder, config, may_change)
    if changed:
        only = [change.split(" ")[0] for change in changed] == ["transitions"]
        hint = "; a run goes on beyond its end by --extend, never ends before" if only else "; give what it was made with"
        raise ConfigError(f"resume: {', '.join(changed)} differ from the run in {folder.path}{hint}")
    return there if longer else None


def check_algorithm_options(path: Path, options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless the config.json at `path` asks for the `options` that its algorithm has here, or for none."""
    content = read_json(path / "config.json" if path.is_dir() else path)
    asked, here = content.get("algorithm_options") or {}, json.loads(to_json(dict(options)))
    for name, value in asked.items():
        if name in here and here[name] != value:
            raise ConfigError(
                f"config = {path}: algorithm_options: {name} = {shown(value)}: is set in Python only, here {shown(here[name])}"
            )


def words_of(sources: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Policies of other runs, as config.json names them, in the words that --freeze takes: DIR:J,J for those of one run."""
    runs = groupby(sources, lambda source: source["run"])
    return tuple(f"{run}:{','.join(str(source['policy']) for source in own)}" for run, own in runs)


def _flat(config: dict[str, Any], *, with_options: bool) -> dict[str, Any]:
    """The settings of a config.json by their own names, those of the algorithm too or not."""
    train = config["train"]
    names = ("env", "make", "backend", "algorithm", "pretraining_transitions")
    people = {name: config["env_options"][name] for name in ("n", "seed") if name in config["env_options"]}
    settings = {name: config[name] for name in names if name in config} | people | task_options(config["env_options"])
    settings |= config.get("algorithm_options", {}) if with_options else {}
    for name in ("frozen", "start"):  # policies of other runs
        settings[name] = words_of(config.get(name, []))
    settings |= {
        "welfare_p": 1.0,
        "at_most": None,
        "at_least": None,
        "explore": "in_turn",
    }  # of versions that did not know them
    settings |= NUMERICS | config.get("numerics", {})
    settings |= {name: value for name, value in train.items() if name not in ("sizes", "rates")}
    return settings | train["sizes"] | train["rates"]
