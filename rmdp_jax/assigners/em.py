"""`em`: EM that leaves local optima. It explores as one policy, splits into k, softly at first, relocates and restarts.

Plain EM is K-means. It ends in local optima, and a policy that never visits what its agents reward has no gradient towards it.

- **Explore**: at first all policies are one, which learns in the environments of all k, for everybody, and most for those who
  were paid least so far (`exploration.py`). What all need is learned once; the archive keeps what it was on its way.
- **Split**: the k policies become copies of those members of the archive that together serve the agents best, by facility
  location over the segments that they showed (`facility_location.py`).
- **Soften**: they differ by then, but what all need is seldom learned. So at first all serve every agent, the more the better
  they serve it: weights are a softmax of utilities whose temperature falls (`annealing.py`; Rose, 1998). Cold, it is
  the hard E-step of `plain_em.py`: agents belong to their best policy.
- **Relocate**: where welfare rises by less than 2% in `relocate_every` iterations, the k best behaviours are
  chosen by facility location among the segments that the k policies and the archive showed. A behaviour is taken over by a
  copy of the member that showed it, which can go there because it was there (`relocation.py`).
- **Restart**: where welfare has stopped rising and there is time, training begins again from the first policies
  (`restarts.py`), and explores again. The archive holds members of every start. A new start knows the best policies of the one
  before: if it has shown nothing better when it first relocates, it goes on from them, with what it found as further
  behaviours to choose from (iterated local search; independent restarts end lower).
- **Go back**: where a run would end with less than it had, the best k policies so far take their places (`best_so_far.py`).

Policies that a run was given (`Given`) do not explore: the others are one, most for those whom the given ones serve least, and
agents choose from the first iteration on. Frozen ones keep their places; facility location chooses the rest beside them.

Where policies have limits (`EStepInput.limits`) every hard E-step holds them, and so do the groups of a relocation; behaviours
are chosen and compared without them, and weights of all agents for all policies, while a start explores or cools, know none.

Only rewards of observed steps enter.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.annealing import Lengths, Phase, phase_of, uniform, weigh
from rmdp_jax.assigners.base import LARGEST_BEHAVIOURS, Assigner, Copies, EStepInput, Together, check_sizes
from rmdp_jax.assigners.best_so_far import go_back, had_more, is_time_to_go_back, keep_better, nothing_kept
from rmdp_jax.assigners.exploration import Exploration, begin_exploration, weigh_by_need
from rmdp_jax.assigners.facility_location import choose_facilities, keep_diverse
from rmdp_jax.assigners.fixed import fixed, shuffled_even
from rmdp_jax.assigners.plain_em import best_policies, plain_em
from rmdp_jax.assigners.relocation import Relocation, extend_to_all, order_by_policy, propose_relocation
from rmdp_jax.assigners.restarts import Decision, Start, check_stopping_rule, first_start, next_start, reset_best
from rmdp_jax.assigners.sampled_agents import SampledAgents
from rmdp_jax.errors import MOST_ITERATIONS, share_of_run, whole_number
from rmdp_jax.learning.segments import NO_RETURN, scored_agents
from rmdp_jax.types import Array, Key


class EMOptions(NamedTuple):
    """Arguments of `em`, under the same names."""

    explore: int
    anneal: int
    relocate_every: int
    relocate_until: float
    starts: int
    segment_environments: int
    archive_size: int
    archive_every: int


class EMState(NamedTuple):
    """The assignment, and the segments that archived members showed.

    The archive has `archive_size` members that are unlike each other, and the k that were best when the last start ended; the
    trainer's archive has the k policies too that new starts begin with, and the best k so far, without segments.
    """

    labels: Array  # (n,) int32
    weights: Array  # (k, n) float32, one-hot of the labels except while a start explores or is annealed
    exploration: Exploration
    returns: Array  # (archive_size + k, B, m) segment returns of archived members
    archived_at: Array  # (archive_size + k,) float32 iteration in which a member was archived, -inf of an empty slot
    hold_until: Array  # () int32 iteration before which no agent moves, so that relocated policies can learn
    start: Start
    kept: Array  # () welfare of the best k policies so far, by running estimates


def em(
    k: int,
    n: int,
    *,
    explore: int = 30,
    anneal: int = 70,
    relocate_every: int = 20,
    relocate_until: float = 0.8,
    starts: int = 8,
    segment_environments: int = 32,
    archive_size: int | None = None,
    archive_every: int = 5,
) -> Assigner:
    """EM that explores, splits, relocates and restarts; `plain_em` does none of that.

    At first all policies are one, which learns for everybody and is archived in every iteration. When agents are paid no
    better by it any more, or after `explore` iterations, the k policies become the members of the archive that serve the
    agents best. Weights of all agents for all policies then cool down from soft to hard in `anneal` iterations: from then
    on agents belong to their best policy. After `relocate_every` iterations in which welfare rose by less than 2%, policies
    are relocated if segments promise more than the present policies' own; no agent moves for as long again. When that does
    not help, the best policies so far are archived and training restarts if there is time, and explores again. The last
    start goes on with the best of all. After `relocate_until` and at its end a run that is 10% worse than it was goes back
    to the policies of then. With k = 1 or k = n there is nothing to choose. Policies that share a trunk cannot be copied
    back from the archive: they learn together anyway, have one start, which is annealed, and relocate among themselves.

    Args:
        k, n: policies and agents.
        explore: iterations that are explored at most; 0 to begin with annealing instead.
        anneal: iterations of annealing. Both are at most a fifth of the run, so that a short run has time left to learn.
        relocate_every: iterations between two relocations at least, in which welfare rose by less than 2%.
        relocate_until: share of the run after which there is none, so that the last copies can learn.
        starts: how many at most; 1 for a run without restarts.
        segment_environments: environments of each policy whose segments are looked at (B); see `rmdp_jax.learning.segments`.
        archive_size: earlier policies that are kept, the most diverse; 8 for each policy but at most 64 when not given.
        archive_every: iterations between two additions of all policies to the archive.

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    archive_size = min(8 * k, 64) if archive_size is None else archive_size
    options = _checked(
        EMOptions(
            *(explore, anneal, relocate_every, relocate_until),
            *(starts, segment_environments, archive_size, archive_every),
        )
    )
    segment_environments, archive_size = options.segment_environments, options.archive_size
    if k in (1, n):  # nothing to choose
        return plain_em(k, n)._replace(name="em")
    with_segments, indices = archive_size + k, scored_agents(n)
    sample = None if indices is None else SampledAgents(indices, n)
    explores = options.explore > 0

    def init(key: Key) -> EMState:
        m = n if indices is None else len(indices)
        nothing = (
            jnp.zeros((with_segments, segment_environments, m), jnp.float32),
            jnp.full(with_segments, -jnp.inf, jnp.float32),
        )
        labels, exploration = shuffled_even(key, k, n), begin_exploration(n, explores)
        return EMState(labels, uniform(k, n), exploration, *nothing, jnp.int32(0), first_start(), nothing_kept())

    return fixed(k, n, shuffled_even)._replace(
        name="em",
        segment_environments=segment_environments,
        sampled_agents=indices,
        archive_size=with_segments + 2 * k,  # and those that restarts begin with, and the best so far
        together=_together if explores else None,
        takes_given=True,
        takes_limits=True,
        options=options._asdict(),
        init=init,
        weights=lambda state: state.weights,
        descend=lambda gradient, state: state,
        reassign=lambda key, state, inputs: _reassign(options, sample, state, inputs),
        conclude=lambda state, inputs: _conclude(sample, state, inputs),
    )


def _checked(options: EMOptions) -> EMOptions:
    """The options as Python's own numbers."""
    names = ("explore", "anneal", "relocate_every", "starts", "segment_environments", "archive_size", "archive_every")
    most = {"segment_environments": LARGEST_BEHAVIOURS, "archive_size": LARGEST_BEHAVIOURS}
    counts: dict[str, Any] = {
        name: whole_number(name, getattr(options, name), int(name != "explore"), most.get(name, MOST_ITERATIONS))
        for name in names
    }
    return options._replace(**counts, relocate_until=share_of_run("relocate_until", options.relocate_until))


def _together(state: EMState) -> Together:
    return Together(state.exploration.under_way, weigh_by_need(state.exploration.best))


def _reassign(options: EMOptions, sample: SampledAgents | None, before: EMState, inputs: EStepInput) -> tuple[EMState, Copies]:
    """The E-step, a split or a relocation where one is due, a restart where there is time for one, and the way back."""
    (k, n), now = inputs.utility.shape, inputs.iteration + 1
    iterations = jnp.round(now.astype(jnp.float32) / inputs.progress)  # rounded, or float32 error moves what derives from it
    lengths = Lengths(options.explore, options.anneal, options.relocate_every)
    phase = phase_of(lengths, before.exploration, now - before.start.began_at, inputs, iterations)
    labels = _choose_best(phase, before, inputs)
    welfare = inputs.utility[labels, jnp.arange(n)].mean()
    start, decision = check_stopping_rule(
        before.start,
        welfare,
        now,
        iterations,
        settled=phase.may_end,
        max_starts=jnp.where(inputs.can_restore, options.starts, 1),
        until=options.relocate_until,
    )
    since, rounds = _how_to_choose(options, phase, start, decision, inputs)
    relocation, returns, archived_at = _propose(sample, before, inputs, labels, since, rounds)
    index = jnp.arange(k, dtype=jnp.int32)
    labels = jnp.where(relocation.accepted, relocation.labels, labels)
    sources = jnp.where(relocation.accepted, relocation.sources, index)
    held = jnp.where(relocation.accepted, now + options.relocate_every, before.hold_until)
    adding = phase.were_one | (now % options.archive_every == 0)
    archive = _archive(options, adding, returns, _ages(phase, archived_at, inputs), sources, decision.stop)
    ends_here = decision.stop & (jnp.arange(archive.size) >= options.archive_size)  # the next start meets them all
    first = k + archive.shape[0] + index  # members that restarts begin with, and behind them the best so far
    kept, better = keep_better(before.kept, welfare, adding & (phase.hard_for >= 0))
    best = jnp.where(better, index, first + k)
    goes = had_more(before.kept, welfare) & is_time_to_go_back(now, iterations, options.relocate_until)
    labels, sources = go_back(goes & (phase.hard_for >= 0) & ~relocation.accepted, labels, sources, inputs)
    explores = options.explore > 0 and inputs.can_explore
    after = EMState(
        labels=labels,
        weights=jnp.where(decision.restart, uniform(k, n), weigh(phase, labels, inputs)),
        exploration=jax.tree.map(partial(jnp.where, decision.restart), begin_exploration(n, explores), phase.exploration),
        returns=returns[archive],
        archived_at=jnp.where(ends_here, now.astype(jnp.float32), archived_at[archive]),
        hold_until=jnp.where(decision.restart, now, held),
        start=next_start(reset_best(start, relocation.accepted), decision, now),
        kept=kept,
    )
    return after, Copies(jnp.where(decision.restart, first, sources), jnp.concatenate([archive, first, best]))


def _choose_best(phase: Phase, before: EMState, inputs: EStepInput) -> Array:
    """Labels (n,) of the best policies; as before while there is one policy, or those that were relocated learn."""
    moves = (~phase.exploration.under_way | (inputs.given.number > 0)) & (inputs.iteration + 1 >= before.hold_until)
    best = best_policies(inputs.utility, before.labels, inputs.given.frozen, inputs.limits)
    return jnp.where(moves, best, before.labels)


def _how_to_choose(
    options: EMOptions, phase: Phase, start: Start, decision: Decision, inputs: EStepInput
) -> tuple[Array, Array]:
    """Since which iteration () members may be chosen from, and by how many swaps (): none where no choice is due."""
    k = inputs.utility.shape[0]
    due = (phase.hard_for >= 0) & (phase.hard_for % options.relocate_every == 0) & (inputs.progress <= options.relocate_until)
    slow = inputs.iteration + 1 - start.learned_at >= options.relocate_every
    due = due & (slow | (phase.hard_for == 0))  # who learns fast is left alone, once groups have formed
    since = jnp.where(decision.stop | (start.number == 0), 0, start.began_at + jnp.where(phase.splits, 1, 0))
    return since, jnp.where(due | phase.splits | decision.stop, 2 * k, 0)


def _conclude(sample: SampledAgents | None, state: EMState, inputs: EStepInput) -> tuple[Array, Array]:
    """Labels and sources of the present policies and archived members that serve agents best by running utilities; where no
    start is under way, of the present policies, or of the best so far."""
    (k, n), size = inputs.utility.shape, state.archived_at.shape[0]
    under_way, stay = state.start.number > 0, jnp.arange(k, dtype=jnp.int32)
    archived = jnp.zeros((size, n)) if inputs.archived is None else inputs.archived[:size]
    table = jnp.concatenate([inputs.utility, archived])
    allowed = jnp.concatenate([jnp.ones(k, bool), jnp.isfinite(state.archived_at) & inputs.can_restore])
    of_sampled = table if sample is None else table[:, sample.indices]
    frozen = inputs.given.frozen
    chosen = choose_facilities(of_sampled, allowed, stay, jnp.where(under_way, 2 * k, 0), frozen)
    chosen = chosen[order_by_policy(chosen, k)]
    labels = best_policies(table[chosen], state.labels, frozen, inputs.limits)
    labels, sources = jnp.where(under_way, labels, state.labels), jnp.where(under_way, chosen, stay)
    return go_back(had_more(state.kept, table[sources][labels, jnp.arange(n)].mean()), labels, sources, inputs)


def _propose(
    sample: SampledAgents | None, before: EMState, inputs: EStepInput, labels: Array, since: Array, rounds: Array
) -> tuple[Relocation, Array, Array]:
    """A relocation among present policies and members archived `since`; and all members' returns and age."""
    assert inputs.segments is not None  # the trainer gives what `Assigner.segment_environments` asks for
    k, now = inputs.utility.shape[0], (inputs.iteration + 1).astype(jnp.float32)
    returns = jnp.concatenate([inputs.segments, before.returns])
    archived_at = jnp.concatenate([jnp.full(k, now), before.archived_at])
    since = jnp.where(inputs.can_restore, since, inputs.iteration + 1)  # else only the present policies
    allowed = jnp.where(archived_at >= since.astype(jnp.float32), archived_at, -jnp.inf)
    own_labels = labels if sample is None else labels[sample.indices]
    limits = inputs.limits if sample is None else None  # they are of all agents
    relocation = propose_relocation(k, returns, allowed, own_labels, rounds, inputs.given.frozen, limits)
    return relocation if sample is None else extend_to_all(sample, relocation, labels, inputs), returns, archived_at


def _ages(phase: Phase, archived_at: Array, inputs: EStepInput) -> Array:
    """Iterations in which members were archived, -inf of those that are not to be."""
    given, member = inputs.given, jnp.arange(archived_at.size)
    explores = (member > given.number) & (member < inputs.utility.shape[0])
    same = phase.were_one & explores  # all that explore are one, which is archived once
    return jnp.where(same | (member < given.frozen), -jnp.inf, archived_at)  # frozen ones are there anyway


def _archive(options: EMOptions, adding: Array, returns: Array, archived_at: Array, best: Array, stop: Array) -> Array:
    """Which members (archive_size + k,) are the archive from now on; `best` (k,) are kept when a start is over."""
    k, size = best.shape[0], options.archive_size
    mean = jnp.where(returns[: k + size] > NO_RETURN, returns[: k + size], 0.0).mean(1)
    diverse = keep_diverse(mean, archived_at[: k + size], size, jnp.where(adding, k, 0))
    unchanged = jnp.arange(k, 2 * k + size, dtype=jnp.int32)
    return jnp.concatenate([jnp.where(adding, diverse, unchanged[:size]), jnp.where(stop, best, unchanged[size:])])
