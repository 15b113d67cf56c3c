from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from probes import PROBES, make_probe, probe_config
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import ConfigError, TrainConfig, em, make_evaluate, make_trainer, plain_em, train
from rmdp_jax.running.loop import make_chunk
from rmdp_jax.running.memory import (
    Memory,
    available_memory,
    check_evaluation,
    check_memory,
    estimate_evaluation,
    estimate_memory,
    nbytes,
)
from rmdp_jax.trainer import policies_of

pytestmark = pytest.mark.slow

GIBIBYTE = 2**30


def described(config, algorithm):
    """Trainer, shapes of its state, and the estimate."""
    env, population = make_probe(PROBES["action"], config.n)
    trainer = make_trainer(env, population, config, algorithm)
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    return trainer, like, estimate_memory(like, env.spec, population.agents, config)


def test_an_evaluation_of_estimates_takes_as_many_steps_as_it_plays():
    env, _ = make_tiny()
    config = replace(CONFIG, sizes=replace(CONFIG.sizes, agents_exact=2), evaluation_steps=100)
    needed = [estimate_evaluation(64, env.spec._replace(episode_length=length), config, 8) for length in (100, 1_000_000)]
    assert needed[0] == needed[1]


def test_bytes_of_shapes_are_those_of_the_real_state():
    config = probe_config(2, 50, 10)
    trainer, like, memory = described(config, em(2, 50, archive_size=3))
    state = trainer.init(jax.random.key(0))
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert nbytes(like) == real
    assert nbytes(like.archive) == sum(leaf.nbytes for leaf in jax.tree.leaves(state.archive))
    assert memory.total - memory.process >= real


@pytest.mark.parametrize(("algorithm", "n"), [(plain_em, 20_000), (plain_em, 20)])
def test_estimate_is_near_what_xla_says(algorithm, n):
    config = probe_config(3, n, 10, environments=64, unroll=32, minibatches=4)
    trainer, like, memory = described(config, algorithm(3, n))
    lowered = jax.jit(make_chunk(trainer), donate_argnums=0).lower(like, jax.ShapeDtypeStruct((), jnp.int32))
    usage = lowered.compile().memory_analysis()
    needed = usage.argument_size_in_bytes + usage.temp_size_in_bytes + usage.output_size_in_bytes - usage.alias_size_in_bytes
    assert 0.4 < (memory.total - memory.process) / needed < 2.5


def test_what_grows_is_what_was_made_larger():
    config = probe_config(2, 5000, 10)
    base = described(config, plain_em(2, 5000))[2]
    more = {
        "agents": described(replace(config, n=10_000), plain_em(2, 10_000))[2],
        "environments": described(replace(config, sizes=replace(config.sizes, environments=80)), plain_em(2, 5000))[2],
        "networks": described(replace(config, sizes=replace(config.sizes, hidden=(160,))), plain_em(2, 5000))[2],
        "archive": described(config, em(2, 5000))[2],
    }
    for name, memory in more.items():
        assert getattr(memory, name) > 1.9 * getattr(base, name)
    env, population = make_probe(PROBES["action"], 5000)
    like = described(config, plain_em(2, 5000))[1]
    together = estimate_memory(like, env.spec, population.agents, config, runs=3)
    assert together.total - together.process == 3 * (base.total - base.process)


def test_evaluation_counts_where_it_takes_more_than_training():
    few, many = (replace(probe_config(2, 50, 10), evaluation_episodes=episodes) for episodes in (4, 10**6))
    (_, _, small), (_, _, large) = described(few, plain_em(2, 50)), described(many, plain_em(2, 50))
    assert small.evaluation == 0
    assert large.evaluation > 2 * 10**6 * 2 * 50 * 4  # rewards of a step for two policies and 50 agents, twice
    with pytest.raises(
        ConfigError, match=r"evaluation_episodes = 1000000: .* are for the evaluation: take fewer evaluation_ep"
    ):
        check_memory(large, 2 * GIBIBYTE, many)
    env, _ = make_probe(PROBES["action"], 50)
    with pytest.raises(ConfigError, match=r"^episodes = 1000000: would take about 2.3 GiB .* take fewer episodes$"):
        check_evaluation(env, many, 10**6, GIBIBYTE)
    check_evaluation(env, many, 64, 2 * GIBIBYTE)
    check_evaluation(env, many, 10**6, None)


@pytest.mark.parametrize("n", [20, 20_000])
def test_the_estimate_of_an_evaluation_is_near_what_xla_says(n):
    config = replace(probe_config(3, n, 10), evaluation_episodes=2000 if n == 20 else 100)
    env, population = make_probe(PROBES["action"], n)
    like = jax.eval_shape(make_trainer(env, population, config, plain_em(3, n)).init, jax.random.key(0))
    labels, key = jax.ShapeDtypeStruct((n,), jnp.int32), jax.eval_shape(lambda: jax.random.key(0))
    lowered = jax.jit(make_evaluate(env, population, config)).lower(policies_of(like), labels, key)
    program = lowered.compile().memory_analysis()
    needed = program.temp_size_in_bytes + program.output_size_in_bytes
    one_env = nbytes(jax.eval_shape(env.reset, key))
    assert 0.3 < estimate_evaluation(one_env, env.spec, config, config.evaluation_episodes) / needed < 3


def test_too_much_is_refused_with_advice():
    config = TrainConfig(k=50, n=10**6)
    memory = Memory(1 * GIBIBYTE, 9 * GIBIBYTE, 2 * GIBIBYTE, GIBIBYTE // 2, GIBIBYTE)
    assert check_memory(memory, 16 * GIBIBYTE, config) == "memory: about 13.5 GiB of 16.0 GiB"
    assert check_memory(memory, None, config) == "memory: about 13.5 GiB"
    message = r"k = 50, n = 1000000, .*: .* 13.5 GiB of memory, must be at most the 8.0 GiB .* 9.0 GiB .* smaller n or k"
    with pytest.raises(ConfigError, match=message):
        check_memory(memory, 8 * GIBIBYTE, config)
    with pytest.raises(ConfigError, match=r"^20 runs in one program, k = 50, .*: train fewer seeds at once, or "):
        check_memory(memory, 8 * GIBIBYTE, config, 20)


def test_this_machine_has_memory():
    assert GIBIBYTE // 4 < available_memory() < 2**50


def test_the_limit_of_a_job_counts(tmp_path, monkeypatch):
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "memory.max").write_text(f"{GIBIBYTE // 2}\n")
    (tmp_path / "job" / "step" / "memory.max").write_text("max\n")
    (tmp_path / "own").write_text("1:cpu:/\n0::/job/step\n")
    monkeypatch.setattr("rmdp_jax.running.memory._CGROUPS", {"": (str(tmp_path), "memory.max")})
    monkeypatch.setattr("rmdp_jax.running.memory._OWN_CGROUPS", str(tmp_path / "own"))
    assert available_memory() == GIBIBYTE // 2


def test_train_says_it_first_and_compiles_nothing_that_would_not_fit(monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise AssertionError("the iteration was compiled")

    monkeypatch.setattr("rmdp_jax.running.loop.available_memory", lambda mesh: 10**6)
    monkeypatch.setattr("jax.stages.Lowered.compile", refuse)
    with pytest.raises(ConfigError, match="would take about"):
        train(*make_tiny(), CONFIG, plain_em(K, N))
    monkeypatch.setattr("rmdp_jax.running.loop.available_memory", lambda mesh: 100 * GIBIBYTE)
    with pytest.raises(AssertionError, match="the iteration was compiled"):
        train(*make_tiny(), CONFIG, plain_em(K, N))
    assert capsys.readouterr().err.startswith("memory: about 1.3 GiB of 100.0 GiB\ncompiling")
