"""`benchmarks.speed`: lines of what it runs, kept by what printed them, and README's tables of them."""

import json
import subprocess
import sys

import pytest

from benchmarks import speed
from benchmarks.speed import RUNS, Speed, ratio_rows, run_all
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.files import read_lines


@pytest.fixture
def ran(monkeypatch):
    """Commands that were started; each prints two lines, and one about startup fails."""
    commands = []

    def run(command, **options):
        commands.append(command)
        printed = "".join(json.dumps({"call": len(commands), "line": number}) + "\n" for number in (1, 2))
        return subprocess.CompletedProcess(command, int("benchmarks.startup" in command), printed)

    monkeypatch.setattr(speed.subprocess, "run", run)
    return commands


def test_lines_are_kept_by_the_command_that_printed_them(ran, tmp_path, capsys):
    results = tmp_path / "made" / "speed.jsonl"
    run_all(Speed(only=("agents", "grid"), results=results))
    assert [command[:3] for command in ran] == [
        [sys.executable, "-m", f"benchmarks.{name}"] for name in ("scaling_n", "throughput")
    ]
    run_all(Speed(only=("agents",), results=results, quick=True))
    assert ran[-1][-1] == "--quick"
    lines = read_lines(results)
    assert [(line["run"], line["call"], line["line"]) for line in lines] == [
        *(("grid", 2, 1), ("grid", 2, 2)),
        *(("agents", 3, 1), ("agents", 3, 2)),
    ]
    assert lines[0]["command"] == f"python -m benchmarks.{RUNS['grid']}"
    assert [json.loads(line)["call"] for line in capsys.readouterr().out.splitlines()] == [1, 1, 2, 2, 3, 3]


def test_what_fails_or_is_not_known_is_named(ran, tmp_path):
    with pytest.raises(ConfigError, match=r"only = startup: `python -m benchmarks.startup` ended with 1"):
        run_all(Speed(only=("grid", "startup"), results=tmp_path / "speed.jsonl"))
    assert len(read_lines(tmp_path / "speed.jsonl")) == 2, "what was measured before is kept"
    with pytest.raises(ConfigError, match=r"only = 'brx' is not known; did you mean 'brax'"):
        run_all(Speed(only=("brx",), results=tmp_path / "speed.jsonl"))


def test_every_figure_has_a_row():
    lines = [
        {"run": "policies", "k": 5, "ratio_to_first": 1.0},
        {"run": "policies", "k": 50, "ratio_to_first": 0.876},
        {"run": "agents", "k": 10, "n": 100, "iteration_s_ratio": 1.0},
        {"run": "agents", "k": 10, "n": 100_000, "iteration_s_ratio": 1.114, "peak_memory_gib": 1.52},
        {"run": "brax", "k": 8, "learner": "rmdp_jax", "ours_per_its_transitions_per_s": 1.0},
        {"run": "brax", "k": 8, "learner": "brax, one policy", "ours_per_its_transitions_per_s": 1.012},
        {"run": "brax", "k": 8, "learner": "brax, 8 runs in turn", "its_per_our_wall_s": 4.05},
        {"run": "startup", "env": "resource_gathering", "start": 1, "beyond_imports_s": 30.0},
        {"run": "startup", "env": "resource_gathering", "start": 2, "beyond_imports_s": 2.41},
    ]
    assert [figure for _, figure in ratio_rows(lines)] == ["0.88", "1.11, in 1.5 GiB", "1.01", "4.05", "2.4"]
