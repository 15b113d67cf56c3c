"""What an assigner is: the rule by which agents are assigned to policies. Every algorithm is the same trainer with another one.

Members are what can be copied (as in population-based training): members 0..k-1 are the k policies, members k..k+archive_size-1
the archive of earlier policies, where an assigner asks the trainer for one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.config import LARGEST_N
from rmdp_jax.errors import whole_number
from rmdp_jax.limits import Loads
from rmdp_jax.types import Array, Key, PyTree

LARGEST_BEHAVIOURS = 10**5  # environments, or archived policies, whose segments are looked at


@jax.tree_util.register_static
@dataclass(frozen=True)
class Given:
    """How many policies a run was given: the first of its k, from other runs. The rest begin as ever."""

    frozen: int = 0
    """The first so many stay as they are: they act and are measured, agents may choose them, but they never learn."""
    number: int = 0
    """The first so many, the frozen ones included, are those of other runs."""


NOTHING_GIVEN = Given()


class EStepInput(NamedTuple):
    """What an E-step may look at."""

    utility: Array  # (k, n) running estimates of returns
    iteration: Array  # () int32, index of the iteration just done, from 0
    progress: Array | float = 0.0  # () share of the run's iterations that are done
    segments: Array | None = None  # (k, B, m) segment returns of the policies; see `rmdp_jax.learning.segments`
    archived: Array | None = None  # (archive_size, n) running estimates of the archive, as they were when it was filled
    # (k + archive_size, n) running returns of the policies and the archive as agents have them, where all of these are not that
    # but what returns are worth to welfare
    returns: Array | None = None
    can_restore: bool = True  # archived policies can be copied back; not so where all policies share one trunk
    can_explore: bool = True  # all policies can learn as one (`Assigner.together`); see `Sizes.explore`
    given: Given = NOTHING_GIVEN  # what the run was given; static
    limits: Loads | None = None  # how many agents, or how much weight, each policy may serve, where that is limited; static


def returns_of(inputs: EStepInput) -> Array:
    """Running returns (k, n) of the policies as agents have them, whatever these are worth to welfare."""
    return inputs.utility if inputs.returns is None else inputs.returns[: inputs.utility.shape[0]]


class Copies(NamedTuple):
    """Which member each policy, and each slot of the archive, is a copy of from now on (PBT: exploit)."""

    sources: Array  # (k,) int32, of the policies; j for a policy j that goes on as it is, as frozen ones do whatever it says
    archive_sources: Array | None = None  # (archive_size,) int32, of the archive; None without one


class Together(NamedTuple):
    """Whether all policies are still one, which learns in the environments of all, and for whom it learns."""

    now: Array  # () bool
    weights: Array  # (n,) float32 from 0 up, of the agents in its reward


class Assigner(NamedTuple):
    """An assignment rule as pure functions over its own state, a pytree called `assignment`."""

    name: str
    k: int
    n: int
    needs_per_agent_critic: bool  # `descend` does something, which takes critic="per_agent"
    pretraining: int  # environment steps that were spent on making it
    init: Callable[[Key], PyTree]
    weights: Callable[[PyTree], Array]  # assignment -> (k, n) float32, columns sum to 1
    descend: Callable[[Array, PyTree], PyTree]  # gradient (k, n) of the PPO losses in the weights, assignment -> assignment
    reassign: Callable[[Key, PyTree, EStepInput], tuple[PyTree, Copies]]  # the E-step
    segment_environments: int = 0  # environments of each policy (B) whose segment returns `reassign` looks at
    sampled_agents: np.ndarray | None = None  # (m,) agents whose segment returns it looks at; all n where not given
    archive_size: int = 0  # earlier policies that the trainer keeps for it where it can; `Copies.archive_sources` fills it
    # assignment, inputs -> labels (n,), sources (k,) as in `Copies`: the policies to evaluate if the run is stopped here; the
    # present ones where not given
    conclude: Callable[[PyTree, EStepInput], tuple[Array, Array]] | None = None
    # assignment -> whether all policies that were not given are still one, at first the first of them; never where this
    # function is not given, nor without `Sizes.explores`
    together: Callable[[PyTree], Together] | None = None
    # runs may be given policies: agents choose among all k, `reassign` heeds `EStepInput.given`, and no frozen one needs agents
    takes_given: bool = False
    takes_limits: bool = False  # labels hold `EStepInput.limits` after every hard `reassign`
    options: Mapping[str, Any] = MappingProxyType({})  # arguments that made it, for config.json and result.json


def harden(weights: Array) -> Array:
    """The policy with the largest weight for each agent, (k, n) -> labels (n,) int32."""
    return weights.argmax(0).astype(jnp.int32)


def no_copies(k: int) -> Copies:
    """Every policy goes on as it is, and nothing is archived."""
    return Copies(jnp.arange(k, dtype=jnp.int32))


def check_sizes(k: int, n: int) -> tuple[int, int]:
    """k and n as ints, or `ConfigError` unless every policy can have an agent."""
    n = whole_number("n", n, 1, LARGEST_N)
    return whole_number("k", k, 1, n, f"from 1 to n = {n}, one policy per agent at most"), n
