"""One look for all pictures: colours of policies, type sizes, axes, legends and the PNG or SVG at the end."""

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from rmdp_jax.paths import local_path

P = ParamSpec("P")

INK = "#22262b"  # text and proved facts
FAINT = "#6b737c"  # secondary text
RULE = "#d5d9dd"  # grids and frames
PAPER = "#f5f6f7"  # empty cells
ALARM = "#c1121f"  # what went wrong; never the only sign of it
DPI = 150
MOST_INCHES = 14.0  # of either side of a picture
_MOST_PIXELS = 900.0  # across a notebook

# Ten hues at least 11 units (100 x OKLab) apart to normal, deuteranopic, protanopic and tritanopic eyes; the first three 24.
_HUES = (
    *("#00a3ff", "#ffbc37", "#bb3f18", "#431b8f", "#ff74a5"),
    *("#8a57c0", "#01736d", "#7fa33d", "#c7c2ff", "#632e00"),
)
_SHADES = (0.0, 0.45, -0.35, 0.68, -0.6)  # of the first ten policies, the next ten, ...; to white above 0, to black below

# Reading the backend of rcParams would load pyplot, so it is the one setting left as it is.
_LOOK: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"} | {
    "font.size": 9,
    "text.parse_math": False,  # a $ in a name is a $
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "hatch.linewidth": 0.7,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def policy_colors(k: int) -> list[str]:
    """Colours of policies 0..k-1 as hex strings, the same for a policy whatever k is.

    Ten hues that also colour-blind eyes tell apart, then the same hues lighter and darker for up to 50; beyond that
    they repeat. With more than ten policies a picture must number them as well.
    """
    return [shade(_HUES[j % 10], _SHADES[j // 10 % len(_SHADES)]) for j in range(k)]


# Algorithms keep their colour in every picture; others follow in the order in which they come.
_ALGORITHMS = ("em", "end_to_end", "random", "plain_em", "cluster", "single", "end_to_end_surrogate", "individual", "oracle")


def algorithm_colors(names: Sequence[str]) -> list[str]:
    """A colour a name: the algorithm's own, or one that is left where several names share an algorithm."""
    palette = policy_colors(50)
    taken = [_ALGORITHMS.index(name) for name in names if name in _ALGORITHMS]
    free = iter([i for i in range(len(palette)) if i not in taken])
    return [palette[_ALGORITHMS.index(name) if name in _ALGORITHMS else next(free, 0)] for name in names]


def shade(color: str, amount: float) -> str:
    """`color` mixed with white (`amount` in 0..1) or black (-1..0)."""
    end = np.ones(3) if amount > 0 else np.zeros(3)
    red, green, blue = (1 - abs(amount)) * np.array(to_rgb(color)) + abs(amount) * end
    return to_hex((red, green, blue))


def tint(color: str, amount: float = 0.0) -> str:
    """A light `color` to fill areas under lines, lighter still by `amount`; pale colours are hardly lightened."""
    return shade(shade(color, 0.05 + 0.65 * (1 - _luma(color))), amount)


def deep(color: str) -> str:
    """A dark `color` for lines on its own tint."""
    return shade(color, -0.55 * _luma(color))


def ink_on(color: str) -> str:
    """Black or white, whichever reads better on `color`."""
    return "white" if _luma(color) < 0.55 else INK


def _luma(color: str) -> float:
    return float(np.array(to_rgb(color)) @ (0.299, 0.587, 0.114))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw` in our own look; the caller's rcParams are as before when it returns."""

    @wraps(draw)
    def within(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_LOOK):
            return draw(*args, **kwargs)

    return within


class ShownFigure(Figure):
    """A figure that a notebook shows as a picture, without pyplot or a magic command."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The PNG of `save`, at most 900 pixels wide on the page, so that it is sharp on fine screens too."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI)
        width, height = self.get_size_inches()
        scale = min(96.0, _MOST_PIXELS / width)
        size = {"width": round(scale * width), "height": round(scale * height)}
        return file.getvalue(), {**size, "alt": str(self.get_label())}


def new_figure(width: float, height: float, alt: str) -> Figure:
    """An empty figure of so many inches (14 at the most), described by the sentence `alt`."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = ShownFigure(figsize=(min(width, MOST_INCHES), min(height, MOST_INCHES)), layout=layout)
    figure.set_label(alt)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG of 150 dots per inch, at most 2100 x 2100, with the figure's label as its description.

    Folders on the way are made. Returns the path.
    """
    path = local_path("path", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = figure.get_size_inches()
    if max(width, height) > MOST_INCHES:
        figure.set_size_inches(min(width, MOST_INCHES), min(height, MOST_INCHES))
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "rmdp-jax", "Description": str(figure.get_label())})
    return path


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG, its letters as lines so that it looks alike everywhere; the same bytes for the same figure."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "rmdp-jax", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", dpi=DPI, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()


def count_transitions(value: float, _: int = 0) -> str:
    """`100000` as 100k, `1500000` as 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def transitions_axis(axes: Axes, transitions: np.ndarray) -> None:
    """Label the x axis as transitions per policy, from 0 to the last of `transitions` (L,)."""
    axes.set_xlabel("transitions per policy")
    axes.xaxis.set_major_formatter(FuncFormatter(count_transitions))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(0, max(transitions.max(initial=0.0), 1.0))


def agents_word(number: int) -> str:
    """`1 agent`, `5 agents`, `1,000,000 agents`."""
    return f"{number} agent" if number == 1 else f"{number} agents" if number < 10_000 else f"{number:,} agents"


def count_agents(number: float, place: float = 0) -> str:
    """A number of agents on an axis: `100`, `250,000`."""
    del place
    return f"{number:,.0f}" if number >= 10_000 else f"{number:g}"
