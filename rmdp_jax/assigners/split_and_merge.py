"""`split_and_merge`: hard EM that takes the policy which is missed least to where agents are served worst.

Ueda, Nakano, Ghahramani & Hinton (2000) leave local optima of EM so: two groups become one, and one becomes two. Which group is
split goes by utilities alone, and nothing says beforehand what the split will bring; `em` looks at the segments seen instead.
"""

from typing import NamedTuple

import jax.numpy as jnp

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, check_sizes, no_copies
from rmdp_jax.assigners.fixed import fixed, round_robin
from rmdp_jax.assigners.plain_em import best_policies
from rmdp_jax.errors import MOST_ITERATIONS, share_of_run, whole_number
from rmdp_jax.types import Array, Key


class Split(NamedTuple):
    """Who is with whom, and for how long."""

    labels: Array  # (n,) int32
    hold_until: Array  # () int32 iteration before which nobody moves, so that a copy can learn its place


class SplitMerge(NamedTuple):
    """One policy's agents go to others, and it goes on as a copy of a third."""

    worthwhile: Array  # () bool, there is more to gain from the split than the merge costs
    labels: Array  # (n,) int32
    sources: Array  # (k,) int32


def split_and_merge(k: int, n: int, *, warmup: int = 50, every: int = 40, until: float = 0.6) -> Assigner:
    """Hard EM from round robin with a split and a merge now and then; after a move nobody changes policy for half of `every`.

    Args:
        k, n: policies and agents.
        warmup: M-steps before agents move.
        every: iterations between two moves, the first this long after warm-up.
        until: share of the run after which there is none.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    warmup, every = whole_number("warmup", warmup, 0, MOST_ITERATIONS), whole_number("every", every, 1, MOST_ITERATIONS)
    until = share_of_run("until", until)
    plain = fixed(k, n, round_robin)

    def reassign(key: Key, before: Split, inputs: EStepInput) -> tuple[Split, Copies]:
        del key
        now = inputs.iteration + 1
        free = (now >= warmup) & (now >= before.hold_until)
        labels = jnp.where(free, best_policies(inputs.utility, before.labels), before.labels)
        passed = now - warmup
        due = (passed > 0) & (passed % every == 0) & (inputs.progress <= until)
        move = propose_split_and_merge(inputs.utility, labels)
        moves = due & move.worthwhile
        hold_until = jnp.where(moves, now + every // 2, before.hold_until)
        sources = jnp.where(moves, move.sources, no_copies(k).sources)
        return Split(jnp.where(moves, move.labels, labels), hold_until), Copies(sources)

    return plain._replace(
        name="split_and_merge",
        options={"warmup": warmup, "every": every, "until": until},
        init=lambda key: Split(plain.init(key), jnp.int32(0)),
        weights=lambda split: plain.weights(split.labels),
        reassign=reassign,
    )


def propose_split_and_merge(utility: Array, labels: Array) -> SplitMerge:
    """What goes where, by what agents get now.

    The merge takes the policy without which the total falls least when its agents go to their next best. The split takes the
    group that falls short most: the sum over its agents of what the best served agent of all gets more. The half of it that is
    served worse goes with the copy. The shortfall is the most that a split could bring, so a merge that costs more is no move.

    Args:
        utility: (k, n) float32.
        labels: (n,) int32.
    """
    k, n = utility.shape
    index, agents = jnp.arange(k, dtype=jnp.int32), jnp.arange(n)
    member = labels[None] == index[:, None]
    own, others = utility[labels, agents], jnp.where(member, -jnp.inf, utility)
    costs = jnp.where(member, (own - others.max(0))[None], 0.0).sum(1)
    merged = costs.argmin().astype(jnp.int32)
    size = member.sum(1)
    shortfall = jnp.where(member, (own.max() - own)[None], 0.0).sum(1)
    shortfall = jnp.where((size >= 2) & (index != merged), shortfall, -jnp.inf)
    split = shortfall.argmax().astype(jnp.int32)
    rank = jnp.where(member[split], own, jnp.inf).argsort().argsort()  # 0 for the agent of the group who gets least
    merged_labels = jnp.where(labels == merged, others.argmax(0).astype(jnp.int32), labels)
    return SplitMerge(
        worthwhile=costs[merged] < shortfall[split],
        labels=jnp.where(rank < size[split] // 2, merged, merged_labels),
        sources=index.at[merged].set(split),
    )
