import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color, to_rgb
from PIL import Image

from rmdp_jax import plots
from rmdp_jax.envs.resource_gathering import cells_of_walk, optimum
from rmdp_jax.plots.routes import count_bumps, trace
from rmdp_jax.plots.style import RULE, count_transitions, deep


def metrics(k=3, lines=5):
    return [
        {
            "transitions_per_policy": 1000 * (t + 1),
            "welfare": 10.0 * t,
            "policy_sizes": [2 + t, *[4] * (k - 2), 6 - t],
            "flips": t,
        }
        for t in range(lines)
    ]


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center")]
    found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " | ".join(found)


def optimal_walks(k, length=40):
    """Positions (k, T, 2), alive (k, T), assignment (25,) and returns (25,) of the proved optimum."""
    positions, alive = np.full((k, length, 2), (4, 2)), np.zeros((k, length), bool)
    pays = np.zeros((k, 25))
    for j, walk in enumerate(optimum(k)["walks"]):
        cells = cells_of_walk(walk)
        positions[j, : len(cells)], alive[j, : len(cells)] = cells, True
        for row, column in cells:
            pays[j, 5 * row + column] = 100 - len(walk)
    return positions, alive, pays.argmax(0), pays.max(0)


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


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_walks_have_a_panel_each_and_one_for_everybody(k):
    figure = plots.walks_on_grid(*optimal_walks(k)[:2], 5, *optimal_walks(k)[2:])
    drawn = [axes for axes in figure.axes if axes.axison or axes.patches]
    assert len(drawn) == k + (k > 1)
    walks = [patch for axes in figure.axes for patch in axes.patches if patch.get_gid() == "walk"]
    assert len(walks) == k
    for j, walk in enumerate(optimum(k)["walks"]):
        assert f"policy {j}" in texts(figure)
        assert f"{len(walk)} steps" in texts(figure)


def test_a_walk_that_never_came_home_is_marked():
    positions, alive, assignment, returns = optimal_walks(2)
    positions[1], alive[1] = (0, 0), True
    figure = plots.walks_on_grid(positions, alive, 5, assignment, returns)
    lost = [line for axes in figure.axes for line in axes.lines if line.get_gid() == "lost"]
    assert lost
    whole = plots.walks_on_grid(*optimal_walks(2)[:2], 5, *optimal_walks(2)[2:])
    assert not [line for axes in whole.axes for line in axes.lines if line.get_gid() == "lost"]


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
    assert rows == ["policy 0: 2 agents, mean 1.10", "policy 1: 2 agents, mean 3.10"]


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


def test_out_and_back_lie_side_by_side_and_a_second_pass_further_out():
    once = trace(np.array([[4, 2], [3, 2], [4, 2]]))
    np.testing.assert_allclose(once.middles[:, 0] - 2, [0.075, -0.075])  # keeps right: up on the right, down on the left
    twice = trace(np.array([[4, 2], [3, 2], [4, 2], [3, 2], [4, 2]]))
    assert len(np.unique(twice.middles.round(6), axis=0)) == 4
    assert np.abs(twice.corners - [2, 3.5]).max() < 1.0  # stays within the two cells


def test_bumps_are_counted_where_they_happen():
    cells = np.array([[4, 2], [4, 1], [4, 1], [4, 1], [3, 1]])
    assert count_bumps(cells) == {(4, 1): 2}
    assert len(trace(cells).middles) == 2
    still = trace(np.array([[4, 2], [4, 2]]))
    assert still.corners.tolist() == [[2, 4]]


def test_unserved_cells_are_hatched_and_everyones_colored():
    positions, alive, assignment, returns = optimal_walks(2)
    everyone, *panels = plots.walks_on_grid(positions, alive, 5, assignment, returns).axes
    assert not [patch for axes in panels for patch in axes.patches if patch.get_hatch()]
    cells = everyone.patches[1:26]  # the first is the ground
    colors = plots.policy_colors(2)
    assert all(same_color(cell.get_facecolor(), colors[j]) for cell, j in zip(cells, assignment, strict=True))
    swapped = plots.walks_on_grid(positions, alive, 5, 1 - assignment, returns).axes[1:]
    assert [patch for axes in swapped for patch in axes.patches if patch.get_hatch()]


def test_more_policies_than_panels_are_told():
    positions, alive = np.tile(optimal_walks(1)[0], (30, 1, 1)), np.tile(optimal_walks(1)[1], (30, 1))
    figure = plots.walks_on_grid(positions, alive, 5, np.arange(50) % 30, np.zeros(50))
    assert "Only the 25 policies" in figure.get_supxlabel()
    assert max(figure.get_size_inches()) <= 14


def test_a_policy_has_its_color_in_every_picture():
    color = plots.policy_colors(2)[1]
    walks = plots.walks_on_grid(*optimal_walks(2)[:2], 5, *optimal_walks(2)[2:])
    lines = [patch for axes in walks.axes for patch in axes.patches if patch.get_gid() == "walk"]
    assert same_color(lines[1].get_edgecolor(), deep(color))
    above, _ = plots.target_histogram([1.0, 2.0, 3.0], [1, 1, 0], 2, (0.0, 4.0)).axes
    left = {patch.get_facecolor() for patch in above.patches if patch.get_height() > 0 and patch.get_x() < 2.5}
    assert left == {(*to_rgb(color), 1.0)}
    (people,) = plots.agent_distribution(np.ones((2, 3)), [1, 1, 1]).axes
    assert all(same_color(bar.get_facecolor(), color) for bars in people.containers for bar in bars)
    (_, panel) = plots.speed_history([1, 2], np.ones((2, 2)), np.array([[[0, 1], [2, 3]]] * 2)).axes
    assert same_color(panel.collections[0].get_facecolor()[0][:3], color)


# Machado et al. 2009, severity 1, on linear RGB; the identity for normal eyes.
EYES = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LMS = np.array([[0.412221, 0.536333, 0.051446], [0.211903, 0.680700, 0.107397], [0.088302, 0.281719, 0.629979]])
LAB = np.array([[0.210454, 0.793618, -0.004072], [1.977998, -2.428592, 0.450594], [0.025904, 0.782772, -0.808676]])


@pytest.mark.parametrize("eyes", EYES)
def test_ten_colors_can_be_told_apart_by_all_eyes(eyes):
    rgb = np.array([to_rgb(color) for color in plots.policy_colors(10)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eyes]).T, 0, 1)
    oklab = np.cbrt(seen @ LMS.T) @ LAB.T
    apart = 100 * np.linalg.norm(oklab[:, None] - oklab[None], axis=-1) + 99 * np.eye(10)
    assert apart.min() > 11
    assert apart[:3, :3].min() > 24


def test_a_policy_keeps_its_color_and_neighbours_differ():
    assert plots.policy_colors(10)[:3] == plots.policy_colors(3)
    colors = np.array([to_rgb(color) for color in plots.policy_colors(50)])
    apart = np.abs(colors[:, None] - colors[None]).sum(-1) + 9 * np.eye(50)
    assert apart.min() > 0.05


def test_pictures_are_saved_and_settings_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    path = plots.save(plots.assignment_history(metrics()), tmp_path / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 500_000
    assert dict(matplotlib.rcParams) == before


def test_a_saved_picture_is_bounded_and_described(tmp_path):
    figure = plots.assignment_history(metrics())
    figure.set_size_inches(100, 4)
    with Image.open(plots.save(figure, tmp_path / "new" / "picture.png")) as image:
        assert image.size == (2100, 600)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert image.info["Description"] == "Sizes of 3 policies over training, at the end 6, 4, 2; 10 moves in all."


def test_drawing_does_not_load_pyplot(tmp_path):
    code = (
        "import sys; from rmdp_jax import plots; "
        f"plots.save(plots.welfare_curve([], 1.0, None), {str(tmp_path / 'x.png')!r}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_an_algorithm_has_its_color_in_every_panel_and_low_bars_start_at_zero():
    figure = plots.welfare_by_k([*bars("a", em=30.0, random=5.0), *bars("b", random=5.0)], {})
    first, second = figure.axes
    assert second.patches[0].get_facecolor() == first.patches[1].get_facecolor()
    assert first.patches[0].get_facecolor() != first.patches[1].get_facecolor()
    assert first.get_ylim()[0] == 0
    assert [axes.get_title("left") for axes in figure.axes] == ["a", "b"]
