"""What a run of very many agents writes down, and that it is read back: lists become a file of arrays."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config
from tiny import FLAGS

from rmdp_jax import ConfigError, affinity, cluster, plots
from rmdp_jax.commands.cli import main
from rmdp_jax.envs import make
from rmdp_jax.records.files import read_lines
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import load_run

pytestmark = pytest.mark.slow

N = 60
TRAIN = ["resource_gathering", "--size", "2", "--n", str(N), "--k", "2", "--transitions", "320", "--quiet", *FLAGS]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of more agents than are listed, logged or scored one by one."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            ("records.folder", "LARGEST_LISTED"),
            ("records.lines", "LARGEST_LOGGED"),
            ("learning.segments", "LARGEST_UNSAMPLED"),
        ):
            patch.setattr(f"rmdp_jax.{module}.{name}", N - 1)
        patch.setattr("rmdp_jax.learning.segments.SAMPLE_SIZE", 7)
        folder = tmp_path_factory.mktemp("runs") / "run"
        main(["train", *TRAIN, "--agents-exact", "10", "--utility-steps", "8", "--out", str(folder)])
    return folder


def test_texts_do_not_grow_with_the_agents(run_dir):
    result = RunFolder(run_dir).read_result()
    assert result["arrays"] == "result.npz"
    assert not {"assignment", "utility"} & set(result)
    lines = read_lines(run_dir / "metrics.jsonl")
    assert max(len(value) for text in (result, *lines) for value in text.values() if isinstance(value, list)) == result["k"]
    assert all("assignment" not in line for line in lines)
    assert RunFolder(run_dir).read_config()["train"]["sizes"]["agents_exact"] == 10
    with np.load(run_dir / "result.npz") as arrays:
        assert arrays["assignment"].dtype == np.uint8


def test_arrays_are_read_back(run_dir, capsys):
    run = load_run(run_dir, make)
    assert (run.assignment.dtype, run.assignment.shape, run.result["utility"].shape) == (np.int32, (N,), (2, N))
    assert np.bincount(run.assignment, minlength=2).tolist() == run.result["policy_sizes"]
    paid = run.result["utility"][run.assignment, np.arange(N)].mean()
    assert paid == pytest.approx(run.result["welfare"], abs=1e-2)
    main(["report", str(run_dir)])
    out = capsys.readouterr().out
    assert f"{run.result['welfare']:.2f}" in out
    assert "walks.png" in out
    assert find_runs([run_dir]).lines[0]["n"] == N


def test_evaluate_prints_no_list_of_agents(run_dir, capsys, monkeypatch):
    monkeypatch.setattr("rmdp_jax.records.folder.LARGEST_LISTED", N - 1)
    main(["evaluate", str(run_dir), "--episodes", "8", "--seed", "1", "--json"])
    judged = json.loads(capsys.readouterr().out)
    assert judged["welfare"] == pytest.approx(RunFolder(run_dir).read_result()["welfare"], abs=1e-3)
    assert not {"assignment", "utility"} & set(judged)


def test_a_run_without_its_arrays_is_named(run_dir, tmp_path):
    (tmp_path / "result.json").write_text((run_dir / "result.json").read_text())
    with pytest.raises(ConfigError, match=r"result\.npz: cannot be read"):
        RunFolder(tmp_path).read_arrays()
    (tmp_path / "result.npz").write_bytes(b"PK half a file")
    with pytest.raises(ConfigError, match=r"result\.npz: cannot be read"):
        RunFolder(tmp_path).read_arrays()


def test_pictures_of_many_agents_draw_a_bounded_number_of_things():
    n, k = 30_000, 3
    targets = np.random.default_rng(0).uniform(0, 4, n)
    labels = (targets * k / 4).astype(np.int32)
    utility = np.where(np.arange(k)[:, None] == labels, 10 * targets, 1.0)
    utility[0, labels == 2] = 99.0  # the first policy would pay them more
    bars = plots.agent_distribution(utility, labels).axes[0].patches
    assert len(bars) < 1100
    heights = np.array([bar.get_height() for bar in bars if bar.get_gid() is None])
    assert heights[heights < 50].mean() == pytest.approx((10 * targets).mean(), rel=0.02)
    above, below = plots.target_histogram(targets, labels, k, (0.0, 4.0)).axes
    assert sum(bar.get_height() for bar in above.patches) == n
    assert sum(len(line.get_xdata()) for line in below.lines) < 1000
    mesh = plots.utility_matrix(utility, labels).axes[1].collections[0].get_array()
    assert mesh.shape[1] <= 403
    assert mesh[0].max() == pytest.approx(99.0)


@pytest.mark.parametrize("make_groups", [cluster, affinity])
def test_many_agents_are_grouped_by_some_steps_and_some_agents(make_groups, monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.cluster.CLUSTER_TRANSITIONS", 512)
    n = 200
    env, population = make_probe(PROBES["action"], n)
    config = probe_config(2, n, 10, agents_exact=40, utility_steps=16)
    labels = np.asarray(make_groups(env, population, replace(config, transitions=40 * 64)).init(jax.random.key(0)))
    assert labels.shape == (n,)
    assert len(set(labels[: n // 2])) == len(set(labels[n // 2 :])) == 1  # two wishes
    assert labels[0] != labels[-1]
