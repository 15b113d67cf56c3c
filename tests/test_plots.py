import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rmdp_jax import plots
from rmdp_jax.envs.resource_gathering import cells_of_walk, optimum


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


def test_assignment_history_names_the_last_sizes_and_counts_moves():
    said = texts(plots.assignment_history(metrics()))
    assert "policy 0: 6" in said
    assert "policy 2: 2" in said
    assert "10 moves" in said


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


def test_speed_history_tells_speed_and_targets():
    speed = np.stack([np.linspace(0, 1, 4), np.linspace(0, 2, 4)], 1)
    ranges = np.tile([[[0.5, 1.5], [np.nan, np.nan]]], (4, 1, 1))
    said = texts(plots.speed_history([1, 2, 3, 4], speed, ranges))
    assert "1.00 for 0.50 to 1.50" in said
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
