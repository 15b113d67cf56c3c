"""Run by test_devices.py in a process of its own, on a CPU that pretends to be eight devices."""

import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny import SIZES, leaves, stop_at

from rmdp_jax import ConfigError, TrainConfig, em, make_trainer, plain_em, train
from rmdp_jax.devices.mesh import choose_mesh, everywhere, on_mesh, tracing_on
from rmdp_jax.envs import make
from rmdp_jax.records.checkpoint import restore_checkpoint
from rmdp_jax.running import cluster
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.layout import laid_out, shardings_of
from rmdp_jax.running.sweep import sweep

N, ITERATIONS = 9, 8
TASK = make("resource_gathering", size=3)
OFTEN = {"starts": 1, "relocate_every": 2, "archive_every": 2, "segment_environments": 4}
ASSIGNERS = {
    "plain_em": lambda k: plain_em(k, N, warmup=2),
    "em": lambda k: em(k, N, anneal=2, **OFTEN),
    "em without exploration": lambda k: em(k, N, explore=0, anneal=2, **OFTEN),
}
COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter|ragged-all-to-all"


def config(k, **sizes):
    sizes = replace(SIZES, **sizes)
    return TrainConfig(
        k=k, n=N, seed=3, transitions=ITERATIONS * sizes.transitions, log_every=4, evaluation_episodes=4, sizes=sizes
    )


def collectives(k, algorithm, part, **sizes):
    """What devices send each other in `part` of an iteration on all eight: {(where in the code, what is sent): how often}."""
    settings = config(k, **sizes)
    trainer = make_trainer(*TASK, settings, ASSIGNERS[algorithm](k))
    mesh = choose_mesh(k, settings.sizes.environments, "jax")
    state = laid_out(mesh, jax.eval_shape(trainer.init, jax.random.key(0)))
    placed = shardings_of(state)
    out = {"collect": None, "step": (placed, everywhere(mesh))}[part]
    program = jax.jit(getattr(trainer, part), **on_mesh(mesh, in_shardings=(placed,), out_shardings=out))
    with tracing_on(mesh):
        text = program.lower(state).compile().as_text()
    found = re.findall(rf" = (.*?) (?:{COLLECTIVES})(?:-start)?\((.*)", text)
    return Counter((*re.findall(r'op_name="([^"]*)"', rest), re.sub(r"\{[^}]*\}", "", shape)) for shape, rest in found)


def of_members(name):
    """Where members are copied or put back, which is hardly ever."""
    return re.match(r"jit\(step\)/(copy_members|recover)/cond/", name)


def test_policies_meet_in_the_table_of_utilities_only():
    """Eight policies on eight devices, distinguished by where in the code the data comes from; nothing from the M-step."""
    assert collectives(8, "plain_em", "collect", normalize_observations=True) == {}
    sent = collectives(8, "plain_em", "step", normalize_observations=True)
    inside = {name: number for name, number in sent.items() if len(name) == 2}
    table = "f32[8,9]"
    assert {name: number for name, number in inside.items() if not of_members(name[0])} == {
        ("jit(step)/e_step/div", table): 1,
        ("jit(step)/info/div", table): 1,
        ("jit(step)/info/reduce_sum", "(s32[9], s32[9])"): 1,  # rewards that were not finite, ended episodes of each agent
        ("jit(step)/info/reduce_sum", "f32[9]"): 1,  # what each agent was paid
        ("jit(step)/recover/reduce_and", "pred[]"): 1,  # whether any policy was broken before
    }
    # What people read of each policy has no name in the code: losses, episodes, mean outcomes of one or of n numbers.
    assert {name[0] for name in sent.keys() - inside.keys()} == {"f32[8]", "s32[8]", "f32[8,9]"}


def test_em_shows_segments_too_and_copies_now_and_then():
    sent = {name for name in collectives(8, "em without exploration", "step") if len(name) == 2}
    assert {(name, what) for name, what in sent if not of_members(name)} == {
        ("jit(step)/info/reduce_sum", "(s32[9], s32[9])"),
        ("jit(step)/info/reduce_sum", "f32[9]"),
        ("jit(step)/recover/reduce_and", "pred[]"),
        ("jit(step)/e_step/div", "f32[8,9]"),
        ("jit(step)/e_step/sharding_constraint", "f32[8,4,9]"),
        ("jit(step)/info/div", "f32[8,9]"),
    }


def test_a_shared_trunk_adds_its_gradients_up():
    sent = {name[0] for name in collectives(8, "plain_em", "step", trunk="shared") if "m_step" in name[0]}
    assert sent
    assert all("/while/body/" in name and re.search("transpose|reduce_or", name) for name in sent)


def assert_close(one, many):
    """Actions, episodes and labels are the same; what is summed in another order differs in the last digits."""
    assert one.state.learner.params.own is not many.state.learner.params.own
    for a, b in zip(leaves(one.state), leaves(many.state), strict=True):
        if np.issubdtype(a.dtype, np.floating):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)
    for name in ("episodes", "assignment"):
        for a, b in zip(leaves(getattr(one.state, name)), leaves(getattr(many.state, name)), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(one.metrics, many.metrics, strict=True):
        assert {name: a[name] for name in ("flips", "copies", "episodes")} == {
            name: b[name] for name in ("flips", "copies", "episodes")
        }
    assert one.summary["assignment"] == many.summary["assignment"]
    assert one.summary["welfare"] == pytest.approx(many.summary["welfare"], abs=1e-3)


def run(k, algorithm="em", **options):
    return train(*TASK, config(k), ASSIGNERS[algorithm](k), **{"progress": False, **options})


@pytest.fixture(scope="module")
def one():
    return run(8, devices=1)


def test_a_run_may_change_devices(one, tmp_path):
    """Half of it on eight devices, the rest on four, and all of it on one."""
    stopped = run(8, out=tmp_path, on_metrics=stop_at(4))
    assert stopped.summary["iterations"] == 4
    assert stopped.summary["devices"] == 8
    spread = stopped.state.learner.params.own["body"]["params"]["Dense_0"]["kernel"]
    assert [shard.data.shape[0] for shard in spread.addressable_shards] == [1] * 8
    resumed = run(8, out=tmp_path, devices=4, resume=True)
    assert resumed.summary["devices"] == 4
    assert_close(one, resumed)
    at_rest = restore_checkpoint(tmp_path / "checkpoints", jax.eval_shape(lambda: resumed.state))
    for a, b in zip(leaves(at_rest), leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_policies_and_environments_over_devices_and_runs_in_one_program():
    alone, together = run(4, "plain_em", devices=1, seeds=2), run(4, "plain_em", seeds=2)
    assert together[0].summary["devices"] == 8
    for one, many in zip(alone, together, strict=True):
        assert_close(one, many)


def test_groups_of_cluster_take_as_many_devices_as_they_are_given(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(cluster, "choose_mesh", lambda *known: taken.append(choose_mesh(*known)) or taken[-1])
    monkeypatch.setattr(cluster, "CLUSTER_TRANSITIONS", 32)
    cells = [Cell(env="resource_gathering", env_options={"size": 3}, algorithm="cluster", config=config(8))]
    (line,) = sweep(cells, [0], tmp_path, make=make, devices=2, progress=False)
    assert taken[0].size == line["devices"] == 2


@pytest.mark.parametrize(
    ("k", "environments", "devices", "shape"),
    [
        (8, 64, None, (8, 1)),
        (4, 64, None, (4, 2)),
        (6, 64, None, (2, 4)),
        (5, 64, None, (1, 8)),
        (1, 4, None, (1, 4)),  # eight do not divide four environments
        (5, 30, None, (1, 6)),
        (8, 64, 4, (4, 1)),
        (7, 3, None, (7, 1)),
    ],
)
def test_the_mesh_fits(k, environments, devices, shape):
    assert choose_mesh(k, environments, "jax", devices).devices.shape == shape


def test_one_device_needs_no_mesh():
    assert choose_mesh(8, 64, "jax", devices=1) is None
    assert choose_mesh(8, 64, "native") is None
    with pytest.raises(ConfigError, match="devices = 9: must be from 1 to 8"):
        choose_mesh(8, 64, "jax", devices=9)


def test_processes_take_all_devices_or_none(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert choose_mesh(8, 64, "mjx").size == 8
    with pytest.raises(ConfigError, match=r"environments = 30: 8 devices .* k = 5, take a multiple of 8"):
        choose_mesh(5, 30, "mjx")
    with pytest.raises(ConfigError, match=r"backend = native: .* take backend mjx"):
        choose_mesh(8, 64, "native")
    with pytest.raises(ConfigError, match="devices = 4: several processes take all 8"):
        choose_mesh(8, 64, "mjx", devices=4)


def test_keys_and_counts_lie_where_they_should():
    trainer = make_trainer(*TASK, config(4), ASSIGNERS["em"](4))
    like = laid_out(choose_mesh(4, 4, "jax"), jax.eval_shape(trainer.init, jax.random.key(0)), runs=3)
    assert like.episodes.steps_left.shape == (3, 4, 4)
    assert like.episodes.steps_left.sharding.spec == PartitionSpec(None, "policy", "env")
    assert like.keys.sharding.spec == PartitionSpec(None, "policy")
    for leaf in (like.key, like.iteration, like.rates.clip, *jax.tree.leaves((like.archive, like.assignment))):
        assert leaf.sharding.is_fully_replicated
    assert jnp.issubdtype(like.keys.dtype, jax.dtypes.prng_key)
