"""What the tests of pictures draw, and what they read in them."""

import numpy as np

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
