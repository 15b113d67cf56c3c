"""What `benchmarks.ablation` compares: ways past the local optimum, and settings of PPO, by name; and a cell of its table."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from benchmarks.runs import revision_of
from rmdp_jax import Assigner, Env, Population, TrainConfig, em, end_to_end, plain_em
from rmdp_jax.assigners.fixed import shuffled_even
from rmdp_jax.assigners.halving_em import halving_em
from rmdp_jax.assigners.seeded_em import seeded_em
from rmdp_jax.assigners.split_and_merge import split_and_merge
from rmdp_jax.envs import make
from rmdp_jax.envs.presets import for_gpu, preset
from rmdp_jax.evaluation.comparison import flat_settings
from rmdp_jax.records.folder import dump_train_config

Line = dict[str, Any]


def _as_it_is(config: TrainConfig) -> TrainConfig:
    return config


class Variant(NamedTuple):
    """One thing to compare."""

    assigner: Callable[[int, int], Assigner] = em  # of k, n
    change: Callable[[TrainConfig], TrainConfig] = _as_it_is  # of the task's preset
    segment: int | None = None  # `EnvSpec.segment_length` instead of the task's own


class Comparison(NamedTuple):
    """Variants, and the one of them that the others are tested against."""

    against: str
    variants: Mapping[str, Variant]


def sized(**changes: Any) -> Callable[[TrainConfig], TrainConfig]:
    """A change of `Sizes`."""
    return lambda config: replace(config, sizes=replace(config.sizes, **changes))


def rated(**changes: Any) -> Callable[[TrainConfig], TrainConfig]:
    """A change of `Rates`."""
    return lambda config: replace(config, rates=replace(config.rates, **changes))


def entropy_times(start: float, end: float) -> Callable[[TrainConfig], TrainConfig]:
    """The schedule of the entropy bonus with both its ends multiplied."""

    def change(config: TrainConfig) -> TrainConfig:
        first, last = config.rates.entropy
        return rated(entropy=(start * first, end * last))(config)

    return change


def gpu(**changes: Any) -> Callable[[TrainConfig], TrainConfig]:
    """What `--preset gpu` does to a task, with some of its sizes changed."""
    return lambda config: for_gpu(config, **changes)


def _times_five(config: TrainConfig) -> TrainConfig:
    """As many updates in as many transitions, from a fifth as many batches."""
    sizes = config.sizes
    return sized(environments=5 * sizes.environments, minibatches=5 * sizes.minibatches)(config)


def _few_large(config: TrainConfig) -> TrainConfig:
    """Large batches, in minibatches of 1,024, at the learning rate that brax's PPO takes for such."""
    sizes = for_gpu(config, environments=512, epochs=8, minibatches=16, explore="at_once")
    return rated(learning_rate=(1e-3, 2e-4))(sizes)


def _constant_learning_rate(config: TrainConfig) -> TrainConfig:
    start, _ = config.rates.learning_rate
    return rated(learning_rate=(start, start))(config)


_std_from_1 = sized(log_std_init=0.0)
_std_from_1_over_e = sized(log_std_init=-1.0)
_far_view = rated(discount=None, gae_lambda=0.95)
_plain_rewards = rated(reward_scaling=1.0)
_shuffled = partial(plain_em, first=shuffled_even)

SEGMENTS = (1, 10, 200, 1000)
ASSIGNERS = {
    "plain_em": Variant(plain_em),
    "plain_em with shuffled groups": Variant(_shuffled),
    "annealing alone": Variant(partial(em, explore=0, relocate_until=0.0, starts=1)),
    "annealing with relocation": Variant(partial(em, explore=0, starts=1)),
    "annealing with relocation and restarts": Variant(partial(em, explore=0)),
    "exploration alone": Variant(partial(em, relocate_until=0.0, starts=1)),
    "exploration with relocation": Variant(partial(em, starts=1)),
    "em": Variant(em),
    "split and merge": Variant(split_and_merge),
    "seeding": Variant(seeded_em),
    "successive halving": Variant(halving_em),
    "wide entropy": Variant(_shuffled, entropy_times(2.0, 1.0)),
    "end_to_end": Variant(end_to_end),
}
SETTINGS = {
    "preset": Variant(),
    "exploring": Variant(change=sized(explore="in_turn")),
    "apart": Variant(change=sized(explore="apart")),
    "shared trunk": Variant(change=sized(trunk="shared")),
    "lambda 0.95 and a learning rate from 3e-4": Variant(change=rated(gae_lambda=0.95, learning_rate=(3e-4, 1e-4))),
    "lambda 0.9": Variant(change=rated(gae_lambda=0.9)),
    "epochs 5": Variant(change=sized(epochs=5)),
    "64 environments x 32 steps": Variant(change=sized(environments=64, unroll=32)),
    "16 environments x 128 steps": Variant(change=sized(environments=16, unroll=128)),
    "five times the environments and minibatches": Variant(change=_times_five),
    "discount 0.98": Variant(change=rated(discount=0.98)),
    "discount 0.995": Variant(change=rated(discount=0.995)),
    "discount 0.98 and lambda 0.9": Variant(change=rated(discount=0.98, gae_lambda=0.9)),
    "the discount of the task and lambda 0.95": Variant(change=_far_view),
    "constant learning rate": Variant(change=_constant_learning_rate),
    "a quarter of the entropy": Variant(change=entropy_times(0.25, 0.25)),
    "std from 1": Variant(change=_std_from_1),
    "std from e^-1": Variant(change=_std_from_1_over_e),
    "rewards x 100": Variant(change=rated(reward_scaling=100.0)),
    "rewards as they are": Variant(change=_plain_rewards),
    "returns not normalised": Variant(change=sized(normalize_returns=False)),
    "std from e^-1 and rewards as they are": Variant(change=lambda config: _plain_rewards(_std_from_1_over_e(config))),
    "entropy x 3": Variant(change=entropy_times(3.0, 3.0)),
    **{f"segments of {steps}": Variant(segment=steps) for steps in SEGMENTS},
}
# For an accelerator; quality is the same on a CPU, as physics is the same.
GPU = {
    "preset": Variant(),
    "gpu": Variant(change=gpu()),
    "gpu that explores at once": Variant(change=gpu(explore="at_once")),
    "gpu with 128 environments": Variant(change=gpu(environments=128)),
    "gpu with 256 environments x 8 steps": Variant(change=gpu(environments=256, unroll=8)),
    "few large minibatches": Variant(change=_few_large),
}
COMPARISONS = {
    "assigners": Comparison("plain_em", ASSIGNERS),
    "settings": Comparison("preset", SETTINGS),
    "gpu": Comparison("preset", GPU),
}


class Cell(NamedTuple):
    """What the runs of one line have in common, and what distinguishes its line from others."""

    env: str
    of: str
    variant: str
    k: int
    budget: int  # transitions per policy that were asked for
    backend: str | None = None

    def env_options(self) -> Line:
        """What `make` is given."""
        return {} if self.backend is None else {"backend": self.backend}

    @property
    def segment(self) -> int | None:
        """That of the variant, where rewards come at every step; else it is whole episodes."""
        return COMPARISONS[self.of].variants[self.variant].segment if self.env.endswith("_speed") else None

    def task(self, seed: int) -> tuple[Env, Population]:
        """Env and people of a seed."""
        env, population = make(self.env, seed=seed, n=self.config().n, **self.env_options())
        segment = self.segment
        return env if segment is None else env._replace(spec=env.spec._replace(segment_length=segment)), population

    def config(self) -> TrainConfig:
        """Of seed 0."""
        variant = COMPARISONS[self.of].variants[self.variant]
        return variant.change(preset(self.env, k=self.k, transitions=self.budget))

    def describe(self) -> Line:
        """What its line begins with, as JSON gives it back."""
        config = self.config()
        variant = COMPARISONS[self.of].variants[self.variant]
        assigner = variant.assigner(config.k, config.n)
        settings = flat_settings(dump_train_config(config))
        trained = {"n": config.n, "settings": settings, "algorithm": assigner.name, "algorithm_options": dict(assigner.options)}
        trained["revision"] = revision_of(assigner.name, assigner.options)
        named = {name: value for name, value in (self._asdict() | {"segment": self.segment}).items() if value is not None}
        return json.loads(json.dumps({"benchmark": "ablation", **named, **trained}))


def cell_of(line: Line) -> Cell:
    """What was trained for `line`, with the settings of today."""
    values: dict[str, Any] = {name: line.get(name) for name in Cell._fields}
    return Cell(**values)


def of_cell(line: Line, cell: Cell) -> bool:
    """Whether `line` is of `cell` as it is now, settings too."""
    return (line["of"], line["variant"]) == (cell.of, cell.variant) and trained_as(line, cell)


def trained_as(line: Line, cell: Cell) -> bool:
    """Whether what `line` reports, an ablation or a figure of the paper, was trained as the runs of `cell` are."""
    asked = {name: value for name, value in cell.describe().items() if name not in ("benchmark", "of", "variant")}
    recorded = {"revision": 1, **line}
    if "runs" not in line:  # of a figure: of the task as it is, with the physics named that it took
        recorded["backend"] = None if set(line["env_options"]) <= {"n", "seed"} else "of another task"
    unsaid = {"segment": None, "backend": None}
    return (unsaid | recorded).items() >= (unsaid | asked).items()
