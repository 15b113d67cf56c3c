import numpy as np
import pytest
from drawn import metrics, texts
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color

from rmdp_jax import plots
from rmdp_jax.plots.style import count_transitions


def test_welfare_curve_has_the_bound_dashed_and_numbered():
    final = {"transitions_per_policy": 5000, "welfare": 42.0, "welfare_standard_error": 0.5}
    figure = plots.welfare_curve(metrics(), 91.04, final)
    (axes,) = figure.axes
    dashed = [line for line in axes.lines if line.get_linestyle() == "--" and set(line.get_ydata()) == {91.04}]
    assert len(dashed) == 1
    assert "91.04" in texts(figure)
    running = [line for line in axes.lines if list(line.get_ydata()) == [0.0, 10.0, 20.0, 30.0, 40.0]]
    assert list(running[0].get_xdata()) == [1000, 2000, 3000, 4000, 5000]
    without = plots.welfare_curve(metrics(), None, None)
    assert not [line for line in without.axes[0].lines if line.get_linestyle() == "--"]


def test_welfare_curve_has_a_circle_where_policies_went_on_from_others():
    lines = [line | {"copies": copies} for line, copies in zip(metrics(), (0, 2, 0, 0, 3), strict=True)]
    (axes,) = plots.welfare_curve(lines, 91.04, None).axes
    (circles,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert circles.get_xydata().tolist() == [[2000, 10], [5000, 40]]
    assert not [line for line in plots.welfare_curve(metrics(), 91.04, None).axes[0].lines if line.get_marker() == "o"]


def test_welfare_curve_has_what_the_latest_iterations_say_alone():
    lines = [line | {"welfare_recent": recent} for line, recent in zip(metrics(), (None, 20, 30, 40, 120), strict=True)]
    figure = plots.welfare_curve(lines, None, None)
    (alone,) = [line for line in figure.axes[0].lines if line.get_label() == "latest iterations alone"]
    assert alone.get_ydata().tolist()[1:] == [20, 30, 40, 120]
    assert figure.axes[0].get_ylim()[1] > 120
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["running estimate", "latest iterations alone"]
    assert plots.welfare_curve(metrics(), None, None).legends == []


def test_welfare_of_seeds_has_a_line_and_a_diamond_of_each_and_their_mean():
    runs = [[line | {"welfare": factor * line["welfare"]} for line in metrics()] for factor in (0.5, 1.5)]
    finals = [{"welfare": welfare, "transitions_per_policy": 5000} for welfare in (30.0, None)]
    figure = plots.welfare_of_seeds(runs, finals, 91.04)
    (axes,) = figure.axes
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert drawn["their mean"] == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert drawn["running estimate of each"] == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert drawn["fresh episodes of each"][0] == 30.0
    assert np.isnan(drawn["fresh episodes of each"][1])
    assert "91.04" in texts(figure)
    assert axes.get_ylim()[1] > 91.04
    assert "30.0 in fresh episodes" in figure.get_label()


def test_welfare_curve_shows_fresh_episodes_with_their_standard_error():
    final = {"transitions_per_policy": 5000, "welfare": 42.0, "welfare_standard_error": 0.5}
    figure = plots.welfare_curve(metrics(), 84.0, final, bound_name="proved optimum")
    (axes,) = figure.axes
    (errors,) = axes.containers[0].lines[2]
    assert errors.get_segments()[0].tolist() == [[5000, 41.5], [5000, 42.5]]
    assert "42.00 ± 0.50\n50.0% of the proved optimum" in texts(figure)
    unknown = plots.welfare_curve(
        [{"transitions_per_policy": 9, "welfare": None}], None, {**final, "welfare_standard_error": None}
    )
    assert "42.00" in texts(unknown)
    assert "±" not in texts(unknown)


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (100_000, "100k"), (1_500_000, "1.5M"), (2_000_000, "2M")])
def test_transitions_are_counted_in_thousands_and_millions(number, text):
    assert count_transitions(number) == text


def test_assignment_history_names_the_last_sizes_and_counts_moves():
    said = texts(plots.assignment_history(metrics()))
    assert "policy 0: 6" in said
    assert "policy 2: 2" in said
    assert "10 moves" in said


def test_assignment_history_stacks_to_n_in_the_colors_of_the_policies():
    above, below = plots.assignment_history(metrics()).axes
    bands = [band for band in above.collections if isinstance(band, PolyCollection)]
    for color, band in zip(plots.policy_colors(3), bands, strict=True):
        assert same_color(band.get_facecolor()[0][:3], color)
    assert max(band.get_paths()[0].vertices[:, 1].max() for band in bands) == 12
    assert below.collections[0].get_paths()[0].vertices[:, 1].max() == 4  # the most flips in one line


def test_variants_are_drawn_with_their_range_and_the_bounds():
    curves = {"em": [np.array([[10, 1.0], [20, 3.0]]), np.array([[10, 2.0], [20, 5.0], [30, 9.0]])], "other": [np.ones((2, 2))]}
    figure = plots.welfare_of_variants("a task", curves, {"em": 6.0, "other": 1.5}, upper_bound=12.0, reachable=8.0)
    (axes,) = figure.axes
    mean = next(line for line in axes.lines if line.get_label() == "em: 6.0 in fresh episodes")
    assert mean.get_xydata().tolist() == [[10, 1.5], [20, 4.0]]  # as far as all seeds go
    assert [text.get_text() for text in axes.texts] == ["upper bound 12.00", "reachable, estimated 8.00"]
    assert "em 6.0, other 1.5" in figure.get_label()


def test_variants_are_drawn_by_seconds_too():
    curves = {"em": [np.array([[10, 1.0, 4.0], [20, 3.0, 8.0]]), np.array([[10, 3.0, 6.0], [20, 5.0, 12.0]])]}
    (axes,) = plots.welfare_of_variants("a task", curves, {"em": 6.0}, by_seconds=True).axes
    mean, end = axes.lines
    assert mean.get_xydata().tolist() == [[5, 2], [10, 4]]
    assert end.get_xydata().tolist() == [[10, 6]]
    assert axes.get_xlabel() == "seconds"


def test_variants_go_as_far_as_all_seeds():
    curves = {"em": [np.array([[10, 1.0], [30, 3.0]]), np.array([[10, 1.0], [20, 2.0], [25, 7.0]])]}
    (axes,) = plots.welfare_of_variants("a task", curves, {}).axes
    assert axes.lines[0].get_xydata().tolist() == [[10, 1]]  # the first has no point of its own before the second ends


def test_names_of_bounds_that_are_close_do_not_overlap():
    figure = plots.welfare_curve(metrics(), 38.4, None, reachable=38.0)
    figure.canvas.draw()
    highest, other = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not highest.overlaps(other)
