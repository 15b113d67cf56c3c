"""Memory that a run will take, by arithmetic over shapes, before anything is compiled; and whether it is there.

Beside the state itself, whose shapes are known, an iteration makes two kinds of things, one after the other, so that the
larger takes the place of both. To learn: the transitions twice (as seen, and as learned from; observations only where they are
normalised), gradients, and activations of a minibatch or, where these are more, of the critic on all transitions. To assign:
the archive twice (with its new members, and what they promise) and three tables (k, n) of utilities and choices. Evaluation
comes when all that is gone but the state: its episodes run side by side, each with its own state, activations and the rewards
of a step for all agents, and what is kept of them.

For the compiled iteration on a CPU XLA reports (arguments, temporaries and results; `python -m benchmarks.memory`), and the
estimate without the process is

    Resource Gathering, default, k = 5,  em, n = 10^5              XLA  0.10 GiB    0.09 GiB
                        gpu,     k = 50, em, n = 10^5                   0.39        0.38
                                             n = 10^6                   2.88        2.88
                                             n = 10^5, E = 512          1.19        1.28
                                             n = 10^6, E = 512          2.98        2.88
    HalfCheetah,        gpu,     k = 50, em, n = 10^5                   0.36        0.37
                                             n = 10^6                   2.88        2.87
                                             n = 10^5, E = 512          1.22        1.15
                                             n = 10^6, E = 512          2.88        2.87

The share of the process is that of a run of HalfCheetah with em, n = 10^6, k = 2, which took 1.66 GB of resident memory.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, EnvSpec, starts_needed
from rmdp_jax.errors import ConfigError
from rmdp_jax.evaluation.episodes import bytes_per_episode, kept_episodes
from rmdp_jax.learning.scoring import LARGEST_SAMPLE
from rmdp_jax.trainer import TrainState
from rmdp_jax.types import PyTree

_FLOAT = 4  # bytes
_PROCESS = 5 * 2**28  # Python, JAX, a physics engine and the compiler, where they share the device's memory
# Where control groups are, and which file of one is its limit, by the name of their controller: of version 2, and of version 1.
_CGROUPS = {"": ("/sys/fs/cgroup", "memory.max"), "memory": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")}
_OWN_CGROUPS = "/proc/self/cgroup"


class Memory(NamedTuple):
    """Bytes that a program of one run or several will take."""

    networks: int = 0  # policies, their optimisers, gradients, and the activations of a minibatch
    agents: int = 0  # utilities, assignment, segment returns: what grows with n
    archive: int = 0  # earlier policies
    environments: int = 0  # their states, and the transitions of an iteration
    process: int = 0  # whatever is there anyway
    evaluation: int = 0  # what evaluation takes beyond all of these, most of which is gone by then

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


_ADVICE = {
    "networks": "take smaller hidden layers or fewer environments",
    "agents": "take a smaller n or k",
    "archive": "take a smaller n, a smaller archive_size of em, or plain_em",
    "environments": "take fewer environments or a smaller unroll",
    "process": "take another machine",
    "evaluation": "take fewer evaluation_episodes",
}


def estimate_memory(
    like: TrainState, spec: EnvSpec, agents: PyTree, config: TrainConfig, runs: int = 1, kept: int = 0
) -> Memory:
    """What training will take, in bytes.

    Args:
        like: shapes of one run's state, as `jax.eval_shape(trainer.init, key)` gives them.
        spec: of the env.
        agents: of one run's population.
        config: of the runs.
        runs: trained in one program.
        kept: bytes of the episodes that a run keeps; see `kept_bytes`.
    """
    sizes, k, n = config.sizes, config.k, config.n
    columns = n if sizes.critic == "per_agent" else 1
    scored = min(n, LARGEST_SAMPLE) if config.estimated else n
    per_transition = (1 if spec.discrete else spec.action_size) + 4 * columns + 3
    observed = (4 if sizes.normalize_observations else 2) * spec.observation_size  # as they are they serve the minibatches too
    rows = k * sizes.transitions // sizes.minibatches
    activations = max(rows * 6 * sum(sizes.hidden), k * sizes.transitions * 3 * max(sizes.hidden))
    state = Memory(
        networks=nbytes((like.learner, like.statistics)),
        agents=nbytes((agents, like.utilities, like.assignment, like.segments)),
        archive=nbytes(like.archive),
        environments=nbytes(like.episodes),
    )
    learning = Memory(
        networks=2 * nbytes(like.learner) + _FLOAT * activations,
        environments=(1 + starts_needed(spec, sizes.unroll)) * nbytes(like.episodes)
        + _FLOAT * k * (sizes.transitions * (2 * per_transition + observed) + sizes.environments * scored),
    )
    assigning = Memory(agents=3 * _FLOAT * k * n, archive=2 * nbytes(like.archive))
    larger = max(learning, assigning, key=lambda memory: memory.total)
    per_run = Memory(*(part + more for part, more in zip(state, larger, strict=True)))
    one_env = nbytes(like.episodes) // (k * sizes.environments)
    needed = nbytes(like) + estimate_evaluation(one_env, spec, config, config.evaluation_episodes, kept)
    per_run = per_run._replace(evaluation=max(0, needed - per_run.total))
    return Memory(*(runs * part for part in per_run))._replace(process=_process())


def estimate_evaluation(one_env: int, spec: EnvSpec, config: TrainConfig, episodes: int, kept: int = 0) -> int:
    """Bytes for `episodes` of each policy side by side, where the state of one env takes `one_env` bytes.

    What is `kept` of them is there twice: as it was stacked, step by step, and episode by episode.
    """
    floats = 2 * spec.observation_size + 2 * spec.action_size + 2 * max(config.sizes.hidden)
    if config.estimated:  # whole episodes are kept, and scored at some of their steps; see `rmdp_jax.evaluation.evaluate`
        one_env *= 2 + min(spec.episode_length, config.evaluation_steps)
    else:
        one_env, floats = 2 * one_env, floats + 2 * config.n
    return config.k * (episodes * (one_env + _FLOAT * floats) + 3 * _FLOAT * config.n) + 2 * kept


def kept_bytes(env: Env, config: TrainConfig, episodes: int) -> int:
    """Bytes of what is kept of so many episodes of each policy, at most `KEPT_BYTES`."""
    return kept_episodes(env, config, episodes) * bytes_per_episode(env, config)


def check_evaluation(env: Env, config: TrainConfig, episodes: int, available: int | None, keep: bool = False) -> None:
    """Raise `ConfigError` where there is not as much memory as an evaluation by itself takes, which may keep its episodes."""
    one_env = nbytes(jax.eval_shape(env.reset, jax.random.key(0)))
    kept = kept_bytes(env, config, episodes) if keep else 0
    needed = estimate_evaluation(one_env, env.spec, config, episodes, kept) + _process()
    if available is not None and needed > available:
        raise ConfigError(
            f"episodes = {episodes}: would take about {_gibibytes(needed)} of memory, must be at most the "
            f"{_gibibytes(available)} there are; take fewer episodes"
        )


def _process() -> int:
    return _PROCESS if jax.default_backend() == "cpu" else 0


def available_memory(mesh: Mesh | None = None) -> int | None:
    """Bytes that the device has, or all of `mesh`; this host (or its control group) where devices have none of their own."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) * (1 if mesh is None else mesh.size)
    names = getattr(os, "sysconf_names", {})
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if "SC_PHYS_PAGES" in names else []
    texts = [path.read_text().strip() for path in _control_groups() if path.is_file()]
    return min([*limits, *(int(text) for text in texts if text.isdigit())], default=None)


def _control_groups() -> Iterator[Path]:
    """Files with limits of memory that may hold this process: of its own control group, and of all that this one is in."""
    own = Path(_OWN_CGROUPS).read_text().splitlines() if os.path.exists(_OWN_CGROUPS) else []
    within = {controllers: path for _, controllers, path in (line.split(":", 2) for line in own)}
    for controller, (root, name) in _CGROUPS.items():
        group = PurePosixPath(within.get(controller, "/")).relative_to("/")
        yield from (Path(root, place, name) for place in (group, *group.parents))


def check_memory(memory: Memory, available: int | None, config: TrainConfig, runs: int = 1) -> str:
    """The estimate in words, of so many runs in one program.

    Raises:
        ConfigError: there is not as much; it names what takes most, and what to lower.
    """
    said = f"memory: about {_gibibytes(memory.total)}"
    if available is None:
        return said
    if memory.total > available:
        parts = memory._fields if memory.process > available else [name for name in memory._fields if name != "process"]
        part = max(parts, key=lambda name: getattr(memory, name))  # of what can be lowered
        together, fewer = (f"{runs} runs in one program, ", "train fewer seeds at once, or ") if runs > 1 else ("", "")
        raise ConfigError(
            f"{together}k = {config.k}, n = {config.n}, environments = {config.sizes.environments}, evaluation_episodes = "
            f"{config.evaluation_episodes}: would take about "
            f"{_gibibytes(memory.total)} of memory, must be at most the {_gibibytes(available)} there are; "
            f"{_gibibytes(getattr(memory, part))} of it are for the {part}: {fewer}{_ADVICE[part]}"
        )
    return f"{said} of {_gibibytes(available)}"


def nbytes(tree: PyTree) -> int:
    """Bytes of the leaves of a tree, of arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gibibytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
