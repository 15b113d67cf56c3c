import re

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
PAIR = r"must be two positive numbers \(start, end\)"

BAD_SIZES = [
    *[(name, value, COUNT) for name in ("environments", "unroll", "epochs", "minibatches") for value in (0, -3, 2.5, True)],
    ("minibatches", 7, r"must be a divisor of environments \* unroll = 2048"),
    ("minibatches", 2048, r"must be at most half of environments \* unroll = 2048, two transitions to a minibatch"),
    ("hidden", (), "must be one or more layers of at least 1 unit"),
    ("hidden", (64, 0), "must be one or more layers of at least 1 unit"),
    ("trunk", "both", "must be 'separate' or 'shared'"),
    ("critic", "all", "must be 'mixed' or 'per_agent'"),
    *[("log_std_init", value, "must be a number from -10 to 10") for value in (-11.0, 11.0, NAN, INF)],
]
BAD_RATES = [
    *[(name, (value, 1e-3), PAIR) for name in ("learning_rate", "entropy") for value in (0.0, -1e-3, NAN, INF)],
    *[(name, (1e-3, value), PAIR) for name in ("learning_rate", "entropy") for value in (0.0, -1e-3, NAN, INF)],
    ("learning_rate", (1e-3,), PAIR),
    *[
        (name, value, POSITIVE)
        for name in ("clip", "max_gradient_norm", "max_kl", "adam_epsilon", "observation_clip", "reward_scaling")
        for value in (0.0, -0.1, NAN, INF)
    ],
    *[(name, value, SHARE) for name in ("gae_lambda", "utility_decay", "discount") for value in (-0.1, 1.1, NAN, INF)],
    ("utility_decay", 1.0, "must be below 1"),
    *[("value_weight", value, "must be a number from 0 up") for value in (-0.5, NAN, INF)],
]
BAD_RUNS = [
    *[(name, value, COUNT) for name in ("k", "n", "transitions", "log_every", "evaluation_episodes") for value in (0, -1, 1.5)],
    ("k", 26, "must be at most n = 25, one policy per agent"),
    ("checkpoint_every", -1, "must be a whole number from 0 up"),
    ("seed", -1, r"must be a whole number from 0 to 2\^32 - 1"),
    ("seed", 2**32, r"must be a whole number from 0 to 2\^32 - 1"),
]
BAD = [(kind, *case) for kind, cases in [(Sizes, BAD_SIZES), (Rates, BAD_RATES), (TrainConfig, BAD_RUNS)] for case in cases]


@pytest.mark.parametrize(("kind", "name", "value", "rule"), BAD)
def test_a_broken_rule_names_field_value_and_rule(kind, name, value, rule):
    shown = repr(value) if isinstance(value, str) else str(value)
    with pytest.raises(ConfigError) as error:
        kind(**{name: value})
    message = str(error.value)
    assert message.startswith(f"{name} = {shown}: ")
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
        (TrainConfig, {"k": 25, "n": 25, "seed": 2**32 - 1, "checkpoint_every": 0, "transitions": 1}),
    ],
)
def test_what_is_at_the_edge_is_allowed(kind, values):
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values


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
