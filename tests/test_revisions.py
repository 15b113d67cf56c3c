"""Runs of an earlier arithmetic of `em` are not taken for today's: its version is recorded, and a change of it is noticed."""

from dataclasses import replace

import pytest
from tiny import CONFIG, SIZES, make_tiny

from benchmarks.runs import ANNEALED_EM, revision_of
from benchmarks.variants import Cell, trained_as
from rmdp_jax import em, train

# Iterations in which policies were copied, and how many: the split, and the starts after it.
STORY = {2: [(11, 2), (19, 1)]}
OPTIONS = {"explore": 4, "anneal": 4, "relocate_every": 4, "starts": 4}
ARCHIVE = {"segment_environments": 4, "archive_size": 4, "archive_every": 2}


@pytest.mark.slow
def test_the_numbers_of_em_are_those_of_its_version():
    sizes = replace(SIZES, explore="in_turn")
    config = replace(CONFIG, transitions=48 * SIZES.transitions, log_every=1, sizes=sizes)
    metrics = train(*make_tiny(), config, em(2, 4, **OPTIONS, **ARCHIVE), progress=False).metrics
    copied = [(line["iteration"], line["copies"]) for line in metrics if line["copies"]]
    message = "em does other things than before: raise ANNEALED_EM in benchmarks/runs.py and tell its story here, or mend em"
    assert copied == STORY[ANNEALED_EM], message


def test_lines_of_an_earlier_version_are_of_other_training():
    cell = Cell("resource_gathering", "assigners", "em", 2, 4096)
    line = cell.describe() | {"runs": []}
    assert line["revision"] == revision_of("em", line["algorithm_options"]) == ANNEALED_EM
    assert trained_as(line, cell)
    assert not trained_as({name: value for name, value in line.items() if name != "revision"}, cell)
    plain = Cell("resource_gathering", "assigners", "plain_em", 2, 4096)
    line = {name: value for name, value in plain.describe().items() if name != "revision"}
    assert trained_as(line | {"runs": []}, plain)  # nothing but em has had another one
    assert trained_as(line | {"env_options": {"n": 25, "seed": 3}, "backend": "jax"}, plain)  # a line of a figure
    assert not trained_as(line | {"env_options": {"n": 25, "size": 4, "seed": 3}, "backend": "jax"}, plain)
