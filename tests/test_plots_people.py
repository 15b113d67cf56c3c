import numpy as np
import pytest
from drawn import texts
from matplotlib.colors import same_color

from rmdp_jax import plots
from rmdp_jax.plots.style import RULE


def test_histogram_counts_every_agent_once():
    targets = np.linspace(0.05, 3.95, 40)
    labels = np.repeat([1, 0], 20)
    figure = plots.target_histogram(targets, labels, 2, (0.0, 4.0), policy_speeds=[3.0, 1.0])
    above, below = figure.axes
    assert sum(bar.get_height() for bar in above.patches) == 40
    order = [label.get_text() for label in below.get_yticklabels()]
    assert order[0].startswith("policy 1: 20 agents, mean 1.0")
    diamonds = [float(line.get_xdata()[0]) for line in below.lines if line.get_marker() == "D"]
    assert diamonds == [1.0, 3.0]


def test_histogram_shows_who_is_hardly_served_in_grey():
    targets, labels = np.array([1.0, 1.2, 3.0, 3.2, 3.9]), np.array([0, 0, 1, 1, 0])
    returns = [50, 10, 20, 30, 9.9]
    above, below = plots.target_histogram(targets, labels, 2, (0.0, 4.0), returns=returns).axes
    grey = [bar for bar in above.patches if same_color(bar.get_facecolor(), RULE)]
    assert sum(bar.get_height() for bar in grey) == 1
    assert sum(bar.get_height() for bar in above.patches) == 5
    assert "grey: 1 agent with less than 10 of 100" in above.get_title("left") + above.get_title()
    rows = [label.get_text() for label in below.get_yticklabels()]
    assert rows == ["policy 0: 2 of 3 agents, mean 1.10", "policy 1: 2 agents, mean 3.10"]


def test_speed_history_tells_speed_and_targets():
    speed = np.stack([np.linspace(0, 1, 4), np.linspace(0, 2, 4)], 1)
    ranges = np.tile([[[0.5, 1.5], [np.nan, np.nan]]], (4, 1, 1))
    said = texts(plots.speed_history([1, 2, 3, 4], speed, ranges))
    assert "1.00 for targets 0.50 to 1.50" in said
    assert "serves nobody" in said


def test_people_see_their_own_return():
    utility = np.array([[90.0, 10.0, 50.0, 0.0], [20.0, 80.0, 60.0, 0.0]])
    assignment = np.array([0, 1, 0, 1])
    figure = plots.agent_distribution(utility, assignment)
    assert "mean 55.0" in texts(figure)
    matrix = plots.utility_matrix(utility, assignment)
    values = [collection.get_array() for axes in matrix.axes for collection in axes.collections]
    shown = [np.asarray(value).reshape(2, 4).tolist() for value in values if value is not None and np.size(value) == 8]
    (columns,) = (list(zip(*rows, strict=True)) for rows in shown)
    assert set(columns[:2]) == {(90, 20), (50, 60)}  # grouped by policy
    assert set(columns[2:]) == {(10, 80), (0, 0)}


def test_the_worst_tenth_and_the_best_possible_are_marked():
    own = np.arange(20.0) * 5
    utility = np.stack([own, np.zeros(20)])
    figure = plots.agent_distribution(utility, np.zeros(20, int))
    (axes,) = figure.axes
    assert "worst-served tenth: mean 2.5" in texts(figure)  # of 0 and 5
    assert sorted({line.get_ydata()[0] for line in axes.lines}) == [47.5, 100.0]
    heights = [bar.get_height() for bars in axes.containers for bar in bars]
    assert heights == own.tolist()


@pytest.mark.parametrize(("highest", "top"), [(100.0, 112.0), (105.0, 112.0), (450.0, 504.0)])
def test_returns_in_units_of_their_own_have_an_axis_of_their_own(highest, top):
    own = np.array([20.0, highest])
    (axes,) = plots.agent_distribution(np.stack([own, own]), [0, 1]).axes
    assert axes.get_ylim() == (0.0, pytest.approx(top))
    assert any("possible" in text.get_text() for text in axes.texts) == (highest < 110)
    assert axes.get_ylabel() == ("return (0 to 100)" if highest < 110 else "return")


def test_mean_and_worst_tenth_go_by_weight():
    own = np.array([50.0, 0.0, 100.0])
    figure = plots.agent_distribution(np.stack([own, own]), [0, 1, 0], weights=[2.0, 0.5, 7.5])
    assert "mean 85.0" in texts(figure)
    assert "worst-served tenth: mean 25.0" in texts(figure)  # half a tenth of 0, half of 50
    spans = [patch for patch in figure.axes[0].patches if patch.get_alpha() == 0.22]
    assert [patch.get_width() for patch in spans] == [1.25]  # and a quarter of the second


def test_utility_matrix_frames_groups_and_marks_who_should_move():
    utility = np.array([[90.0, 10.0, 50.0], [20.0, 80.0, 60.0]])
    _, axes, _ = plots.utility_matrix(utility, [0, 1, 0]).axes
    frames = {(patch.get_x(), patch.get_y(), patch.get_width()) for patch in axes.patches}
    assert frames == {(0, -0.5, 2), (2, 0.5, 1)}
    dots = axes.collections[-1].get_offsets().tolist()
    assert dots == [[1.5, 1]]  # the second agent of policy 0 would get 10 more from policy 1


def test_utility_matrix_of_many_agents_averages_within_a_policy_only():
    n = 1000
    assignment = np.arange(n) % 3
    utility = np.tile(assignment * 10.0, (3, 1))
    strip, axes, _ = plots.utility_matrix(utility, assignment).axes
    values, owners = np.asarray(axes.collections[0].get_array()), np.asarray(strip.collections[0].get_array())[0]
    assert 300 < values.shape[1] <= 402
    np.testing.assert_allclose(values, np.tile(owners * 10.0, (3, 1)))


def test_an_outcome_is_told_by_those_who_still_go_on():
    values, alive = np.array([[1.0, 2.0, 99.0], [3.0, 4.0, 6.0]]), np.array([[1, 1, 0], [1, 1, 1]], bool)
    figure = plots.outcome_over_steps(values, alive, "#00a3ff", "speed", "m/s", wishes=[2.5, 3.5])
    median, wishes = figure.axes[0].lines
    np.testing.assert_allclose(median.get_ydata(), [2.0, 3.0, 6.0])  # the 99 is after the end
    np.testing.assert_allclose(wishes.get_ydata(), [2.5, 3.5])
    assert figure.axes[0].get_ylabel() == "speed (m/s)"


def test_agents_of_a_policy_stand_from_worst_to_best_beside_their_second_best():
    figure = plots.served_agents([30.0, 10.0, 20.0], "#00a3ff", width=[1.0, 2.0, 3.0], second=[3.0, 1.0, 2.0])
    second, own = figure.axes[0].lines[:2]
    np.testing.assert_allclose(second.get_ydata(), [1, 2, 3])
    np.testing.assert_allclose(own.get_ydata(), [10, 20, 30])
    (bars,) = figure.axes[0].containers[0].lines[2]
    np.testing.assert_allclose([np.ptp(segment[:, 1]) for segment in bars.get_segments()], [4, 6, 2])
