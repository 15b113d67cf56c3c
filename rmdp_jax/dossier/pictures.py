"""Pictures of a dossier as they stand in its page: SVG and WebP as data URIs, so that nothing is fetched."""

import base64
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from rmdp_jax import plots
from rmdp_jax.dossier.behaviour import unit_of
from rmdp_jax.dossier.people import Served, serve
from rmdp_jax.dossier.scores import Scores
from rmdp_jax.envs.pictures import policy_pictures
from rmdp_jax.envs.rendering import animate_run, has_body
from rmdp_jax.records.agents_csv import columns_of
from rmdp_jax.records.loading import Run
from rmdp_jax.records.pictures import general_pictures, task_pictures

SECONDS, FRAMES_PER_S = 4.0, 12.5  # of an animation
MOST_OUTCOMES = 3  # pictures of a policy of a task that does not draw itself


class Picture(NamedTuple):
    """One picture, whole."""

    source: str  # a data URI
    alt: str  # for readers who cannot see it
    title: str = ""
    inches: float = 4.3  # how wide it is drawn
    moves: bool = False


class Pictures(NamedTuple):
    """All pictures of a dossier."""

    overview: list[Picture]
    policies: list[list[Picture]]  # k
    missing: str | None  # why there are no animations


def draw(run: Run, dossier: dict[str, Any], scores: Scores, *, animations: bool) -> Pictures:
    """Pictures of a run of which `dossier` is the dossier, of the budget as a whole and of each policy.

    With `animations` a small movie of each body too, where MuJoCo finds an OpenGL to draw with.
    """
    served, walks = serve(run, scores), policy_pictures(run)
    films, missing = animate_run(run, SECONDS, FRAMES_PER_S) if animations and has_body(run) else ([], None)
    policies = []
    for j, policy in enumerate(dossier["policies"]):
        pictures = [_picture(figure) for figure in _of_policy(run, policy, scores, served)]
        if walks is None:
            pictures += [_picture(figure) for figure in _outcomes(run, scores, j)]
        else:
            pictures.append(_picture(walks[j], "One episode by the most likely actions"))
        policies.append(pictures + [_film(film, j) for film in films[j : j + 1]])
    overview = [_picture(figure) for figure in {**general_pictures(run), **task_pictures(run)}.values()]
    return Pictures(overview, policies, missing)


def _film(content: bytes, j: int) -> Picture:
    title = f"The first {SECONDS:g} s of an episode, by the most likely actions"
    return Picture(_uri("image/webp", content), f"Policy {j} moves: {title}, in real time, over and over.", title, moves=True)


def _of_policy(run: Run, policy: dict[str, Any], scores: Scores, served: Served) -> list[Figure]:
    """Whom it serves how well, and its single episodes; nothing of a policy that serves nobody."""
    own = run.assignment == policy["policy"]
    if not own.any():
        return []
    color = plots.policy_colors(run.config.k)[policy["policy"]]
    width = None if served.width is None else served.width[own]
    second = None if served.margin is None else (served.expected - served.margin)[own]
    figures = [plots.served_agents(served.expected[own], color, width, second)]
    if scores.single is not None:
        every = policy["returns"]["single_episodes"]
        figures.append(plots.episode_returns(scores.single[own].ravel(), color, every["mean"], every["worst_tenth"]))
    return figures


def _outcomes(run: Run, scores: Scores, j: int) -> list[Figure]:
    """The first few numbers that the env reports of a step, over an episode."""
    if scores.kept is None:
        return []
    episodes, color = scores.kept.episodes, plots.policy_colors(run.config.k)[j]
    alive = np.asarray(episodes.alive[j]) & ~np.asarray(episodes.diverged[j])
    figures: list[Figure] = []
    for at, leaf in jax.tree_util.tree_leaves_with_path(episodes.outcome):
        if leaf.ndim == 3 and len(figures) < MOST_OUTCOMES and alive.any():
            name = jax.tree_util.keystr(at, simple=True, separator=".") or "outcome"
            unit = unit_of(name, run.env.spec)
            wishes = _wishes(run, j) if unit else None
            figures.append(plots.outcome_over_steps(leaf[j], alive, color, name, unit, wishes))
    return figures


def _wishes(run: Run, j: int) -> np.ndarray:
    """The speeds that a policy's agents want, (m,)."""
    (_, targets), *_ = columns_of(run.population)
    return targets[run.assignment == j]


def _picture(figure: Figure, title: str = "") -> Picture:
    source = _uri("image/svg+xml", plots.to_svg(figure))
    return Picture(source, str(figure.get_label()), title, float(figure.get_size_inches()[0]))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
