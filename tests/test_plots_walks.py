import numpy as np
import pytest
from drawn import optimal_walks, texts
from matplotlib.colors import same_color

from rmdp_jax import plots
from rmdp_jax.envs.resource_gathering import optimum
from rmdp_jax.plots.routes import count_bumps, trace


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


def test_one_policy_may_be_drawn_alone():
    figure = plots.walks_on_grid(*optimal_walks(3)[:2], 5, *optimal_walks(3)[2:], only=1)
    (axes,) = figure.axes
    assert axes.get_title("left").startswith("policy 1")
    assert figure.get_label().startswith("Walks of 1 policy on the grid")
