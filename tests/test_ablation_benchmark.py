"""Which lines are taken for which variants, what is trained beside them, and the table; one small run of it all."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablation
from benchmarks.ablation import Ablation, make_cells, narrow, run_ablation
from benchmarks.ablation_results import current_lines, draw_lines, table_rows
from benchmarks.variants import COMPARISONS, Cell
from rmdp_jax import Population, plain_em
from rmdp_jax.envs.presets import preset
from rmdp_jax.envs.speed import SEGMENT
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.files import read_lines


@pytest.fixture
def trained(monkeypatch):
    """Seeds that would be trained, by variant; their welfare is made up."""
    asked = []

    def summaries(env, entries, progress):
        asked.append((entries[0].assigner.name, [entry.config.seed for entry in entries]))
        return [Result(entry) for entry in entries]

    monkeypatch.setattr(ablation, "train_batch", summaries)
    return asked


class Result:
    def __init__(self, entry):
        welfare = 80.0 + entry.config.seed + 3.0 * (entry.assigner.name == "end_to_end")
        line = {"seed": entry.config.seed, "backend": "jax", "welfare": welfare, "welfare_deterministic": welfare}
        line |= {"upper_bound": 100.0, "share_of_bound": welfare / 100, "policy_sizes": [5, 5], "finished": True}
        line |= {"n": 3, "env": "halfcheetah_speed", "utility": [[welfare, 1.0, 9.0], [0.0, 2.0, 3.0]], "assignment": [0, 1, 0]}
        self.summary = line | {"transitions_per_policy": 2048, "total_transitions": 4096}
        self.metrics = [{"transitions_per_policy": 1024, "welfare": 1.234}, {"transitions_per_policy": 2048, "welfare": 9.0}]
        self.population = Population(np.array([0.5, 1.0, 3.0]), None)


def small(tmp_path, **changes):
    return Ablation(
        **{"ks": (2,), "seeds": 2, "transitions": 2048, "variants": ("plain_em", "end_to_end"), "results": tmp_path / "a.jsonl"}
        | changes
    )


def test_seeds_that_are_done_are_kept_when_another_is_stopped(tmp_path, trained, monkeypatch):
    def stopped_by_the_third(function, calls, workers):
        for cell, seeds, progress in calls:
            if seeds == [2]:
                raise KeyboardInterrupt
            yield function(cell, seeds, progress)

    monkeypatch.setattr(ablation, "on_cores", stopped_by_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_ablation(small(tmp_path, seeds=4, variants=("plain_em",), workers=2))
    (line,) = read_lines(tmp_path / "a.jsonl")
    assert line["seeds"] == [0, 1]
    (line,) = run_ablation(small(tmp_path, seeds=4, variants=("plain_em",)))
    assert line["seeds"] == [0, 1, 2, 3]
    assert trained == [("plain_em", seeds) for seeds in ([0], [1], [2, 3])]


def test_what_is_there_is_not_trained_again_and_seeds_are_added(tmp_path, trained):
    first = run_ablation(small(tmp_path))
    assert trained == [("plain_em", [0, 1]), ("end_to_end", [0, 1])]
    assert run_ablation(small(tmp_path)) == first
    assert len(trained) == 2
    more = run_ablation(small(tmp_path, seeds=4, variants=("plain_em",)))
    assert trained[2:] == [("plain_em", [2, 3])]
    assert (more[0]["seeds"], more[0]["welfare"]) == ([0, 1, 2, 3], [80.0, 81.0, 82.0, 83.0])
    assert more[0]["welfare_standard_error"] == pytest.approx((5 / 3) ** 0.5 / 2, abs=1e-3)
    assert run_ablation(small(tmp_path, variants=("plain_em",))) == more  # fewer seeds are there too
    assert len(read_lines(tmp_path / "a.jsonl")) == 2


def test_the_same_under_another_name_is_not_trained_again(tmp_path, trained):
    results = {name: tmp_path / f"ablation_resource_gathering{name}.jsonl" for name in ("", "_settings")}
    (first,) = run_ablation(small(tmp_path, variants=("em",), seeds=3, results=results[""]))
    settings = partial(small, tmp_path, of="settings", results=results["_settings"])
    (same,) = run_ablation(settings(variants=("preset",)))
    assert trained == [("em", [0, 1, 2])]
    assert (same["of"], same["variant"], same["seeds"], same["runs"]) == ("settings", "preset", [0, 1], first["runs"][:2])
    assert read_lines(results["_settings"]) == [same]
    (more,) = run_ablation(settings(variants=("preset",), seeds=4))
    assert trained[1:] == [("em", [3])]  # the other comparison has seed 2
    assert more["seeds"] == [0, 1, 2, 3]
    run_ablation(settings(variants=("segments of 1",), transitions=4096))
    assert trained[2:] == [("em", [0, 1])]


def test_runs_of_a_figure_that_trained_the_same_are_taken(tmp_path, trained):
    cell = Cell("hopper_speed", "assigners", "em", 2, 2048)
    common = {name: value for name, value in cell.describe().items() if name not in ("benchmark", "of", "variant")}
    common |= {"backend": "native", "transitions_per_policy": 2048, "total_transitions": 4096, "share_of_bound": 0.5}
    common |= {"served": 9, "curve": [[1024, 1.0, 3.5], [2048, 2.0, 7.0]], "wall_s": 7.0, "device": "a device"}
    lines = [common | {"seed": seed, "env_options": {"n": 100, "seed": seed}, "welfare": 8.0 + seed} for seed in (1, 0)]
    (tmp_path / "figure_3.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = small(tmp_path, env="hopper_speed", variants=("em",), results=tmp_path / "ablation_hopper_speed.jsonl")
    (line,) = run_ablation(asked)
    assert (trained, line["seeds"], line["welfare"], line["wall_s"]) == ([], [0, 1], [8.0, 9.0], 14.0)
    assert line["runs"][0]["curve"] == [[1024, 1.0], [2048, 2.0]]
    more = [common | {"seed": 2, "env_options": {"n": 100, "seed": 2}, "welfare": 10.0}]
    (tmp_path / "figure_4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in more))
    (line,) = run_ablation(replace(asked, seeds=4))  # the figure has one of the two that the line lacks
    assert (trained, line["seeds"]) == ([("em", [3])], [0, 1, 2, 3])


def test_a_run_tells_who_is_served(tmp_path, trained):
    (line,) = run_ablation(small(tmp_path, seeds=1, variants=("plain_em",)))
    (run,) = line["runs"]
    assert (run["served"], run["fastest_served"], run["largest_poor_group"]) == (2, 3.0, 1)  # 80, 9 and 2 of 100
    assert run["curve"] == [[1024, 1.23], [2048, 9.0]]


def test_other_settings_are_other_lines(tmp_path, trained, monkeypatch):
    run_ablation(small(tmp_path, variants=("plain_em",)))
    run_ablation(small(tmp_path, variants=("plain_em",), transitions=4096))
    variants = COMPARISONS["assigners"].variants
    monkeypatch.setitem(variants, "plain_em", variants["plain_em"]._replace(assigner=partial(plain_em, warmup=9)))
    run_ablation(small(tmp_path, variants=("plain_em",)))
    assert trained == [("plain_em", [0, 1])] * 3
    assert len(read_lines(tmp_path / "a.jsonl")) == 3
    (shown,) = current_lines(tmp_path / "a.jsonl", "resource_gathering", "assigners")
    assert shown["algorithm_options"]["warmup"] == 9
    assert "2 lines of other settings" in (tmp_path / "a.md").read_text()


def test_the_table_tests_each_variant_against_the_baseline(tmp_path, trained):
    run_ablation(small(tmp_path))
    lines = current_lines(tmp_path / "a.jsonl", "resource_gathering", "assigners")
    rows = table_rows(lines, lines)
    assert [row[1:7] for row in rows] == [
        ["2", "plain_em", "2", "80.50 ± 0.50", "80.5%", ""],
        ["2", "end_to_end", "2", "83.50 ± 0.50", "83.5%", "0.0e+00 *"],  # the same gain in both seeds
    ]
    assert "| 2,048 | 2 | end_to_end | 2 | 83.50 ± 0.50 | 83.5% |" in (tmp_path / "a.md").read_text()


def small_settings(env):
    return Ablation(env=env, of="settings", ks=(3,), transitions=2048)


def test_variants_are_what_they_are_called():
    for env in ("resource_gathering", "halfcheetah_speed"):
        described = [Cell(env, "assigners", name, 3, 2048).describe() for name in COMPARISONS["assigners"].variants]
        assert len({str(line | {"variant": ""}) for line in described}) == len(described), "two names for the same"
    before = preset("halfcheetah_speed", k=3, transitions=2048)
    named = COMPARISONS["settings"].variants
    cells = make_cells(small_settings("halfcheetah_speed"))
    segments = {cell.variant: cell.task(0)[0].spec.segment_length for cell in cells if named[cell.variant].segment}
    assert segments == {f"segments of {steps}": steps for steps in (1, 10, 200, 1000)}
    assert cells[0].task(0)[0].spec.segment_length == SEGMENT
    changes = {cell.variant: named[cell.variant].change(before) for cell in cells}
    as_it_is = {"exploring", "the discount of the task and lambda 0.95", "std from e^-1", "rewards as they are"}
    as_it_is |= {"lambda 0.95 and a learning rate from 3e-4"}
    assert set(named) - set(changes) == as_it_is | {"std from e^-1 and rewards as they are"}
    assert {str(changes.pop(name)) for name in ("preset", *segments)} == {str(before)}
    assert len(set(map(str, changes.values())) - {str(before)}) == len(changes)
    larger = changes.pop("five times the environments and minibatches").sizes
    assert {config.sizes.transitions for config in changes.values()} == {2048}, "an iteration costs the same"
    assert (larger.transitions, larger.transitions // larger.minibatches) == (5 * 2048, 64)
    assert changes["entropy x 3"].rates.entropy == pytest.approx((3e-3, 3e-4))
    assert changes["constant learning rate"].rates.learning_rate == (3e-4, 3e-4)
    of_hopper = {cell.variant: cell.config() for cell in make_cells(small_settings("hopper_speed"))}
    assert set(named) - set(of_hopper) == {
        *("exploring", "lambda 0.9", "discount 0.98 and lambda 0.9", "std from 1", "rewards x 100")
    }
    plain = of_hopper["std from e^-1 and rewards as they are"]
    assert (plain.sizes.log_std_init, plain.rates.reward_scaling) == (-1.0, 1.0)


def test_quick_results_are_no_results():
    assert narrow(Ablation()).results == Path("benchmarks/results/ablation_resource_gathering.jsonl")
    assert narrow(Ablation(of="settings", env="ant_speed")).results == Path(
        "benchmarks/results/ablation_ant_speed_settings.jsonl"
    )
    assert narrow(Ablation(quick=True)).results == Path("runs/ablation/ablation_resource_gathering.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ("plain_em", "seedling")}, "variant = 'seedling' is not known; did you mean 'seeding'"),
        ({"ks": (26,)}, "k = 26: must be at most n = 25"),
        ({"seeds": 0}, "seeds = 0: must be a whole number of at least 1"),
        ({"env": "gathering"}, "env = 'gathering' is not known"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_cells(Ablation(**changes))


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, "-m", "benchmarks.ablation", "--quick", "--variants", "plain_em", "seeding"]
    command += ["--results", str(tmp_path / "lines.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["variant"] for line in lines] == ["plain_em", "seeding"]
    for line in lines:
        assert sum(line["welfare"]) / 2 == pytest.approx(line["welfare_mean"], abs=1e-3)
        assert line["share_of_bound"] == pytest.approx(line["welfare_mean"] / 86.0, abs=1e-3)
        assert line["total_transitions"] == 2 * line["transitions_per_policy"] >= 20_000
    assert (tmp_path / "lines.md").read_text().count("| 10,000 | 2 |") == 2
    table = done.stderr[done.stderr.index("resource_gathering, 10,000") :]
    assert max(map(len, table.splitlines())) <= 80


def test_the_picture_compares_the_seeds_that_all_variants_have():
    def line(variant, welfare):
        runs = [
            {"seed": seed, "welfare": value, "curve": [[10, value], [20, value]], "upper_bound": 90.0 + seed, "reachable": None}
            for seed, value in enumerate(welfare)
        ]
        return {"env": "hopper_speed", "k": 2, "variant": variant, "runs": runs, "welfare_mean": 0.0}

    (axes,) = draw_lines([line("plain_em", [10.0, 20.0]), line("em", [30.0, 40.0, 80.0])]).axes
    assert axes.get_title(loc="left").endswith("k = 2, 2 seeds")
    drawn = {text.split(":")[0]: text for text in axes.get_legend_handles_labels()[1]}
    assert drawn["em"] == "em: 35.0 in fresh episodes", "not the seed that only em has"
    assert "upper bound 90.50" in {text.get_text() for text in axes.texts}
