"""README's tables are those of the committed lines."""

import pytest

from benchmarks.readme import FILES, TABLES, written
from rmdp_jax.errors import ConfigError

TEXTS = [file.read_text() for file in FILES]


@pytest.mark.parametrize("text", TEXTS, ids=map(str, FILES))
def test_no_cell_was_made_by_hand(text):
    assert written(text) == text, "run python -m benchmarks.readme"


def test_every_table_is_in_one_of_the_files():
    assert all(sum(f"<!-- benchmarks.readme {name} -->" in text for text in TEXTS) == 1 for name in TABLES)


def test_what_stands_between_the_marks_is_replaced():
    begin, end = "before\n<!-- benchmarks.readme speed_1M -->\n", "<!-- end -->\nafter"
    assert written(begin + "| 99 |\n" + end) == written(begin + end)
    assert "| `walker2d_speed` | 5 |" in written(begin + end)


def test_an_unknown_table_is_refused():
    with pytest.raises(ConfigError, match=r"table = figure_9: must be one of figure_2"):
        written("<!-- benchmarks.readme figure_9 -->\n<!-- end -->")
