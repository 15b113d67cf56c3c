"""The rival `cover`: k agents whose neighbourhoods in parameter space cover as many agents as possible, a policy for each."""

import numpy as np

from rmdp_jax.assigners.base import Assigner, check_sizes
from rmdp_jax.assigners.fixed import fixed
from rmdp_jax.context import unit_vectors
from rmdp_jax.env import Population
from rmdp_jax.errors import is_positive, real_number, whole_number

BLOCK = 8192  # agents whose distances to the centres are known at once


def cover(
    population: Population, k: int, *, radius: float | None = None, share: float = 0.9, agents_exact: int = 4096
) -> Assigner:
    """Groups by greedy coverage of the agents' parameters, fixed from the start; no training is spent on them.

    Agents are vectors x_i, each parameter scaled to 0..1 by its range over the agents, at distance
    d(i, j) = max_c |x_ic - x_jc|. Centres are agents: k times the one whose ball of `radius` covers most agents that are not
    covered yet (the first of several; where all are covered, the one that is farthest from all centres). Greedy choice covers
    at least 1 - 1/e of what the best k balls do (Nemhauser, Wolsey & Fisher, 1978). Every agent goes to its nearest centre,
    which for the covered ones is within `radius`. Whole numbers are taken for amounts: cells 3 and 4 of a grid are near.

    After PACMAN (Ge, Lanier, Sarkar, Guresti, Zhang & Vorobeychik, "Learning Policy Committees for Effective Personalization
    in MDPs with Diverse Tasks", ICML 2025, PMLR 267:18966-18988, arXiv:2503.01885; github.com/CERL-WUSTL/PACMAN): a committee
    of K policies, so that with high probability a task is within epsilon of a member's. From its abstract and `clustering.py`
    are the balls, the maximum norm, and that tasks go to the nearest centre. Not theirs, or not known to be: centres are
    agents instead of any point, the scaling, and the radius by share of agents covered. Their second algorithm, which moves
    centres by gradient, is left out, as is training a member on its covered tasks only.

    Args:
        population: whose agents hold numbers; nothing else of it is looked at.
        k: groups.
        radius: of the balls, as a share of the parameters' ranges. Where not given: a radius at which the greedy k balls
            cover `share` of the agents and at the next smaller distance between two agents do not, by bisection.
        share: of the agents that have to be covered, above 0, at most 1.
        agents_exact: of more agents, as many drawn by a fixed seed are candidates and have to be covered (memory of the
            square of it); all go to the nearest centre.

    Raises:
        ConfigError: an argument breaks its rule, or the agents' parameters are no finite numbers.
    """
    k, n = check_sizes(k, population.n)
    rule = "a positive share of the parameters' ranges, or None for one that covers `share` of the agents"
    radius = None if radius is None else real_number("radius", radius, is_positive, rule)
    share = real_number("share", share, lambda x: 0.0 < x <= 1.0, "a share of the agents, above 0, at most 1")
    exact = max(k, whole_number("agents_exact", agents_exact))
    vectors = unit_vectors(population.agents)
    some = np.arange(n) if n <= exact else np.sort(np.random.RandomState(0).permutation(n)[:exact])
    distance = _distances(vectors[some], vectors[some])
    centres = cover_greedily(distance, k, smallest_radius(distance, k, share) if radius is None else radius)
    options = {"radius": radius, "share": share}
    return fixed(k, n, _nearest(vectors, some[centres]))._replace(name="cover", options=options)


def cover_greedily(distance: np.ndarray, k: int, radius: float) -> np.ndarray:
    """k different centres (k,) among points at `distance` (n, n), each the best addition to those before."""
    near = (distance <= radius).astype(np.float32)
    uncovered = np.ones(len(distance), np.float32)
    centres: list[int] = []
    for _ in range(k):
        gain = near @ uncovered
        worth = gain if gain.max() > 0 else distance[:, centres].min(1)
        worth[centres] = -1.0
        centres.append(int(worth.argmax()))
        uncovered *= 1.0 - near[centres[-1]]
    return np.array(centres)


def smallest_radius(distance: np.ndarray, k: int, share: float) -> float:
    """A distance between two points at which greedy k balls cover `share` of them, the next smaller one being too small.

    More than one may be: greedy balls need not cover more when they grow. At the largest distance one ball covers all.
    """
    radii = np.unique(distance)
    low, high = -1, len(radii) - 1  # radii[high] covers enough, radii[low] does not
    while high - low > 1:
        middle = (low + high) // 2
        centres = cover_greedily(distance, k, radii[middle])
        enough = (distance[:, centres].min(1) <= radii[middle]).sum() >= share * len(distance)
        low, high = (low, middle) if enough else (middle, high)
    return float(radii[high])


def _distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The largest difference in any parameter, (n, m), of vectors (n, d) to others (m, d)."""
    from scipy.spatial.distance import cdist  # it takes half a second to import

    return cdist(vectors, others, "chebyshev")


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of every agent, labels (n,) int32: the first of several, but a centre serves itself."""
    blocks = np.array_split(vectors, -(-len(vectors) // BLOCK))
    labels = np.concatenate([_distances(block, vectors[centres]).argmin(1) for block in blocks]).astype(np.int32)
    labels[centres] = np.arange(len(centres))
    return labels
