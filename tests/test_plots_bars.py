import pytest
from drawn import texts

from rmdp_jax import plots


def bars(panel="grid", best="em", **heights):
    """Bars of one panel at k = 2 and k = 5, 5 higher there."""
    return [
        plots.Bar(panel, k, name, height + 5 * (k == 5), 0.5, name == best) for k in (2, 5) for name, height in heights.items()
    ]


def test_bars_stand_by_k_with_their_errors_numbers_and_levels():
    figure = plots.welfare_by_k(bars(em=85.0, random=80.0), {("grid", 2): 86.0, ("grid", 5): 91.04})
    (axes,) = figure.axes
    tops = [bar.get_y() + bar.get_height() for bar in axes.patches]
    assert tops == [85.0, 80.0, 90.0, 85.0]
    assert all(word in texts(figure) for word in ("85.0", "80.0", "90.0", "86.00", "91.04"))
    assert [line.get_ydata()[0] for line in axes.lines if line.get_gid() == "bound"] == [86.0, 91.04]
    errors = [segment for bar in axes.containers if hasattr(bar, "has_yerr") for segment in bar.lines[2][0].get_segments()]
    assert errors[0][:, 1].tolist() == [84.5, 85.5]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["k = 2", "k = 5"]
    assert axes.get_ylim()[0] > 0
    assert f"axis from {axes.get_ylim()[0]:g}" in axes.get_ylabel()


def test_stars_mark_the_best_where_something_is_worse():
    stars = [line for line in plots.welfare_by_k(bars(em=85.0, random=80.0), {}).axes[0].lines if line.get_gid() == "best"]
    assert [round(line.get_xdata()[0]) for line in stars] == [0, 1]
    alone = plots.welfare_by_k(bars(em=85.0), {}).axes[0].lines
    assert not [line for line in alone if line.get_gid() == "best"]


def test_what_too_few_seeds_tell_is_marked():
    drawn = [bar._replace(too_few=bar.name == "random") for bar in bars(em=85.0, cluster=70.0, random=80.0)]
    marks = [line for line in plots.welfare_by_k(drawn, {}).axes[0].lines if line.get_gid() == "too few"]
    assert [round(line.get_xdata()[0], 2) for line in marks] == [0.28, 1.28]  # the last of three bars
    (legend,) = plots.welfare_by_k(drawn, {}).legends
    assert "too few seeds to tell it from the best" in [text.get_text() for text in legend.get_texts()]


def test_an_algorithm_has_its_color_in_every_panel_and_low_bars_start_at_zero():
    figure = plots.welfare_by_k([*bars("a", em=30.0, random=5.0), *bars("b", random=5.0)], {})
    first, second = figure.axes
    assert second.patches[0].get_facecolor() == first.patches[1].get_facecolor()
    assert first.patches[0].get_facecolor() != first.patches[1].get_facecolor()
    assert first.get_ylim()[0] == 0
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]


def test_numbers_of_wide_bars_lie_flat():
    def turned(drawn):
        return {note.get_rotation() for note in plots.welfare_by_k(drawn, {}).axes[0].texts if note.get_text()}

    assert turned(bars(em=30.0, random=5.0)) == {0.0}
    assert turned(bars(em=30.0, plain_em=25.0, end_to_end=20.0, cluster=10.0, random=5.0)) == {90.0}


@pytest.mark.parametrize("names", [("em",), ("em", "plain_em", "end_to_end", "cluster", "random")])
@pytest.mark.parametrize("height", [3.0, 6.0, 9.0, 12.0, 15.0])
def test_no_number_lies_across_a_dashed_level(names, height):
    low = [plots.Bar("grid", 2, name, height + i / 2, 0.8, False) for i, name in enumerate(names)]
    high = [plots.Bar("grid", 10, name, 55.0, 1.0, False) for name in names]
    figure = plots.welfare_by_k([*low, *high], {("grid", 2): 17.79, ("grid", 10): 60.36})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    level = axes.transData.transform((0, 17.79))[1]
    spans = {note.get_text(): note.get_window_extent() for note in axes.texts if note.get_text()}
    assert f"{height:.1f}" in spans
    assert not [text for text, span in spans.items() if span.y0 + 1 < level < span.y1 - 1]
