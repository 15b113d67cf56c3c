import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import paper, paper_lines, paper_results
from benchmarks.common import machine
from benchmarks.paper import Paper, make_cells, run_figure
from benchmarks.variants import Cell as AblationCell
from rmdp_jax.config import Sizes
from rmdp_jax.envs import make
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.loading import load_run, record_run
from rmdp_jax.running.sweep import sweep


def made_up(cell, seed, welfare):
    """The line of a run of `cell` that never was."""
    k, n = cell.config.k, cell.config.n
    line = {
        "env": cell.env,
        "env_options": {"seed": seed, **cell.env_options, "n": n},
        "backend": "jax",
        "algorithm": cell.algorithm,
        "k": k,
        "n": n,
        "seed": seed,
        "iterations": 10,
        "finished": True,
        "transitions_per_policy": 20480,
        "pretraining_transitions": 0,
        "total_transitions": k * 20480,
        "welfare": welfare,
        "upper_bound": 90.0,
        "share_of_bound": welfare / 90,
        "assignment": [i % k for i in range(n)],
        "device": "a device",
        "wall_s": 3600.0,
    }
    return line | paper_lines._training_of(cell)


def test_backends_of_the_same_mdp_are_one_cell():
    (cell,) = make_cells(Paper(figure=3, ks=(5,), envs=("halfcheetah_speed",), algorithms=("em",)))
    lines = [made_up(cell, seed, 30.0 + seed) | {"backend": "warp" if seed else "native"} for seed in range(3)]
    (row,) = paper_results.compare(lines)
    assert (row.seeds, row.welfare) == (3, 31.0)
    assert len(paper_results.compare([*lines, lines[0] | {"backend": "spring"}])) == 2


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("something was trained")

    monkeypatch.setattr(paper, "sweep", refuse)


@pytest.fixture
def tiny_presets(monkeypatch):
    """Presets of cells that train in seconds."""
    sizes = Sizes(environments=4, unroll=16, epochs=1, minibatches=2, hidden=(8,))
    whole, changes = paper.preset, {"sizes": sizes, "evaluation_episodes": 4}
    monkeypatch.setattr(paper, "preset", lambda env, **given: whole(env, **given, **(changes if given else {})))


def small(tmp_path, **changes):
    return Paper(**{"figure": 2, "quick": True, "seeds": 2, "out": tmp_path / "runs", "results": tmp_path, **changes})


def test_figures_are_those_of_the_paper():
    cells = {number: make_cells(Paper(figure=number)) for number in paper.FIGURES}
    assert {number: len(found) for number, found in cells.items()} == {1: 1, 2: 30, 3: 64, 4: 2, 5: 2}
    assert {cell.config.transitions for found in cells.values() for cell in found} == {1_000_000}
    assert {cell.config.n for cell in cells[3]} == {100}
    assert [cell.algorithm for cell in cells[3] if cell.config.k == 1] == ["em"] * 4, "nothing to assign"
    assert {cell.config.k for cell in make_cells(Paper(figure=2, size=4))} == {2, 3, 4, 6}
    narrowed = make_cells(Paper(figure=2, ks=(2, 25), algorithms=("random", "em"), size=3))
    assert {(cell.algorithm, cell.config.k, cell.config.n) for cell in narrowed} == {("random", 2, 9), ("em", 2, 9)}
    (large,) = make_cells(Paper(figure=3, n=1000))
    assert (large.env, large.algorithm, large.config.k, large.config.n) == ("halfcheetah_speed", "em", 50, 1000)
    assert large.env_options == {"n": 1000}
    assert [Paper(figure=3, seeds=seeds).seeds_of(k) for seeds, k in ((None, 5), (None, 10), (4, 10))] == [5, 3, 4]


def test_a_run_counts_whichever_mujoco_it_was_made_with():
    ours, warp = (make_cells(Paper(figure=4, envs=("hopper_speed",), backend=name))[0] for name in (None, "warp"))
    assert warp.env_options == {"n": 100, "backend": "warp"}
    assert paper_lines.same_cell(made_up(warp, 0, 30.0), ours)
    assert paper_lines.same_cell(made_up(ours, 0, 30.0), warp)


@pytest.mark.usefixtures("no_training")
def test_runs_with_a_line_are_not_made_again_even_without_their_folder(tmp_path):
    arguments = small(tmp_path)
    lines = [made_up(cell, seed, 80.0 + seed) for cell in make_cells(arguments) for seed in (0, 1)]
    write(tmp_path / "figure_2.jsonl", lines)
    assert len(run_figure(arguments)) == len(lines)
    with pytest.raises(AssertionError, match="trained"):  # a third seed has no line
        run_figure(replace(arguments, seeds=3))
    lines[0]["settings"]["epochs"] += 1
    write(tmp_path / "figure_2.jsonl", lines)
    with pytest.raises(AssertionError, match="trained"):  # of another version of the preset
        run_figure(arguments)


@pytest.mark.usefixtures("no_training")
def test_a_figure_takes_the_runs_of_another(tmp_path):
    cells = make_cells(Paper(figure=3, ks=(5,), envs=("hopper_speed",), algorithms=("em",)))
    details = {"targets": [0.025 * i for i in range(100)], "policy_speeds": [0.1, 0.5, 1.0, 1.5, None]}
    write(tmp_path / "figure_3.jsonl", [made_up(cells[0], 0, 7.0) | details])
    arguments = Paper(figure=4, seeds=1, envs=("hopper_speed",), results=tmp_path, out=tmp_path / "runs")
    assert [line["welfare"] for line in run_figure(arguments)] == [7.0]
    assert (tmp_path / "figure_4_hopper.png").exists()
    assert len((tmp_path / "figure_4.jsonl").read_text().splitlines()) == 1


@pytest.mark.usefixtures("no_training")
def test_a_figure_takes_the_runs_of_ablations_that_trained_the_same(tmp_path):
    cell = AblationCell("hopper_speed", "assigners", "em", 5, 1_000_000)
    run = {"backend": "native", "upper_bound": 40.0, "reachable": 36.0, "share_of_bound": 0.5, "served": 3}
    run |= {"transitions_per_policy": 1_001_472, "total_transitions": 5_007_360, "curve": [[20480, 1.0], [1_001_472, 20.0]]}
    runs = [run | {"seed": seed, "welfare": 20.0 + seed} for seed in (0, 1)]
    line = cell.describe() | {"runs": runs, "device": "a device", "versions": {}, "commit": "abc", "wall_s": 100.0}
    write(tmp_path / "ablation_hopper_speed.jsonl", [line])
    lines = run_figure(Paper(figure=3, ks=(5,), envs=("hopper_speed",), algorithms=("em",), seeds=2, results=tmp_path))
    assert [(line["seed"], line["welfare"], line["iterations"], line["wall_s"]) for line in lines] == [
        (0, 20.0, 489, 50.0),
        (1, 21.0, 489, 50.0),
    ]
    assert "Of the 2 runs, 2 are those of `benchmarks.ablation`" in (tmp_path / "figure_3.md").read_text()
    with pytest.raises(AssertionError, match="trained"):  # figure 4 draws what those lines do not hold
        run_figure(Paper(figure=4, envs=("hopper_speed",), seeds=1, results=tmp_path, out=tmp_path / "runs"))
    line["settings"]["epochs"] += 1
    write(tmp_path / "ablation_hopper_speed.jsonl", [line])
    (tmp_path / "figure_3.jsonl").unlink()
    with pytest.raises(AssertionError, match="trained"):  # of another version of the preset
        run_figure(Paper(figure=3, ks=(5,), envs=("hopper_speed",), algorithms=("em",), seeds=2, results=tmp_path))


@pytest.mark.usefixtures("no_training")
def test_figure_3_shows_welfare_over_training(tmp_path):
    cells = make_cells(Paper(figure=3, ks=(5,), envs=("hopper_speed",), algorithms=("em", "random")))
    curve = [[20480, 1.0, 3.0], [40960, 9.0, 6.5]]
    lines = [made_up(cell, seed, 8.0) | {"curve": curve, "reachable": 70.0} for cell in cells for seed in range(2)]
    write(tmp_path / "figure_3.jsonl", lines)
    run_figure(Paper(figure=3, draw_only=True, results=tmp_path))
    assert imread(tmp_path / "figure_3_hopper_training.png").shape[1] > 500
    assert imread(tmp_path / "figure_3_hopper_seconds.png").shape[1] > 500
    for line in lines[:2]:
        line["device"] = "another"  # whose seconds are nothing to compare
    write(tmp_path / "figure_3.jsonl", lines)
    (tmp_path / "figure_3_hopper_seconds.png").unlink()
    run_figure(Paper(figure=3, draw_only=True, results=tmp_path))
    assert not (tmp_path / "figure_3_hopper_seconds.png").exists()
    for line in lines[:2]:
        line["device"] = "a device"
        line["curve"] = [point[:2] for point in line["curve"]]  # one that has seconds is compared with nothing
    write(tmp_path / "figure_3.jsonl", lines)
    run_figure(Paper(figure=3, draw_only=True, results=tmp_path))
    assert not (tmp_path / "figure_3_hopper_seconds.png").exists()


def test_training_is_compared_by_the_seeds_that_all_have():
    lines = [
        {"algorithm": name, "seed": seed}
        for name, seeds in {"em": (0, 1), "plain_em": (3,), "random": (1, 2)}.items()
        for seed in seeds
    ]
    common = paper_results._with_common_seeds(lines)
    assert {name: [line["seed"] for line in some] for name, some in common.items()} == {"em": [1], "random": [1]}
    assert paper_results._with_common_seeds([]) == {}


def test_seconds_go_on_where_a_run_was_stopped():
    metrics = [{"transitions_per_policy": 10 * i, "welfare": 1.0, "wall_s": at} for i, at in enumerate((3, 6, 2, 4, 1), 1)]
    assert [point[2] for point in paper_lines.over_training(metrics, timed=True)] == [3, 6, 8, 10, 11]
    assert paper_lines.over_training(metrics[:1], timed=False) == [[10, 1.0]]
    many = paper_lines.over_training(metrics[:1] * 120 + metrics[-1:], timed=False)
    assert (len(many), many[-1]) == (41, [50, 1.0])


@pytest.mark.usefixtures("no_training")
def test_what_is_missing_is_said_and_the_rest_drawn(tmp_path):
    arguments = small(tmp_path, draw_only=True)
    with pytest.raises(ConfigError, match="without --draw-only"):
        run_figure(arguments)
    em = next(cell for cell in make_cells(arguments) if cell.algorithm == "em" and cell.config.k == 5)
    other = next(cell for cell in make_cells(arguments) if cell.algorithm == "random" and cell.config.k == 5)
    runs = [made_up(em, seed, 89.0 + seed / 4) for seed in range(4)]
    runs += [made_up(other, seed, 84.0 + seed**2 / 8) for seed in range(4)]
    write(tmp_path / "figure_2.jsonl", runs)
    run_figure(arguments)
    table = (tmp_path / "figure_2.md").read_text()
    assert "8 runs are done, in 8.0 hours of training and compiling; 16 are left, seeds in brackets:\n" in table
    assert "\n- resource_gathering: em k = 2 (2); plain_em k = 2 (2), 5 (2); end_to_end k = 2 (2), 5 (2); " in table
    assert "| em | 4 | 89.38 ± 0.16 |" in table
    assert "**best**" in table
    assert "(significant)" in table
    assert "benchmarks.paper --figure 2 --quick --seeds 4" in table
    assert imread(tmp_path / "figure_2.png").shape[1] > 500


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("figure", sorted(paper.FIGURES))
def test_every_algorithm_of_a_figure_can_be_asked_for(figure, tmp_path):
    spec = paper.FIGURES[figure]
    for name in spec.algorithms:
        asked = Paper(figure=figure, algorithms=(name,), envs=spec.full.envs[:1], ks=(5,), results=tmp_path, out=tmp_path)
        with pytest.raises(AssertionError, match="trained"):
            run_figure(asked)


def test_bad_flags_are_refused_before_anything_is_trained(tmp_path):
    for changes, message in [
        ({"figure": 6}, "figure = 6: must be one of 1, 2, 3, 4, 5"),
        ({"seeds": 0}, "seeds = 0"),
        ({"n": 4}, "n = 4: must be None, or .* set by size"),
        ({"figure": 3, "n": 0}, "n = 0"),
        ({"backend": "warp"}, "backend = warp: must be None"),
        ({"figure": 4, "size": 4}, "size = 4: must be None, or .* for Resource Gathering"),
        ({"workers": -1}, "workers = -1: must be a whole number of at least 0"),
        ({"envs": ("ant_speed",)}, "of figure 2: resource_gathering"),
        ({"figure": 1, "algorithms": ("random",)}, "of this figure: em"),
    ]:
        with pytest.raises((ConfigError), match=message):
            run_figure(small(tmp_path, **changes))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_a_tiny_figure_is_trained_drawn_and_gone_on_with(tmp_path, monkeypatch):
    arguments = small(tmp_path, figure=1, size=2, ks=(2,), transitions=640)
    (first, second) = run_figure(arguments)
    assert (first["seed"], second["seed"], first["budget"]) == (0, 1, 640)
    assert len(first["walks"]) == 2
    assert all(0 <= cell < 4 for walk in first["walks"] for cell in walk)
    assert sum(first["own_return"]) / 4 == pytest.approx(first["welfare"], abs=0.02)
    assert "utility" not in first
    assert first["curve"][-1][0] == first["transitions_per_policy"]
    assert first["commit"] == machine()["commit"]
    stem = tmp_path / "figure_1_size2_640"
    assert {path.suffix for path in tmp_path.glob("figure_1*")} == {".jsonl", ".md", ".png"}
    assert max(map(len, stem.with_suffix(".jsonl").read_text().splitlines())) < 5000
    asked = []
    monkeypatch.setattr(
        paper, "sweep", lambda cells, seeds, *rest, **more: asked.append(seeds) or sweep(cells, seeds, *rest, **more)
    )
    alone = []
    monkeypatch.setattr(
        paper, "on_cores", lambda function, calls, workers: [alone.append(workers) or function(*call) for call in calls]
    )
    assert len(run_figure(replace(arguments, seeds=4, workers=2))) == 4
    assert (asked, alone) == ([[2], [3]], [2, 2])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_presets")
def test_diamonds_are_speeds_of_the_policies_that_are_kept(tmp_path):
    (line,) = run_figure(small(tmp_path, figure=4, envs=("hopper_speed",), ks=(2,), n=6, seeds=1, transitions=640))
    run = load_run(next((tmp_path / "runs").glob("hopper_speed-*")), make)
    played = record_run(run, deterministic=False)
    steps = played.alive.sum(axis=1)
    forward = np.where(played.alive, played.step.outcome.speed, 0.0).sum(axis=1)
    assert line["policy_speeds"] == pytest.approx((forward / steps).tolist(), abs=1e-5)
    assert line["targets"] == pytest.approx(np.asarray(run.population.agents).tolist(), abs=1e-3)
