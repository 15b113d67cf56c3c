"""Whatever is given, it is taken or refused in one line that names it: drawn settings from Python, and drawn command lines.

Nothing is compiled or trained here. The values are those that people gave: numbers of other libraries, words, arrays, nothing.
"""

import json
import os
import string
from decimal import Decimal
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import FLAGS, make_tiny

from rmdp_jax import (
    ConfigError,
    Env,
    EnvSpec,
    Rates,
    Sizes,
    TrainConfig,
    cover,
    em,
    end_to_end,
    fixed,
    oracle,
    plain_em,
    random_even,
    train,
)
from rmdp_jax.assigners.halving_em import halving_em
from rmdp_jax.assigners.seeded_em import seeded_em
from rmdp_jax.assigners.split_and_merge import split_and_merge
from rmdp_jax.checks import check_spec
from rmdp_jax.commands.cli import main
from rmdp_jax.devices.mesh import check_devices
from rmdp_jax.envs import make, preset
from rmdp_jax.envs.resource_gathering import optimum
from rmdp_jax.evaluation.tabular import tabular_mdp
from rmdp_jax.records.folder import dump_train_config
from rmdp_jax.records.settings import load_train_config

DRAWN = int(os.environ.get("DRAWN", "0"))  # examples of each kind of settings; `benchmarks.faults` draws more
NAN, INF = float("nan"), float("inf")
GOOD = [
    1,
    2,
    0.5,
    1e-3,
    np.int32(2),
    np.float32(0.5),
    np.float64(2.0),
    jnp.int32(2),
    jnp.float32(0.5),
    np.array(2),
    Fraction(1, 2),
]
BAD = [
    *[
        0,
        -1,
        1e6,
        10**9,
        10**12,
        10**400,
        10**5000,
        NAN,
        INF,
        -INF,
        1e-300,
        1e300,
        np.float32(NAN),
        jnp.float32(-1),
        np.uint64(2**63),
    ],
    *[
        None,
        True,
        np.True_,
        "",
        "2",
        "yes",
        b"2",
        1j,
        Decimal("2"),
        object(),
        len,
        int,
        {},
        {"a": 1},
        set(),
        [],
        (),
        [1],
        (1, 2),
    ],
    *[
        (0.5, NAN),
        (1, "2"),
        [[1], [2, 3]],
        np.zeros(2),
        np.ones((2, 2)),
        np.array(["a"]),
        np.array([None, 1]),
        np.datetime64("2026"),
    ],
    *[jnp.zeros(2), jnp.ones((1, 1)), jnp.array([0.1, NAN]), range(3), slice(1), Ellipsis, NotImplemented, ConfigError("k")],
]
NUMBERS = st.integers(-10, 300) | st.integers(min_value=2**33) | st.floats()  # groups of millions of agents take their time
VALUES = st.sampled_from(GOOD + BAD) | NUMBERS | st.text(max_size=4)
SPEC = EnvSpec("toy", 2, 2, True, episode_length=8, discount=0.9, reference_scale=1.0, backend="jax")


def fields(*names, **defaults):
    """Some fields with any value; the others have the `defaults`, where those are given."""
    chosen = st.dictionaries(st.sampled_from([*names, *defaults]), VALUES, min_size=1, max_size=3)
    return chosen.map(lambda drawn: {**defaults, **drawn})


_FIELDS = {kind: list(kind.__dataclass_fields__) for kind in (Sizes, Rates, TrainConfig)}
EM = ("explore", "anneal", "relocate_every", "relocate_until", "starts", "segment_environments")
MAKERS = {
    "Sizes": (Sizes, fields(*_FIELDS[Sizes])),
    "Rates": (Rates, fields(*_FIELDS[Rates])),
    "TrainConfig": (TrainConfig, fields(*_FIELDS[TrainConfig])),
    "preset": (preset, fields("kind", "k", "n", "seed", "sizes", "rates", env="resource_gathering")),
    "em": (em, fields(*EM, "archive_size", "archive_every", k=2, n=4)),
    "plain_em": (plain_em, fields("warmup", "first", k=2, n=4)),
    "halving_em": (halving_em, fields("starts", "warmup", k=2, n=4)),
    "seeded_em": (seeded_em, fields("warmup", "hold", "tries", "segment_environments", "first", k=2, n=4)),
    "split_and_merge": (split_and_merge, fields("warmup", "every", "until", k=2, n=4)),
    "end_to_end": (end_to_end, fields("gradient", "learning_rate", k=2, n=4)),
    "fixed": (fixed, fields(k=2, n=4, first=[0, 1, 0, 1])),
    "random_even": (random_even, fields(k=2, n=4)),
    "oracle": (lambda k: oracle(make("resource_gathering", size=3)[1], k), fields(k=2)),
    "check_spec": (lambda **changes: check_spec(SPEC._replace(**changes)), fields(*EnvSpec._fields)),
    "cover": (
        lambda **given: cover(make("resource_gathering", size=2)[1], **given),
        fields("radius", "share", "agents_exact", k=2),
    ),
    "grid": (make, fields("n", "seed", "context", "size", "episode_length", "backend", name="resource_gathering")),
    "body": (make, fields("n", "seed", "episode_length", "backend", "model", name="ant_speed")),
    "bound": (lambda k: make("ant_speed", n=9)[1].upper_bound(k), fields(k=2)),
    "optimum": (optimum, fields("size", k=2)),
    "check_devices": (check_devices, fields(devices=1)),
    "tabular_mdp": (tabular_mdp, fields(transition=[[[1.0]]], reward=[[[1.0]]], start=[1.0], discount=0.5)),
    "seeds": (lambda seeds: train(*make_tiny(), TrainConfig(k=2, n=4), seeds=seeds, progress=False), fields(seeds=2)),
}


@pytest.fixture(scope="module", autouse=True)
def nothing_is_trained(tmp_path_factory):
    """Bodies are not loaded, and runs end where they would begin to train; in a folder of their own."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("here"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rmdp_jax.envs.speed._make_env", lambda *arguments: Env(SPEC._replace(options={}), None, None))
        for place in ("running.train.train_batch", "running.sweep.train_held", "running.train.learn", "running.cluster.learn"):
            patch.setattr(f"rmdp_jax.{place}", begin)
        yield
    os.chdir(before)


class Begun(BaseException):
    """A run would be trained now."""


def begin(*arguments, **options):
    raise Begun


def outcome_of(call, expected):
    """What it returns, and what it raised of what is expected."""
    try:
        return call(), None
    except expected as error:
        return None, error


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=DRAWN or 60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_values_are_taken_or_refused_in_one_line(name, data):
    maker, drawn = MAKERS[name]
    made, error = outcome_of(lambda: maker(**data.draw(drawn)), (ConfigError, Begun))
    if isinstance(error, ConfigError):
        assert "\n" not in str(error)
        assert 0 < len(str(error)) < 600
    elif error is None:
        if name == "TrainConfig":
            assert load_train_config({"train": json.loads(json.dumps(dump_train_config(made)))}) == made
        options = made[0].spec.options if name in ("grid", "body") else getattr(made, "options", {})
        assert json.loads(json.dumps(dict(options))) == dict(options)


ODD_WORDS = "0 1 2 -1 1e3 1e6 2.5 1000000000000 1e400 nan -inf two 0x10 True None [1] é a[/b]c -- - \\ %s {} 1,2 em oracle mjx"
WORDS = st.sampled_from([*ODD_WORDS.split(), "", "9" * 5000, "resource_gathering"]) | st.text(string.printable, max_size=3)
SHARED = "--n --transitions --evaluation-episodes --log-every --devices --size --episode-length --backend --preset "
FLAGS_OF = {
    "train": SHARED
    + "--k --seed --checkpoint-every --algorithm --processes --process-id --environments --unroll --epochs --minibatches "
    + "--hidden --trunk --critic --log-std-init --agents-exact --utility-steps --clip --discount --gae-lambda --max-kl "
    + "--value-weight --utility-decay --reward-scaling",
    "sweep": SHARED + "--algorithms --ks --learning-rates --entropies --seeds --first-seed",
    "evaluate": "--episodes --seed",
    "render": "--policy --seconds --seed",
    "report": "--no-cache",
    "compare": "--picture",
}
PAIRS = ["--learning-rate", "--entropy"]  # of train


@st.composite
def command_lines(draw):
    command = draw(st.sampled_from(list(FLAGS_OF)))
    where = ["resource_gathering"] if command in ("train", "sweep") else ["nowhere"]
    line = [command, *(where if draw(st.integers(0, 9)) else [draw(WORDS)])]
    line += ["--out", "out", *(FLAGS if command == "train" else [])] if command in ("train", "sweep") else []
    for flag in draw(st.lists(st.sampled_from(FLAGS_OF[command].split()), max_size=3)):
        line += [flag, draw(WORDS)] if flag != "--no-cache" else [flag]
    if command == "train" and draw(st.booleans()):
        line += [draw(st.sampled_from(PAIRS)), draw(WORDS), draw(WORDS)]
    return line


@settings(max_examples=10 * DRAWN or 120, derandomize=True, suppress_health_check=list(HealthCheck))
@given(line=command_lines())
def test_drawn_command_lines_are_taken_or_end_with_2(line, capsys):
    capsys.readouterr()
    _, error = outcome_of(lambda: main(line), (SystemExit, Begun))
    assert error is not None, "it ran to its end"
    if isinstance(error, SystemExit):
        heard = capsys.readouterr()
        assert error.code == 2, heard
        assert heard.out == ""
        assert "Traceback" not in heard.err
        if heard.err.startswith("rmdp-jax: error: "):
            assert heard.err.count("\n") == 1
        else:  # what cannot be parsed at all is boxed by tyro, with what it takes
            assert "--help" in heard.err
