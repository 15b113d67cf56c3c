import json
import os
import signal
from dataclasses import replace
from itertools import product

import pytest
from tiny import CONFIG, SIZES, N, timeless

from rmdp_jax import ConfigError, TrainingError
from rmdp_jax.commands.cli import main
from rmdp_jax.commands.grids import Sweep
from rmdp_jax.envs import make
from rmdp_jax.evaluation.comparison import compare_runs, flat_settings
from rmdp_jax.records.files import RunWarning, read_lines
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.folder import RunFolder, describe_numerics
from rmdp_jax.running import cluster, loop
from rmdp_jax.running.cells import Cell, find_run
from rmdp_jax.running.sweep import sweep

LENGTH = 10
TINY = replace(CONFIG, transitions=LENGTH * SIZES.transitions, log_every=5, checkpoint_every=5)
CELL = Cell(env="resource_gathering", env_options={"size": 2}, config=TINY)
NAME = "resource_gathering-size2-em-k2-s"


def run(cells, seeds, out, **options):
    return sweep(cells, seeds, out, **{"make": make, "progress": False, **options})


def press_ctrl_c(monkeypatch, iteration):
    """Ctrl-C, pressed once when the first line of this iteration is logged."""
    original, pressed = loop.metrics_line, []

    def press(info, done, *arguments):
        if done == iteration and not pressed:
            pressed.append(done)
            os.kill(os.getpid(), signal.SIGINT)
        return original(info, done, *arguments)

    monkeypatch.setattr(loop, "metrics_line", press)


@pytest.fixture
def trained(monkeypatch):
    """(iterations, seeds) of every program that trains."""
    calls, original = [], loop.learn

    def learn(env, entries, *arguments, **options):
        calls.append((entries[0].config.iterations, [entry.config.seed for entry in entries]))
        return original(env, entries, *arguments, **options)

    for module in ("rmdp_jax.running.train", "rmdp_jax.running.cluster"):
        monkeypatch.setattr(f"{module}.learn", learn)
    return calls


@pytest.mark.slow
def test_a_sweep_trains_what_is_missing(tmp_path, trained):
    done = []
    lines = run([CELL], [0, 1], tmp_path, on_done=done.append)
    assert trained == [(LENGTH, [0, 1])]
    assert done == lines == read_lines(tmp_path / "runs.jsonl")
    for seed, line in enumerate(lines):
        folder = RunFolder(tmp_path / f"{NAME}{seed}")
        result = folder.read_result()
        assert {name: line[name] for name in result if name not in ("format", "utility")} | {
            "settings": line["settings"]
        } == line
        assert line["settings"] == flat_settings(folder.read_config()["train"])
        assert (line["seed"], line["k"], line["finished"], line["runs_together"]) == (seed, 2, True, 2)
        assert folder.read_config()["env_options"] == line["env_options"] == {"seed": seed, "size": 2, "n": N}

    (tmp_path / "runs.jsonl").write_text(json.dumps(lines[0]) + "\n" + '{"env": "cut o')
    assert run([CELL], [0, 1], tmp_path) == lines
    assert read_lines(tmp_path / "runs.jsonl") == lines
    assert len(trained) == 1
    assert [line["seed"] for line in run([CELL], [1, 2], tmp_path)] == [1, 2]
    assert trained[1:] == [(LENGTH, [2])]


@pytest.mark.slow
def test_cells_that_differ_in_rates_are_trained_in_one_program(tmp_path, trained):
    rates = {label: replace(TINY.rates, learning_rate=ends) for label, ends in (("slow", (1e-4, 1e-5)), ("fast", (1e-2, 1e-3)))}
    cells = [replace(CELL, config=replace(TINY, rates=of), label=label) for label, of in rates.items()]
    lines = run(cells, [0, 1], tmp_path)
    assert trained == [(LENGTH, [0, 1, 0, 1])]
    for line, (label, seed) in zip(lines, product(rates, (0, 1)), strict=True):
        folder = RunFolder(tmp_path / f"resource_gathering-size2-em-k2-{label}-s{seed}")
        assert folder.read_result()["utility"] != []
        assert folder.read_config()["train"]["rates"]["learning_rate"] == list(rates[label].learning_rate)
        assert line["seed"] == seed
    algorithms = [row.algorithm for row in compare_runs(find_runs([tmp_path]).lines)]
    assert algorithms == ["em learning_rate=[0.0001, 1e-05]", "em learning_rate=[0.01, 0.001]"]
    assert run([CELL, *cells], [0, 1], tmp_path)[:4] == lines
    assert trained[1:] == [(LENGTH, [0, 1])]  # the cell without a label


@pytest.mark.slow
def test_seeds_with_envs_of_their_own_are_trained_apart(tmp_path, trained):
    def make_scaled(name, *, seed, **options):
        env, population = make(name, seed=seed, **options)
        return env._replace(spec=env.spec._replace(reference_scale=1.0 + seed, make="mine:make")), population

    lines = run([replace(CELL, algorithm="random")], [0, 1], tmp_path, make=make_scaled)
    assert trained == [(LENGTH, [0]), (LENGTH, [1])]
    assert [line["runs_together"] for line in lines] == [1, 1]

    def make_otherwise(name, **options):
        env, population = make_scaled(name, **options)
        return env, population._replace(reward=lambda cell, outcome: 2.0 * population.reward(cell, outcome))

    cells = [replace(CELL, algorithm="random")]
    assert run(cells, [0, 1], tmp_path, make=make_scaled) == lines
    with pytest.raises(ConfigError, match="reward"):
        run(cells, [0, 1], tmp_path, make=make_otherwise)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(tmp_path, trained, monkeypatch):
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 5)
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            run([CELL, replace(CELL, algorithm="random")], [0, 1], tmp_path)
    assert trained == [(LENGTH, [0, 1])]
    assert read_lines(tmp_path / "runs.jsonl") == []
    lines = run([CELL], [0, 1, 2], tmp_path)  # two go on, one begins
    assert trained[1:] == [(LENGTH, [2]), (LENGTH, [0, 1])]
    assert sorted(line["seed"] for line in lines) == [0, 1, 2]
    assert all(line["finished"] for line in lines)
    for seed in range(3):
        assert [line["iteration"] for line in RunFolder(tmp_path / f"{NAME}{seed}").read_metrics()] == [5, 10]


@pytest.mark.slow
def test_a_sweep_takes_the_older_checkpoint_where_the_latest_is_damaged(tmp_path, trained):
    (line,) = run([CELL], [0], tmp_path)
    folder = tmp_path / f"{NAME}0"
    (folder / "result.json").unlink()
    (folder / "checkpoints" / "10" / "default" / "_METADATA").unlink()
    with pytest.warns(RunWarning, match="the older checkpoint of iteration 5 is taken"):
        (again,) = run([CELL], [0], tmp_path)
    assert trained == [(LENGTH, [0])] * 2
    assert timeless(again) == timeless(line)


@pytest.fixture
def few_observations(monkeypatch):
    monkeypatch.setattr(cluster, "CLUSTER_TRANSITIONS", 32)


@pytest.mark.slow
@pytest.mark.usefixtures("few_observations")
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")  # who has learned little pays everyone nothing
def test_cluster_goes_on_without_pretraining_anew(tmp_path, trained, monkeypatch):
    cell = replace(CELL, algorithm="cluster", config=replace(TINY, transitions=21 * SIZES.transitions, log_every=3))
    assert SIZES.transitions == 32  # so that 11 iterations go into pre-training, 1 into observing, and 9 are left
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, 6)
        with pytest.raises(KeyboardInterrupt, match="in the pre-training of cluster; nothing was saved"):
            run([cell], [0, 1], tmp_path)
    assert not list(tmp_path.rglob("config.json"))
    assert trained == [(11, [0, 1])]

    trained.clear()
    original = cluster.cluster_batch
    with monkeypatch.context() as patch:
        patch.setattr(
            "rmdp_jax.running.algorithms.cluster_batch", lambda *a, **o: [original(*a, **o), press_ctrl_c(patch, 6)][0]
        )
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            run([cell], [0, 1], tmp_path)
    assert trained == [(11, [0, 1]), (9, [0, 1])]
    folders = [RunFolder(tmp_path / f"resource_gathering-size2-cluster-k2-s{seed}") for seed in (0, 1)]
    before = [folder.read_result()["assignment"] for folder in folders]

    trained.clear()
    lines = run([cell], [0, 1], tmp_path)
    assert trained == [(9, [0, 1])]
    assert [line["assignment"] for line in lines] == before
    assert [line["pretraining_transitions"] for line in lines] == [12 * 32] * 2
    assert [line["total_transitions"] for line in lines] == [(12 + 2 * 9) * 32] * 2


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("jax.jit", None)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([CELL, replace(CELL, algorithm="cluster")], "transitions = 320: must be above the 10160 that cluster spends"),
        ([CELL, replace(CELL, algorithm="oracle")], "no groups known beforehand"),
        ([CELL, replace(CELL, env_options={"sizes": 2})], r"sizes = 2: resource_gathering takes size"),
        (
            [CELL, replace(CELL, config=replace(TINY, transitions=64))],
            "two of them would write resource_gathering-size2-em",
        ),
    ],
)
def test_bad_cells_are_refused_before_anything_is_trained(tmp_path, cells, message):
    with pytest.raises(ConfigError, match=message):
        run(cells, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (range(10**12), "seeds = 1000000000000 of them: must be from 1 to 10,000 numbers"),
        ([], "seeds = 0 of them"),
        ([0, -1], "seeds = -1: must be a whole number from 0 to"),
        (["0"], "seeds = '0': must be a whole number from 0 to"),
    ],
)
def test_seeds_that_are_none_are_refused_at_once(tmp_path, seeds, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        run([CELL], seeds, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused_and_equal_cells_are_trained_once(tmp_path, trained):
    singles = [replace(CELL, algorithm="single", config=replace(TINY, k=k)) for k in (2, 3)]
    lines = run(singles, [0], tmp_path)
    assert trained == [(LENGTH, [0])]
    assert [line["k"] for line in lines] == [1]
    assert (tmp_path / "resource_gathering-size2-single-k1-s0" / "result.json").exists()
    for name, change in (
        ("transitions", {"transitions": 64}),
        ("evaluation_episodes", {"evaluation_episodes": 9}),
        ("epochs", {"sizes": replace(SIZES, epochs=3)}),
    ):
        other = replace(singles[0], config=replace(singles[0].config, **change))
        message = rf"single-k1-s0 was made with other {name} \(\d+ there, \d+ here\); choose another --out"
        with pytest.raises(ConfigError, match=message):
            run([other], [0, 1], tmp_path)
    assert run([replace(singles[0], config=replace(TINY, log_every=2))], [0], tmp_path) == lines
    assert trained == [(LENGTH, [0])]


def test_the_command_makes_a_grid_of_rates(tmp_path):
    rates = {"learning_rates": (1e-3, 2e-3), "entropies": (0.1,)}
    cells = Sweep(envs=("resource_gathering",), out=tmp_path, **rates).cells()
    assert [cell.label for cell in cells] == ["lr0.001-entropy0.1", "lr0.002-entropy0.1"]
    assert [cell.config.rates.learning_rate for cell in cells] == [(1e-3, pytest.approx(2e-4)), (2e-3, pytest.approx(4e-4))]
    assert all(cell.config.rates.entropy == (0.1, pytest.approx(2e-3)) for cell in cells)
    (none,) = Sweep(envs=("resource_gathering",), out=tmp_path, entropies=(0.0,)).cells()
    assert (none.label, none.config.rates.entropy) == ("entropy0", (0.0, 0.0))
    with pytest.raises(ConfigError, match=r"entropy = -0.1: must be a number from 0 up"):
        Sweep(envs=("resource_gathering",), out=tmp_path, entropies=(-0.1,)).cells()


@pytest.mark.slow
def test_the_command_trains_a_grid_whose_runs_can_be_reported(tmp_path, capsys):
    grid = ["sweep", "resource_gathering", "--size", "2", "--algorithms", "random", "--ks", "2", "--seeds", "1"]
    few = ["--first-seed", "5", "--transitions", "2048", "--evaluation-episodes", "4", "--log-every", "1"]
    main([*grid, *few, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"lines    {tmp_path / 'runs.jsonl'}", f"compare  rmdp-jax compare {tmp_path}"]
    assert "cell 1/1  resource_gathering-size2-random-k2: seeds 5" in err
    main(["evaluate", str(tmp_path / "resource_gathering-size2-random-k2-s5"), "--episodes", "4", "--json"])
    (line,) = read_lines(tmp_path / "runs.jsonl")
    assert json.loads(capsys.readouterr().out)["assignment"] == line["assignment"]


@pytest.mark.parametrize("precision", ["highest", "default"])
def test_runs_of_other_numerics_are_no_runs_of_a_sweep(tmp_path, monkeypatch, precision):
    def find():
        return find_run(CELL, 0, tmp_path, make, lambda cell, seed: [])

    found = find()
    assert found.description["numerics"] == describe_numerics()
    numerics = {**describe_numerics(), "JAX_DEFAULT_MATMUL_PRECISION": precision}
    found.folder.path.mkdir()
    found.folder.write_config({**found.description, "numerics": numerics})
    if precision == "highest":
        with pytest.raises(
            ConfigError, match=r"was made with other JAX_DEFAULT_MATMUL_PRECISION \(highest there, default here\)"
        ):
            find()
    monkeypatch.setattr("rmdp_jax.running.cells.describe_numerics", lambda: numerics)
    assert find().iteration == 0


def test_a_run_that_breaks_stops_no_other_cell(tmp_path, monkeypatch):
    tried = []

    def train(runs, *arguments):
        tried.append(runs[0].config.k)
        if len(tried) == 1:
            raise TrainingError("seed 0: broken")
        return [{"k": runs[0].config.k}]

    monkeypatch.setattr("rmdp_jax.running.sweep._train", train)
    cells = [replace(CELL, config=replace(TINY, k=k)) for k in (1, 2, 3)]
    with pytest.raises(TrainingError, match="seed 0: broken"):
        run(cells, [0], tmp_path)
    assert tried == [1, 2, 3]
