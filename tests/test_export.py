"""Exported policies act elsewhere, each format in a process that cannot import this package, as they do here."""

import csv
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import CONFIG, SIZES, K, N, make_tiny

from rmdp_jax import Sizes, TrainConfig, make_act, plain_em, train
from rmdp_jax.commands.cli import main
from rmdp_jax.deploy import formats
from rmdp_jax.deploy.export import export_run
from rmdp_jax.envs import make
from rmdp_jax.records.loading import evaluate_run, load_run

SPEED = Sizes(environments=2, unroll=16, epochs=1, minibatches=1, hidden=(8, 4), normalize_observations=True)

# Observations of numbers.npy, shape (b, o), to actions of each of k policies in actions.npy. Arguments: folder, k.
HEAD = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"rmdp_jax", "flax", "brax", "mujoco", *BLOCKED}:
            raise ImportError(f"{name} is not to be imported here")
sys.meta_path.insert(0, Blocked())
import json, numpy as np
folder, k = sys.argv[1], int(sys.argv[2])
obs = np.load(folder + "/../numbers.npy")
files = [policy["files"] for policy in json.load(open(folder + "/manifest.json"))["policies"]]
"""
PROGRAMS = {
    "onnx": """
import onnxruntime
sessions = [onnxruntime.InferenceSession(folder + "/" + files[j]["onnx"]) for j in range(k)]
acts = [lambda x, session=session: session.run(["action"], {"observation": x})[0] for session in sessions]
""",
    "jax": """
import jax
import jax.numpy as jnp
exported = [jax.export.deserialize(bytearray(open(folder + "/" + files[j]["jax"], "rb").read())) for j in range(k)]
assert all(one.platforms == ("cpu", "cuda", "tpu") for one in exported)
acts = [one.call for one in exported]
""",
    "safetensors": """
sys.path.insert(0, folder)
sys.dont_write_bytecode = True
import run_policy
acts = [run_policy.load(j) for j in range(k)]
""",
}
TAIL = """
single = np.stack([np.concatenate([np.asarray(act(row[None])) for row in obs]) for act in acts])
whole = np.stack([np.asarray(act(obs)) for act in acts])
np.testing.assert_allclose(single, whole, atol=1e-6)  # batches of any size
np.save(folder + "/../actions.npy", whole)
"""
BLOCKED = {"onnx": ["jax"], "jax": [], "safetensors": ["jax", "onnxruntime", "onnx"]}


def train_grid(folder, **sizes):
    config = replace(CONFIG, transitions=2 * SIZES.transitions, sizes=replace(SIZES, **sizes))
    train(*make_tiny(), config, plain_em(K, N), out=folder, progress=False)


def train_cheetah(folder, **sizes):
    env, population = make("halfcheetah_speed", n=2, backend="native", episode_length=20)
    config = TrainConfig(k=2, n=2, transitions=2 * SPEED.transitions, evaluation_episodes=2, sizes=replace(SPEED, **sizes))
    train(env, population, config, plain_em(2, 2), out=folder, progress=False)


TASKS = {
    "grid": train_grid,
    "grid, one trunk": lambda folder: train_grid(folder, trunk="shared", normalize_observations=True),
    "cheetah": train_cheetah,
    "cheetah, one trunk": lambda folder: train_cheetah(folder, trunk="shared", std="fixed", normalize_observations=False),
}


def outspoken(policies):
    """Policies whose actions differ and leave the range of the env; those of a short training do neither."""
    own = policies.params.own
    head = jax.tree.map(lambda x: 100.0 * x, own["head"])
    return policies._replace(params=policies.params._replace(own={**own, "head": head}))


@pytest.fixture(
    scope="module", params=[pytest.param(task, marks=pytest.mark.slow) if "one trunk" in task else task for task in TASKS]
)
def exported(request, tmp_path_factory):
    """A run, loaded, with decided policies, and its export beside it."""
    place = tmp_path_factory.mktemp("exports")
    TASKS[request.param](place / "run")
    run = load_run(place / "run", make)
    run = run._replace(policies=outspoken(run.policies))
    return run, export_run(run, place / "out")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "run"
    train_grid(folder)
    return load_run(folder, make)


@pytest.mark.slow
@pytest.mark.parametrize("name", formats.FORMATS)
def test_actions_elsewhere_are_those_here(exported, name):
    run, (folder, _) = exported
    spec, k = run.env.spec, run.config.k
    large = [[0.1], [1.0], [10.0], [1000.0]]  # where normalised observations and actions are clipped
    obs = (np.random.RandomState(0).normal(size=(16, 4, spec.observation_size)) * large).astype(np.float32)
    obs = obs.reshape(-1, spec.observation_size)
    np.save(folder.parent / "numbers.npy", obs)
    program = f"BLOCKED = {BLOCKED[name]}" + HEAD + PROGRAMS[name] + TAIL
    done = subprocess.run([sys.executable, "-I", "-c", program, str(folder), str(k)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = np.load(folder.parent / "actions.npy")
    act = make_act(run.env, run.config)
    here = np.stack([act(run.policies, j, obs) for j in range(k)])
    assert there.shape == here.shape == ((k, 64) if spec.discrete else (k, 64, spec.action_size))
    assert np.issubdtype(there.dtype, np.integer) == spec.discrete
    if spec.discrete:
        np.testing.assert_array_equal(there, here)
        assert set(np.unique(here)) > {0, 1}
    else:
        np.testing.assert_allclose(there, here, atol=1e-5)
        assert (np.abs(here) == 1.0).any()
        assert (np.abs(here) < 0.9).any()
    assert (here[0] != here[1]).any()


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_says_what_is_there(exported):
    run, (folder, files) = exported
    manifest, spec = read_manifest(folder), run.env.spec
    assert (manifest["env"], manifest["algorithm"], manifest["complete"]) == (spec.name, "plain_em", True)
    assert [manifest[name] for name in ("k", "n", "seed")] == [run.config.k, run.config.n, run.config.seed]
    normalized = run.config.sizes.normalize_observations
    assert manifest["observation"] == {"size": spec.observation_size, "dtype": "float32", "normalized_inside": normalized}
    assert (
        manifest["action"]
        == {
            "resource_gathering": {"kind": "discrete", "number": 4, "dtype": "int32", "low": 0, "high": 3},
            "halfcheetah_speed": {"kind": "continuous", "size": 6, "dtype": "float32", "low": -1.0, "high": 1.0},
        }[spec.name]
    )
    assert manifest["config"] == run.folder.read_config()
    assert manifest["result"]["welfare"] == run.result["welfare"]
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["versions"]["jax2onnx"] is not None
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert sorted(manifest["files"]) == sorted(set(files) - {"manifest.json"})
    for name, about in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rows = list(csv.reader((folder / manifest["assignment"]).read_text().splitlines()))
    assert rows == [["agent", "policy"], *([str(i), str(j)] for i, j in enumerate(run.assignment))]
    assert [policy["agents"] for policy in manifest["policies"]] == np.bincount(run.assignment, minlength=run.config.k).tolist()
    names = {"onnx": "policy_1.onnx", "jax": "policy_1.jax", "safetensors": "policy_1.safetensors"}
    assert manifest["policies"][1]["files"] == names


PATCHED_BY_CONVERTERS = {"jnp.cumsum": lambda: jnp.cumsum, "Conv": lambda: nn.Conv.__call__, "tanh": lambda: jnp.tanh}
AT_IMPORT = {name: get() for name, get in PATCHED_BY_CONVERTERS.items()}


def test_this_process_is_as_before(exported):
    """Converters that patch JAX put it back, and what they log is heard again."""
    run, _ = exported
    assert {name: get() for name, get in PATCHED_BY_CONVERTERS.items()} == AT_IMPORT
    np.testing.assert_array_equal(jnp.cumsum(jnp.ones((2, 3)), 1), [[1, 2, 3]] * 2)
    assert np.isfinite(evaluate_run(run, 2, 0, True).welfare)
    assert logging.getLogger("jax2onnx").level == logging.NOTSET


def test_the_runner_as_a_program(grid, tmp_path):
    folder = export_run(grid, tmp_path / "out", ["safetensors"]).folder
    obs = np.eye(grid.env.spec.observation_size, dtype=np.float32)
    lines = "".join(json.dumps(row.tolist()) + "\n" for row in obs)
    done = subprocess.run(
        [sys.executable, "-I", str(folder / "run_policy.py"), "1"], input=lines, capture_output=True, text=True, check=True
    )
    here = make_act(grid.env, grid.config)(grid.policies, 1, obs)
    assert [json.loads(line) for line in done.stdout.splitlines()] == here.tolist()
    assert len((folder / "run_policy.py").read_text().splitlines()) < 40


def test_the_command(grid, tmp_path, capsys):
    shutil.copytree(grid.folder.path, tmp_path / "run")
    main(["export", str(tmp_path / "run"), "--formats", "safetensors", "jax", "jax"])
    folder = tmp_path / "run" / "export"
    assert capsys.readouterr().out == f"export   {folder}\n7 files; manifest.json says what each of them is\n"
    per_policy = [f"policy_{j}{suffix}" for suffix in (".safetensors", ".jax") for j in range(K)]
    assert {path.name for path in folder.iterdir()} == {"assignment.csv", "manifest.json", "run_policy.py", *per_policy}
    np.testing.assert_array_equal(load_run(tmp_path / "run", make).assignment, grid.assignment)
