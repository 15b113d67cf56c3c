"""`em`: hard EM that leaves local optima. It softens, relocates and restarts.

Plain EM is K-means. It ends in local optima, and a policy that never visits what its agents reward has no gradient towards it.

- **Soften** (deterministic annealing): at first all policies serve every agent; weights cool down to the hard E-step of
  `plain_em.py`.
- **Relocate**: now and then the k best behaviours are chosen by facility location (`facility_location.py`) among the segments
  that the k policies and an archive of earlier ones showed. A behaviour is taken over by a copy of the member that showed it,
  which can go there because it was there (`relocation.py`).
- **Restart**: where welfare has stopped rising and there is time, training begins again from the first policies
  (`restarts.py`). The archive holds members of every start. A new start knows the best policies of the one before: if it has
  shown nothing better when it first relocates, it goes on from them, with what it found as further behaviours to choose from
  (iterated local search; independent restarts end lower).

Only rewards of observed steps enter.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import LARGEST_BEHAVIOURS, Assigner, Copies, EStepInput, check_sizes
from rmdp_jax.assigners.facility_location import keep_diverse
from rmdp_jax.assigners.fixed import fixed, shuffled_even
from rmdp_jax.assigners.plain_em import best_policies, plain_em
from rmdp_jax.assigners.relocation import Relocation, extend_to_all, propose_relocation
from rmdp_jax.assigners.restarts import Start, check_stopping_rule, first_start, next_start, reset_best
from rmdp_jax.assigners.sampled_agents import SampledAgents
from rmdp_jax.errors import MOST_ITERATIONS, number_pair, share_of_run, whole_number
from rmdp_jax.learning.segments import NO_RETURN, scored_agents
from rmdp_jax.types import Array, Key


class EMOptions(NamedTuple):
    """Arguments of `em`, under the same names."""

    anneal: int
    anneal_share: float
    temperature: tuple[float, float]
    relocate_every: int
    relocate_until: float
    starts: int
    segment_environments: int
    archive_size: int
    archive_every: int


class EMState(NamedTuple):
    """The assignment, and the segments that archived members showed.

    The archive has `archive_size` members that are unlike each other, and the k that were best when the last start ended; the
    trainer's archive has the k first policies too, of which no segments are known.
    """

    labels: Array  # (n,) int32
    weights: Array  # (k, n) float32, one-hot of the labels except while a start is annealed
    returns: Array  # (archive_size + k, B, m) segment returns of archived members
    archived_at: Array  # (archive_size + k,) float32 iteration in which a member was archived, -inf of an empty slot
    hold_until: Array  # () int32 iteration before which no agent moves, so that relocated policies can learn
    start: Start


def em(
    k: int,
    n: int,
    *,
    anneal: int = 70,
    anneal_share: float = 0.2,
    temperature: tuple[float, float] = (0.3, 0.005),
    relocate_every: int = 20,
    relocate_until: float = 0.8,
    starts: int = 8,
    segment_environments: int = 32,
    archive_size: int | None = None,
    archive_every: int = 5,
) -> Assigner:
    """EM with annealing, relocation and restarts; `plain_em` is without.

    At a start all policies serve every agent alike. Weights then are a softmax of utilities over a temperature that falls
    (Rose, 1998). From the end of annealing on, agents belong to their best policy, and every `relocate_every` iterations
    policies are relocated if segments promise more than the present policies' own; no agent moves before the next relocation.
    When welfare no longer rises, the best policies so far are archived and training restarts, if there is time; the last start
    goes on with the best of all. With k = 1 or k = n there is nothing to choose. Policies that share a trunk cannot
    be copied back from the archive: they have one start, and relocate among themselves.

    Args:
        k, n: policies and agents.
        anneal: iterations of annealing at every start.
        anneal_share: share of the run that annealing takes at most, so that a short run has time left to learn.
        temperature: at the start and the end of annealing, in units of the spread of all utilities; geometric in between.
        relocate_every: iterations between two relocations.
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
            *(anneal, anneal_share, temperature, relocate_every, relocate_until),
            *(starts, segment_environments, archive_size, archive_every),
        )
    )
    segment_environments, archive_size = options.segment_environments, options.archive_size
    if k in (1, n):  # nothing to choose
        return plain_em(k, n)._replace(name="em")
    with_segments, indices = archive_size + k, scored_agents(n)
    sample = None if indices is None else SampledAgents(indices, n)

    def init(key: Key) -> EMState:
        m = n if indices is None else len(indices)
        nothing = (
            jnp.zeros((with_segments, segment_environments, m), jnp.float32),
            jnp.full(with_segments, -jnp.inf, jnp.float32),
        )
        return EMState(shuffled_even(key, k, n), _uniform(k, n), *nothing, jnp.int32(0), first_start())

    return fixed(k, n, shuffled_even)._replace(
        name="em",
        segment_environments=segment_environments,
        sampled_agents=indices,
        archive_size=with_segments + k,  # and the k first policies
        options=options._asdict() | {"temperature": list(options.temperature)},  # as JSON gives it back
        init=init,
        weights=lambda state: state.weights,
        descend=lambda gradient, state: state,
        reassign=lambda key, state, inputs: _reassign(options, sample, state, inputs),
        conclude=lambda state, inputs: _conclude(sample, state, inputs),
    )


def _checked(options: EMOptions) -> EMOptions:
    """The options as Python's own numbers."""
    names = ("anneal", "relocate_every", "starts", "segment_environments", "archive_size", "archive_every")
    most = {"segment_environments": LARGEST_BEHAVIOURS, "archive_size": LARGEST_BEHAVIOURS}
    counts: dict[str, Any] = {
        name: whole_number(name, getattr(options, name), 1, most.get(name, MOST_ITERATIONS)) for name in names
    }
    shares: dict[str, Any] = {name: share_of_run(name, getattr(options, name)) for name in ("anneal_share", "relocate_until")}
    rule = "two numbers above 0, of the start and the end, from 1e-6 to 1e6"
    temperature = number_pair("temperature", options.temperature, lambda x: 1e-6 <= x <= 1e6, rule)
    return options._replace(**counts, **shares, temperature=temperature)


def _uniform(k: int, n: int) -> Array:
    """Weights (k, n) of a start."""
    return jnp.full((k, n), 1.0 / k, jnp.float32)


def _reassign(options: EMOptions, sample: SampledAgents | None, before: EMState, inputs: EStepInput) -> tuple[EMState, Copies]:
    """The E-step, a relocation where one is due, and a restart where there is time for one."""
    (k, n), now = inputs.utility.shape, inputs.iteration + 1
    iterations = jnp.round(now.astype(jnp.float32) / inputs.progress)  # rounded, or float32 error moves what derives from it
    anneal = jnp.clip(jnp.round(options.anneal_share * iterations), 1.0, options.anneal).astype(jnp.int32)
    labels = jnp.where(now >= before.hold_until, best_policies(inputs.utility, before.labels), before.labels)
    welfare = inputs.utility[labels, jnp.arange(n)].mean()
    start, decision = check_stopping_rule(
        before.start,
        welfare,
        now,
        iterations,
        min_iterations=anneal + options.relocate_every,
        max_starts=jnp.where(inputs.can_restore, options.starts, 1),
        until=options.relocate_until,
    )
    hard_for = now - start.began_at - anneal  # iterations since the end of annealing
    due = (hard_for >= 0) & (hard_for % options.relocate_every == 0) & (inputs.progress <= options.relocate_until)
    since = jnp.where(decision.stop | (start.number == 0), 0, start.began_at)
    rounds = jnp.where(due | decision.stop, 2 * k, 0)
    relocation, returns, archived_at = _propose(sample, before, inputs, labels, since, rounds)
    index = jnp.arange(k, dtype=jnp.int32)
    labels = jnp.where(relocation.accepted, relocation.labels, labels)
    sources = jnp.where(relocation.accepted, relocation.sources, index)
    archive = _archive(options, returns, archived_at, sources, decision.stop, now)
    first = k + archive.shape[0] + index
    hard = jax.nn.one_hot(labels, k, axis=0, dtype=jnp.float32)
    weights = jnp.where(hard_for < 0, _soften(options.temperature, inputs.utility, 1.0 + hard_for / anneal), hard)
    held = jnp.where(relocation.accepted, now + options.relocate_every, before.hold_until)
    return (
        EMState(
            labels=labels,
            weights=jnp.where(decision.restart, _uniform(k, n), weights),
            returns=returns[archive],
            archived_at=archived_at[archive],
            hold_until=jnp.where(decision.restart, now, held),
            start=next_start(reset_best(start, relocation.accepted), decision, now),
        ),
        Copies(
            jnp.where(decision.restart, first, sources),
            jnp.concatenate([archive, jnp.where(now == 1, index, first)]),
        ),
    )


def _conclude(sample: SampledAgents | None, state: EMState, inputs: EStepInput) -> tuple[Array, Array]:
    """Labels and sources of the best that this start and those before it have shown."""
    k, under_way = inputs.utility.shape[0], state.start.number > 0
    rounds = jnp.where(under_way, 2 * k, 0)
    relocation, _, _ = _propose(sample, state, inputs, state.labels, jnp.int32(0), rounds)
    stay = jnp.arange(k, dtype=jnp.int32)
    return (
        jnp.where(relocation.accepted, relocation.labels, state.labels),
        jnp.where(relocation.accepted, relocation.sources, stay),
    )


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
    relocation = propose_relocation(k, returns, allowed, own_labels, rounds)
    return relocation if sample is None else extend_to_all(sample, relocation, labels, inputs), returns, archived_at


def _soften(temperature: tuple[float, float], utility: Array, passed: Array) -> Array:
    """Weights (k, n) when the share `passed` () of the annealing is over."""
    start, end = temperature
    spread = utility.max() - utility.min()
    scaled_temperature = start * (end / start) ** passed * jnp.where(spread > 0.0, spread, 1.0)
    return jax.nn.softmax(utility / scaled_temperature, axis=0)


def _archive(options: EMOptions, returns: Array, archived_at: Array, best: Array, stop: Array, now: Array) -> Array:
    """Which members (archive_size + k,) are the archive from now on; `best` (k,) are kept when a start is over."""
    k, size, adding = best.shape[0], options.archive_size, now % options.archive_every == 0
    mean = jnp.where(returns[: k + size] > NO_RETURN, returns[: k + size], 0.0).mean(1)
    diverse = keep_diverse(mean, archived_at[: k + size], size, jnp.where(adding, k, 0))
    unchanged = jnp.arange(k, 2 * k + size, dtype=jnp.int32)
    return jnp.concatenate([jnp.where(adding, diverse, unchanged[:size]), jnp.where(stop, best, unchanged[size:])])
