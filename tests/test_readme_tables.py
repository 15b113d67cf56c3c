"""README's tables are those of the committed lines."""

from pathlib import Path

import pytest

from benchmarks.readme import TABLES, written
from rmdp_jax.errors import ConfigError

README = Path("README.md").read_text()


def test_no_cell_was_made_by_hand():
    assert written(README) == README, "run python -m benchmarks.readme"
    assert all(f"<!-- benchmarks.readme {name} -->" in README for name in TABLES)


def test_what_stands_between_the_marks_is_replaced():
    begin, end = "before\n<!-- benchmarks.readme speed_1M -->\n", "<!-- end -->\nafter"
    assert written(begin + "| 99 |\n" + end) == written(begin + end)
    assert "| `walker2d_speed` | 5 |" in written(begin + end)


def test_an_unknown_table_is_refused():
    with pytest.raises(ConfigError, match=r"table = figure_9: must be one of figure_2"):
        written("<!-- benchmarks.readme figure_9 -->\n<!-- end -->")
