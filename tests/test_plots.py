import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from drawn import metrics, optimal_walks
from matplotlib.colors import same_color, to_rgb
from PIL import Image

from rmdp_jax import plots
from rmdp_jax.plots.style import deep


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
