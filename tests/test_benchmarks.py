import json
import subprocess
import sys

import pytest

COMMANDS = {
    "resource_gathering": [sys.executable, "-m", "benchmarks.resource_gathering", "--quick"],
    "throughput": [sys.executable, "-m", "benchmarks.throughput", "--quick", "--environments", "8", "--minibatches", "2"],
    "accelerator": ["benchmarks/accelerator.sh", "--quick"],
}


@pytest.fixture
def lines(request):
    """JSON lines of a benchmark's stdout, and what it says to people on stderr."""
    done = subprocess.run(COMMANDS[request.param], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["resource_gathering"], indirect=True)
def test_resource_gathering_prints_welfare_next_to_the_optimum(lines):
    (line,), table = lines
    assert line["k"] == 2
    assert line["optimum"] == 86.0
    assert len(line["welfare"]) == 2
    assert sum(line["welfare"]) / 2 == pytest.approx(line["welfare_mean"], abs=1e-3)
    assert "proved best" in table


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["throughput"], indirect=True)
def test_throughput_splits_the_time(lines):
    (line,), _ = lines
    assert line["physics_only_per_s"] > line["transitions_per_s"] > 0
    shares = line["share_physics"] + line["share_acting"] + line["share_update"]
    assert shares == pytest.approx(1, abs=1e-3)
    assert line["versions"]["jax"]


@pytest.mark.slow
@pytest.mark.parametrize("lines", ["accelerator"], indirect=True)
def test_accelerator_measures_and_trains(lines):
    (row, training), table = lines
    assert row["env"] == "halfcheetah_speed"
    assert row["transitions_per_s"] > 0
    assert row["peak_memory_gib"] > 0
    assert 0 <= training["welfare"] <= training["upper_bound"]
    assert max(map(len, table.splitlines())) <= 80
