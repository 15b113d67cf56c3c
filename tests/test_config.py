import json
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmdp_jax import ConfigError, Rates, Sizes, TrainConfig
from rmdp_jax.envs.presets import preset
from rmdp_jax.errors import unknown_name
from rmdp_jax.records.folder import dump_train_config
from rmdp_jax.records.settings import load_train_config

NAN, INF = float("nan"), float("inf")
COUNT = "must be a whole number of at least 1"
POSITIVE = "must be a positive number"
SHARE = "must be a number from 0 to 1"
PAIR = r"must be two numbers from 0 up \(start, end\)"
TOO_MANY = "must be at most 2,147,483,647"
LAYERS = "must be one or more layers of at least 1 unit, at most 100 layers of 65,536"

BAD_SIZES = [
    *[(name, value, COUNT) for name in ("environments", "unroll", "epochs", "minibatches") for value in (0, -3, 2.5, True)],
    ("minibatches", 7, r"must be a divisor of environments \* unroll = 2048"),
    ("minibatches", 2048, r"must be at most half of environments \* unroll = 2048, two transitions to a minibatch"),
    *[(name, 10**12, TOO_MANY) for name in ("environments", "unroll", "minibatches", "agents_exact", "utility_steps")],
    ("environments", 10**8, "must be at most 2,147,483,647 steps of one policy together with unroll = 32"),
    ("epochs", 10**9, "must be at most 1,000"),
    *[("hidden", value, LAYERS) for value in ((), (64, 0), (64, 2.5), (10**9,), (64,) * 101, 64, None, {64: 1}, ("64",))],
    ("normalize_observations", "yes", "must be True or False"),
    ("normalize_observations", 1, "must be True or False"),
    ("trunk", "both", "must be 'separate' or 'shared'"),
    ("critic", "all", "must be 'mixed' or 'per_agent'"),
    *[("log_std_init", value, "must be a number from -10 to 10") for value in (-11.0, 11.0, NAN, INF)],
]
BAD_RATES = [
    *[(name, (value, 1e-3), PAIR) for name in ("learning_rate", "entropy") for value in (-1e-3, NAN, INF, 1e-300)],
    *[(name, (1e-3, value), PAIR) for name in ("learning_rate", "entropy") for value in (-1e-3, NAN, INF, "fast")],
    ("learning_rate", (1e-3,), PAIR),
    ("learning_rate", (0.0, 0.0), "must be above 0 at one end at least, or nothing would be learned"),
    *[
        (name, value, POSITIVE)
        for name in ("clip", "max_gradient_norm", "max_kl", "adam_epsilon", "observation_clip", "reward_scaling")
        for value in (0.0, -0.1, NAN, INF, 1e-300, 1e300)
    ],
    *[(name, value, SHARE) for name in ("gae_lambda", "utility_decay", "discount") for value in (-0.1, 1.1, NAN, INF)],
    ("utility_decay", 1.0, "must be below 1"),
    *[("value_weight", value, "must be a number from 0 up") for value in (-0.5, NAN, INF)],
]
BAD_RUNS = [
    *[(name, value, COUNT) for name in ("k", "n", "transitions", "log_every", "evaluation_episodes") for value in (0, -1, 1.5)],
    ("k", 26, "must be at most n = 25, one policy per agent"),
    ("n", 10**12, "must be at most 16,777,216"),
    ("transitions", 10**12, "must be at most 100,000,000,000"),
    ("evaluation_episodes", 10**8, "must be at most 1,000,000"),
    *[(name, 10**12, "must be at most 1,000,000,000") for name in ("log_every", "checkpoint_every")],
    ("seed", "three", r"must be a whole number from 0 to 2\^32 - 1"),
    ("checkpoint_every", "often", "must be a whole number from 0 up"),
    ("sizes", None, r"must be a Sizes\(...\)"),
    ("rates", None, r"must be a Rates\(...\)"),
    ("checkpoint_every", -1, "must be a whole number from 0 up"),
    ("seed", -1, r"must be a whole number from 0 to 2\^32 - 1"),
    ("seed", 2**32, r"must be a whole number from 0 to 2\^32 - 1"),
]
BAD = [(kind, *case) for kind, cases in [(Sizes, BAD_SIZES), (Rates, BAD_RATES), (TrainConfig, BAD_RUNS)] for case in cases]


def test_steps_between_two_lines_can_be_counted():
    with pytest.raises(ConfigError, match=r"log_every = 9000: must be at most 8,191, so that the steps between two lines"):
        TrainConfig(log_every=9000, transitions=3 * 10**9, sizes=Sizes(environments=4096, unroll=64))


@pytest.mark.parametrize(("kind", "name", "value", "rule"), BAD)
def test_a_broken_rule_names_field_value_and_rule(kind, name, value, rule):
    shown = repr(value) if isinstance(value, str) else str(value)[:70]
    with pytest.raises(ConfigError) as error:
        kind(**{name: value})
    message = str(error.value)
    assert message.startswith(f"{name} = {shown}")
    assert re.search(rule, message)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.1),
        ("learning_rate", [NAN, -1.0]),
        ("learning_rate", (1e-3, None)),
        ("clip", None),
        ("clip", np.float32(NAN)),
        ("gae_lambda", None),
        ("discount", "high"),
        ("clip", np.array([0.1, 0.2])),
        ("clip", jnp.array([0.1, -0.2])),
        ("clip", jnp.float32(NAN)),
        ("gae_lambda", jnp.float32(5.0)),
        ("learning_rate", (jnp.float32(-1.0), 1e-3)),
        ("learning_rate", None),
        ("learning_rate", {"start": 1e-3, "end": 1e-4}),
        ("value_weight", 10**400),
        ("max_kl", True),
    ],
)
def test_what_is_no_number_breaks_the_rule_of_a_rate(name, value):
    with pytest.raises(ConfigError, match=f"^{name} = "):
        Rates(**{name: value})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Sizes, {"minibatches": 1024}),
        (Sizes, {"environments": 1, "unroll": 2, "epochs": 1, "minibatches": 1, "hidden": (1,)}),
        (Rates, {"discount": 1.0, "gae_lambda": 0.0, "utility_decay": 0.0, "value_weight": 0.0}),
        (Rates, {"learning_rate": (1, 1)}),
        (Rates, {"learning_rate": (1e-3, 0), "entropy": (0, 0)}),
        (Rates, {"learning_rate": (0, 1e-3), "entropy": (0, 1e-3)}),
        (Sizes, {"epochs": 1000, "hidden": (2**16,), "utility_steps": 2**31 - 1}),
        (TrainConfig, {"k": 25, "n": 25, "seed": 2**32 - 1, "checkpoint_every": 0, "transitions": 1}),
    ],
)
def test_what_is_at_the_edge_is_allowed(kind, values):
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values


@pytest.mark.parametrize("number", [np.int32, np.uint8, np.int64, np.float32, np.float64, float, Fraction, jnp.int32, np.array])
def test_numbers_of_all_libraries_are_taken_and_kept_as_pythons_own(number):
    config = TrainConfig(
        k=number(2),
        n=number(4),
        seed=number(3),
        transitions=number(64),
        sizes=Sizes(hidden=[number(8), number(4)], environments=number(4), minibatches=number(2), log_std_init=number(1)),
        rates=Rates(learning_rate=[number(1), number(1)], discount=number(1), clip=number(1)),
    )
    assert config == TrainConfig(
        k=2,
        n=4,
        seed=3,
        transitions=64,
        sizes=Sizes(hidden=(8, 4), environments=4, minibatches=2, log_std_init=1.0),
        rates=Rates(learning_rate=(1.0, 1.0), discount=1.0, clip=1.0),
    )
    kept = (
        [config.k, config.seed, *config.sizes.hidden],
        [*config.rates.learning_rate, config.rates.clip, config.sizes.log_std_init],
    )
    assert [{type(value) for value in values} for values in kept] == [{int}, {float}]
    assert load_train_config({"train": json.loads(json.dumps(dump_train_config(config)))}) == config


def test_a_whole_million_may_be_written_as_a_float():
    assert TrainConfig(transitions=1e6).transitions == 1_000_000
    assert Rates(learning_rate=np.array([1e-3, 1e-4])).learning_rate == (1e-3, 1e-4)
    assert Sizes(hidden=np.array([8, 4])).hidden == (8, 4)
    for value in (1e6 + 0.5, 1e300):
        with pytest.raises(ConfigError, match="transitions = "):
            TrainConfig(transitions=value)


def test_a_number_that_python_refuses_to_print_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^k = a whole number of 16610 bits: must be at most 16,777,216$"):
        TrainConfig(k=10**5000)


def test_several_values_are_for_a_vmap_and_no_config():
    rates = Rates(clip=jnp.array([0.1, 0.2]), learning_rate=(jnp.array([1e-3, 0.0]), 1e-4))
    assert rates.clip.shape == (2,)
    with pytest.raises(ConfigError, match=r"rates = array of shape \(2,\): must be of one number each"):
        TrainConfig(rates=rates)


def test_traced_rates_pass():
    made = jax.jit(lambda x: jax.tree.map(jnp.float32, Rates(clip=x, learning_rate=(x, 0.0), gae_lambda=x)))(jnp.float32(-1.0))
    assert (float(made.clip), float(made.gae_lambda)) == (-1.0, -1.0)


@pytest.mark.parametrize("kind", [Sizes, Rates, TrainConfig])
def test_unknown_fields_positions_and_changes_are_refused(kind):
    with pytest.raises(TypeError, match="learning_rat"):
        kind(learning_rat=1.0)
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    with pytest.raises(AttributeError, match="cannot assign"):
        kind().k = 3


def test_derived_sizes():
    sizes = Sizes(environments=4, unroll=6, minibatches=3)
    assert sizes.transitions == 24
    assert TrainConfig(transitions=240, sizes=sizes).iterations == 10
    assert TrainConfig(transitions=241, sizes=sizes).iterations == 11
    assert TrainConfig(transitions=1, sizes=sizes).iterations == 1


def test_rates_are_a_pytree_that_may_be_traced():
    rates = Rates(clip=0.1)
    assert jax.tree.map(lambda x: x, rates) == rates
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.float32(y) for y in x]), rates, Rates(clip=0.3))
    doubled = jax.jit(jax.vmap(lambda rates: 2 * rates.clip))(stacked)
    assert doubled.tolist() == pytest.approx([0.2, 0.6])
    assert jax.eval_shape(lambda rates: rates, stacked).clip.shape == (2,)


def test_configs_survive_json():
    config = TrainConfig(k=3, n=9, sizes=Sizes(hidden=(8, 4), trunk="shared"), rates=Rates(discount=0.9, entropy=(1e-2, 1e-3)))
    assert load_train_config({"train": dump_train_config(config)}) == config
    with pytest.raises(ConfigError, match="written by another version"):
        load_train_config({"train": {**dump_train_config(config), "news": 1}})
    with pytest.raises(ConfigError, match="k = 10: must be at most n = 9"):
        load_train_config({"train": {**dump_train_config(config), "k": 10}})


def test_presets_are_configs_to_change():
    assert preset("resource_gathering", k=7).k == 7
    assert preset("resource_gathering").n == 25
    assert preset("ant_speed").sizes.normalize_observations
    with pytest.raises(ConfigError, match="env = 'ant_sped' is not known; did you mean 'ant_speed'"):
        preset("ant_sped")
    with pytest.raises(ConfigError, match="k = 26: must be at most n = 25"):
        preset("resource_gathering", k=26)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("exact", "did you mean 'exactly'?"), ("xx", "not known (known: exactly, other)"), ("OTHER", "not known (known")],
)
def test_unknown_names(name, hint):
    message = str(unknown_name("thing", name, ["other", "exactly"]))
    assert message.startswith(f"thing = {name!r} is not known")
    assert hint in message
    assert message.endswith("(known: exactly, other)")
