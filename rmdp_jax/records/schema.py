"""What config.json, result.json and lines of metrics must hold to be read: of files that people or machines changed, too."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rmdp_jax.errors import ConfigError


class Rule(NamedTuple):
    """What a field must be."""

    words: str
    holds: Callable[[Any], bool]
    needed: bool = True


def check_fields(where: str | Path, content: Any, rules: Mapping[str, Rule]) -> None:
    """Raise `ConfigError`, which names the place and the field, unless `content` is an object that holds the rules."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: is no JSON object; bring back what was there, or train again")
    for name, rule in rules.items():
        if name not in content:
            if rule.needed:
                raise ConfigError(f"{where}: has no {name}; bring back what was there, or train again")
        elif not rule.holds(content[name]):
            value = repr(content[name])
            value = value if len(value) <= 60 else value[:57] + "..."
            raise ConfigError(f"{where}: {name} = {value}: must be {rule.words}; bring back what was there, or train again")


def _is_whole(value: Any, low: int = 0, high: int = 2**63) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _are(holds: Callable[[Any], bool], value: Any, number: int | None = None) -> bool:
    return isinstance(value, list) and (number is None or len(value) == number) and all(map(holds, value))


def _may_be_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_full_path(path: str) -> bool:
    """Whether a path means one file whatever the present folder is, by no link."""
    return os.path.realpath(path) == path


def _has_whole_seed(options: Any) -> bool:
    return isinstance(options, dict) and (options.get("seed") is None or _is_whole(options["seed"]))


TEXT = Rule("a text", lambda value: isinstance(value, str))
OBJECT = Rule("an object", lambda value: isinstance(value, dict))
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
COUNT = Rule("a whole number of at least 1", lambda value: _is_whole(value, 1))
WHOLE = Rule("a whole number from 0 up", _is_whole)
NUMBER = Rule("a number", _is_number)
NUMBER_OR_NULL = Rule("a number or null", _may_be_null)


def _optional(rule: Rule) -> Rule:
    return rule._replace(needed=False)


def _per_policy(k: int, rule: Rule) -> Rule:
    return Rule(f"a list of k = {k} numbers", lambda value: _are(rule.holds, value, k), rule.needed)


def _labels(k: int, n: int, *, needed: bool = True) -> Rule:
    words = f"a list of n = {n} whole numbers from 0 to {k - 1}"
    return Rule(words, lambda value: _are(lambda label: _is_whole(label, 0, k), value, n), needed)


MAKER = Rule(
    "module:function, or /the/full/path.py:function",
    lambda value: isinstance(value, str) and (".py:" not in value or _is_full_path(value.rpartition(":")[0])),
    needed=False,
)
TASK = {
    "env": TEXT,
    "make": MAKER,
    "env_options": OBJECT,
    "backend": TEXT,
    "algorithm": TEXT,
    "algorithm_options": _optional(OBJECT),
}
SOURCES = Rule(
    "a list of objects with run, policy and sha256",
    lambda value: _are(
        lambda source: (
            isinstance(source, dict)
            and source.keys() == {"run", "policy", "sha256"}
            and _is_whole(source["policy"])
            and all(isinstance(source[name], str) for name in ("run", "sha256"))
        ),
        value,
    ),
)
GIVEN = {"frozen": _optional(SOURCES), "start": _optional(SOURCES)}
CONFIG = {**TASK, "train": OBJECT, "numerics": _optional(OBJECT), "pretraining_transitions": _optional(WHOLE), **GIVEN}
GIVEN_CONFIG = {"algorithm_options": _optional(OBJECT), "pretraining_transitions": _optional(WHOLE), **GIVEN}  # of --config
CONFIG_TRAIN = {
    "k": COUNT,
    "n": COUNT,
    "seed": WHOLE,
    "transitions": _optional(COUNT),
    "sizes": OBJECT,
    "rates": OBJECT,
}
# What `compare` reads of a run, of its folder or of a line of runs.jsonl.
RUN = {
    **TASK,
    "env_options": Rule("an object, and its seed a whole number", _has_whole_seed),
    "k": COUNT,
    "n": COUNT,
    "seed": WHOLE,
    "welfare": NUMBER_OR_NULL,
    "total_transitions": WHOLE,
    "iterations": _optional(WHOLE),
    "finished": _optional(FLAG),
    "transitions_per_policy": _optional(WHOLE),
    "pretraining_transitions": _optional(WHOLE),
    "upper_bound": _optional(NUMBER_OR_NULL),
    "reachable": _optional(NUMBER_OR_NULL),
    "share_of_bound": _optional(NUMBER_OR_NULL),
    "settings": _optional(OBJECT),
    **GIVEN,
}


def check_config(path: Path, content: Any) -> None:
    """Raise `ConfigError` unless `content` is that of a config.json; the values of settings are checked by `TrainConfig`."""
    check_fields(path, content, CONFIG)
    check_fields(f"{path}: train", content["train"], CONFIG_TRAIN)


def check_result(path: Path, content: Any) -> None:
    """Raise `ConfigError` unless `content` is that of a result.json with all that tables and pictures read."""
    check_fields(path, content, RUN)
    k, n, listed = content["k"], content["n"], "arrays" not in content
    matrix = Rule(
        f"k = {k} lists of n = {n} numbers", lambda value: _are(lambda row: _are(_may_be_null, row, n), value, k), listed
    )
    needed = {name: RUN[name]._replace(needed=True) for name in ("iterations", "finished", "transitions_per_policy")}
    known = {
        name: NUMBER_OR_NULL for name in ("welfare_standard_error", "welfare_deterministic", "upper_bound", "share_of_bound")
    }
    times = {name: NUMBER for name in ("wall_s", "compile_s", "transitions_per_s")}
    rest = {
        "softness": NUMBER_OR_NULL,
        "policies_from": _optional(_per_policy(k, WHOLE)),
        "diverged": _optional(_per_policy(k, WHOLE)),
        "recovered": _optional(_per_policy(k, WHOLE)),
        "nonfinite_rewards": _optional(WHOLE),
        "episodes_kept": _optional(WHOLE),
        **GIVEN,
        "policy_sizes": _per_policy(k, WHOLE),
        "episode_length": _per_policy(k, NUMBER_OR_NULL),
        "device": TEXT,
        "arrays": _optional(Rule("'result.npz'", lambda value: value == "result.npz")),
        "assignment": _labels(k, n, needed=listed),
        "utility": matrix,
    }
    check_fields(path, content, {**needed, **known, **times, **rest})


def check_line(where: str, line: Any, k: int | None = None, n: int | None = None) -> None:
    """Raise `ConfigError` unless `line` is one of metrics.jsonl; where k and n are known, with all that pictures read."""
    check_fields(where, line, {"iteration": COUNT})
    if k is None or n is None:
        return
    means = {name: _per_policy(k, NUMBER_OR_NULL) for name in line if name.startswith("mean_")}
    rest = {
        "transitions_per_policy": WHOLE,
        "welfare": NUMBER_OR_NULL,
        "welfare_recent": _optional(NUMBER_OR_NULL),
        "flips": WHOLE,
        "copies": _optional(WHOLE),
        "policy_sizes": _per_policy(k, WHOLE),
        "assignment": _labels(k, n, needed=False),
    }
    check_fields(where, line, {**rest, **means})
