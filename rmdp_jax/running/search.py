"""What `tune` searches through: settings by name, each with a range or with choices."""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any, NamedTuple

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.errors import ConfigError, shown, unknown_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SCHEDULES = ("learning_rate", "entropy")  # whose start is searched; the end stays in the preset's proportion
_RATES = tuple(field.name for field in fields(Rates))
_SIZES = tuple(field.name for field in fields(Sizes))
_WIDE = 8.0  # how many times less or more than the preset's a schedule may begin with, where nothing is said
MOST_TOGETHER = 10_000  # combinations of choices that are looked at before the search begins
_LOG_FROM = 10.0  # ratio of the ends of a range from which on its numbers are drawn by their logarithm


class Setting(NamedTuple):
    """One setting that is searched."""

    name: str
    low: float | None = None  # of a range
    high: float | None = None
    choices: tuple[Any, ...] = ()  # or of choices

    @property
    def fixes_shapes(self) -> bool:
        """Whether trials with other values take programs of their own."""
        return self.name in _SIZES

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it; hidden layers are texts such as 64x64."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        if self.low is None or self.high is None:
            return CategoricalDistribution(self.choices)
        return FloatDistribution(self.low, self.high, log=self.low > 0 and self.high / self.low >= _LOG_FROM)

    def holds(self, value: Any) -> bool:
        """Whether the search may come to `value`."""
        if self.low is None or self.high is None:
            return value in self.choices
        return value is not None and self.low <= value <= self.high  # a discount that is the task's own is None


def default_search(config: TrainConfig) -> tuple[Setting, ...]:
    """Four rates about those of `config`."""
    starts = [(name, getattr(config.rates, name)[0]) for name in SCHEDULES]
    schedules = [Setting(name, start / _WIDE, start * _WIDE) for name, start in starts if start > 0]
    return (*schedules, Setting("clip", 0.1, 0.4), Setting("gae_lambda", 0.8, 1.0))


def read_search(words: Sequence[str], config: TrainConfig) -> tuple[Setting, ...]:
    """Settings of words NAME=LOW..HIGH, of a rate, or NAME=A,B,C, of a rate or a size; `default_search` of none.

    Raises:
        ConfigError: a word is none of those, a name is not known or there twice, or a value breaks its rule.
    """
    settings = tuple(_read(word) for word in words) or default_search(config)
    names = [setting.name for setting in settings]
    for setting in settings:
        if names.count(setting.name) > 1:
            raise ConfigError(f"search = {setting.name}: is there twice; give each setting once")
        for value in setting.choices or (setting.low, setting.high):
            try:
                with_values(config, {setting.name: value})
            except ConfigError as error:
                raise ConfigError(f"search: {error}") from None
    _check_together(settings, config)
    return settings


def _check_together(settings: Sequence[Setting], config: TrainConfig) -> None:
    """Raise `ConfigError` where choices of sizes break a rule together, as a trial that draws them could not be trained."""
    sizes = {setting.name: setting.choices for setting in settings if setting.fixes_shapes}
    for values in islice(product(*sizes.values()), MOST_TOGETHER):
        try:
            with_values(config, dict(zip(sizes, values, strict=True)))
        except ConfigError as error:
            raise ConfigError(f"search: choices do not go together: {error}") from None


def with_values(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """`config` with the values of settings, as trials have them."""
    rates: dict[str, Any] = {name: value for name, value in values.items() if name in _RATES}
    for name in SCHEDULES:
        if name in rates:
            first, last = getattr(config.rates, name)
            rates[name] = (rates[name], rates[name] * (last / first if first else 1.0))
    sizes: dict[str, Any] = {name: value for name, value in values.items() if name in _SIZES}
    if "hidden" in sizes:
        sizes["hidden"] = tuple(int(units) for units in str(sizes["hidden"]).split("x"))
    return replace(config, rates=replace(config.rates, **rates), sizes=replace(config.sizes, **sizes))


def values_of(config: TrainConfig, settings: Sequence[Setting]) -> dict[str, Any]:
    """The values of settings that `config` has, as trials have them."""

    def value(name: str) -> Any:
        found = getattr(config.rates if name in _RATES else config.sizes, name)
        return found[0] if name in SCHEDULES else "x".join(map(str, found)) if name == "hidden" else found

    return {setting.name: value(setting.name) for setting in settings}


def _read(word: str) -> Setting:
    name, _, text = word.partition("=")
    rule = "NAME=LOW..HIGH or NAME=A,B,C, such as learning_rate=1e-4..1e-2 or epochs=4,10"
    name = name.replace("-", "_")
    if not text:
        raise ConfigError(f"search = {shown(word)}: must be {rule}")
    if name not in _RATES + _SIZES:
        raise unknown_name("search", name, _RATES + _SIZES)
    ends = text.split("..")
    if len(ends) == 1:
        choices = tuple(_value(name, part) for part in text.split(","))
        if len(set(choices)) < 2:
            raise ConfigError(f"search = {shown(word)}: must be {rule}, with two choices at least")
        return Setting(name, choices=choices)
    low, high = (_value(name, end) for end in ends) if len(ends) == 2 else (None, None)
    if name not in _RATES or not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        raise ConfigError(f"search = {shown(word)}: must be {rule}; a range is of a rate, from the lower to the higher")
    return Setting(name, float(low), float(high))


def _value(name: str, text: str) -> Any:
    """A number, a flag or a word; layers as a text."""
    if name == "hidden":
        if not re.fullmatch(r"\d{1,6}(x\d{1,6})*", text):
            raise ConfigError(f"search = hidden={text}: must be layers such as 64x64")
        return text
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and name in _SIZES else number
