import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_quick_run_finds_no_fall_and_the_optimum():
    command = [sys.executable, "-m", "benchmarks.theorem", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["experiment"] for line in lines] == ["random_mdps"] + ["resource_gathering_3x3"] * 4
    for line in lines:
        assert line["share_fixed_points"] == 1
        assert line["worst_fall"] <= 1e-12
        assert line["half_steps"] >= 2 * line["restarts"]
        assert line.get("most_gain_left", 0) <= 2e-9
    gathering = lines[1:]
    assert [line["k"] for line in gathering] == [1, 2, 3, 4]
    assert [line["optimum"] for line in gathering] == pytest.approx([90, 94, 94.889, 95.556])
    assert all(line["welfare_best"] == line["optimum"] and 0 < line["share_at_optimum"] <= 1 for line in gathering)
    assert gathering[0]["share_at_optimum"] == 1
    assert "3x3 Resource Gathering" in done.stderr
