"""Pictures of a run: pure functions from numpy data to `matplotlib.figure.Figure`, and `save` and `to_svg`.

Nothing here touches pyplot or leaves a changed rcParams behind. A policy has the same colour in every picture
(`policy_colors`). Every figure carries a sentence for readers who cannot see it as its label (`Figure.get_label`).
"""

from rmdp_jax.plots.bars import Bar, welfare_by_k
from rmdp_jax.plots.budget import Curve, welfare_by_budget
from rmdp_jax.plots.curves import assignment_history, speed_history, welfare_curve, welfare_of_seeds, welfare_of_variants
from rmdp_jax.plots.grid import walks_on_grid
from rmdp_jax.plots.people import agent_distribution, utility_matrix
from rmdp_jax.plots.policy import episode_returns, outcome_over_steps, served_agents
from rmdp_jax.plots.style import policy_colors, save, to_svg
from rmdp_jax.plots.targets import target_histogram

__all__ = [
    "Bar",
    "Curve",
    "agent_distribution",
    "assignment_history",
    "episode_returns",
    "outcome_over_steps",
    "policy_colors",
    "save",
    "served_agents",
    "speed_history",
    "target_histogram",
    "to_svg",
    "utility_matrix",
    "walks_on_grid",
    "welfare_by_budget",
    "welfare_by_k",
    "welfare_curve",
    "welfare_of_seeds",
    "welfare_of_variants",
]
