"""The M-step of an iteration: every policy learns in its own environments or, while all are still one, one in those of all.

Frozen policies act beside them and are measured; so do given ones while the others are one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmdp_jax.assigners.base import NOTHING_GIVEN, Assigner, Given
from rmdp_jax.config import TrainConfig
from rmdp_jax.env import EpisodeState
from rmdp_jax.learning.experience import Collect, Experience
from rmdp_jax.learning.learner import Learner, make_improve, schedule_at
from rmdp_jax.learning.ppo import LossParts, ppo_loss
from rmdp_jax.learning.scoring import Totals
from rmdp_jax.learning.segments import SegmentReturns
from rmdp_jax.learning.utility import accumulate
from rmdp_jax.policies.model import POLICY_AXES, Model, Policies
from rmdp_jax.policies.networks import Params
from rmdp_jax.state import Member, TrainState, members_of, policies_of, side_by_side, some_of, with_members
from rmdp_jax.types import Array, Key, PyTree

TURNS = 10  # of an exploration, as nearly as the number of policies can be shared out


class Learned(NamedTuple):
    """What is reported of an M-step; leaves (k, ...). Losses are 0 of policies that did not learn."""

    totals: Totals
    episodes: Array  # int32, ended
    diverged: Array  # int32, steps in which the physics broke
    outcome: PyTree  # of the env, float32 means over all steps
    losses: LossParts


# keys (k,) of the policies, key of the shuffles, state -> state, what is reported; `TrainState.keys` and `.key` are not read
Way = Callable[[Key, Key, TrainState], tuple[TrainState, Learned]]


def make_collect_all(
    collect: Collect, assigner: Assigner, some: slice = slice(None)
) -> Callable[[Key, TrainState], tuple[TrainState, Experience]]:
    """All k policies, or those that the state is `some_of`, act in their own environments, with a key each."""
    collect_all = jax.vmap(collect, (0, POLICY_AXES, 0, 0, 0, 0, 0, None))

    def collect_from(keys: Key, state: TrainState) -> tuple[TrainState, Experience]:
        weights = counted(assigner.weights(state.assignment)[some], state.counts)
        index = jnp.arange(assigner.k, dtype=jnp.int32)[some]
        with jax.named_scope("collect"):
            episodes, segments, experience = collect_all(
                keys, policies_of(state), index, state.episodes, state.segments, state.returns, weights, state.rates
            )
        seen = {"statistics": experience.statistics, "returns": experience.returns}
        return state._replace(episodes=episodes, segments=segments, **seen), experience

    return collect_from


def counted(weights: Array, counts: Array | None) -> Array:
    """Weights (..., n) of agents in rewards, by what a return more of each is `worth`; see `TrainState.counts`."""
    return weights if counts is None else weights * jnp.broadcast_to(counts, weights.shape)


def make_learn(model: Model, config: TrainConfig, assigner: Assigner, collect: Collect, given: Given = NOTHING_GIVEN) -> Way:
    """The M-step of `assigner`: apart, or together for as long as `Assigner.together` says so.

    Under `vmap` each way is computed only if a run needs it.
    """

    def beside(held: int, make: Callable[..., Way]) -> Way:
        way = make(model, config, assigner, collect, held)
        return _beside(held, _make_watch(config, assigner, collect, held), way) if held else way

    apart = beside(given.frozen, _make_apart)
    if assigner.together is None or not config.sizes.explores:
        return apart
    together, whole_of = beside(given.number, _make_explore), assigner.together

    def learn(keys: Key, key: Key, state: TrainState) -> tuple[TrainState, Learned]:
        kind, data = jax.random.key_impl(key), (jax.random.key_data(keys), jax.random.key_data(key))
        whole = whole_of(state.assignment).now
        traced_once = jax.jit(apart, inline=True)  # the same program, for its shapes and for the loop

        def run(way: Way) -> Callable[[Array, PyTree], PyTree]:
            def once(_: Array, carry: PyTree) -> PyTree:
                own, shuffle = (jax.random.wrap_key_data(x, impl=kind) for x in data)
                return way(own, shuffle, carry[0])

            return once

        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(traced_once, keys, key, state)[1])
        # loops of one round or none, as a `cond` under `vmap` computes both ways for all
        carry = jax.lax.fori_loop(0, jnp.where(whole, 1, 0), run(together), (state, nothing))
        return jax.lax.fori_loop(0, jnp.where(whole, 0, 1), run(traced_once), carry)

    return learn


def _beside(held: int, watch: Callable[[Key, TrainState], tuple[TrainState, Learned]], way: Way) -> Way:
    """`way` of all policies but the first `held`, which are watched."""

    def both(keys: Key, key: Key, state: TrainState) -> tuple[TrainState, Learned]:
        first, rest = slice(held), slice(held, None)
        watched, seen = watch(keys[first], some_of(first, state))
        state, learned = way(keys[rest], key, some_of(rest, state))
        return side_by_side(watched, state), jax.tree.map(lambda *x: jnp.concatenate(x), seen, learned)

    return both


def _make_watch(
    config: TrainConfig, assigner: Assigner, collect: Collect, held: int
) -> Callable[[Key, TrainState], tuple[TrainState, Learned]]:
    """The first `held` policies act, so that what they bring to whom is known; nothing of them changes."""
    collect_some, transitions = make_collect_all(collect, assigner, slice(held)), config.sizes.transitions

    def watch(keys: Key, before: TrainState) -> tuple[TrainState, Learned]:
        state, experience = collect_some(keys, before)
        utilities = accumulate(
            state.utilities, state.rates.utility_decay, experience.totals.rewards, experience.episodes, transitions
        )
        state = state._replace(statistics=before.statistics, returns=before.returns, utilities=utilities)
        nothing = jnp.zeros(held, jnp.float32)
        return state, _learned(experience, LossParts(*(nothing for _ in LossParts._fields)))

    return watch


def _make_apart(model: Model, config: TrainConfig, assigner: Assigner, collect: Collect, held: int) -> Way:
    rest, sizes = slice(held, None), config.sizes
    collect_all = make_collect_all(collect, assigner, rest)

    def apart(keys: Key, key: Key, state: TrainState) -> tuple[TrainState, Learned]:
        state, experience = collect_all(keys, state)
        improve = make_improve(
            partial(ppo_loss, model),
            sizes,
            lambda assignment: counted(assigner.weights(assignment)[rest], state.counts),
            lambda gradient, assignment: assigner.descend(
                jnp.pad(counted(gradient, state.counts), ((held, 0), (0, 0))), assignment
            ),
        )
        rates, schedule = state.rates, schedule_at(state.rates, state.iteration, config.iterations)
        with jax.named_scope("m_step"):
            learner, assignment, losses = improve(rates, schedule, key, state.learner, state.assignment, experience.batch)
        utilities = accumulate(
            state.utilities, rates.utility_decay, experience.totals.rewards, experience.episodes, sizes.transitions
        )
        return state._replace(learner=learner, assignment=assignment, utilities=utilities), _learned(experience, losses)

    return apart


def _make_explore(model: Model, config: TrainConfig, assigner: Assigner, collect: Collect, held: int) -> Way:
    """One policy learns in the environments of some policies, of the next, ...; then all but the `held` ones are copies of it.

    So its batches are as small as those of k policies, and k times as many. One batch of all environments and as many updates
    teach far less (benchmarks/README.md, "five times the environments and minibatches").
    """
    number = assigner.k - held
    turns = number_of_turns(number) if config.sizes.explore == "in_turn" else 1
    at_once = number // turns  # policies whose environments it is in
    begin, teach = _make_teach(model, config, assigner, (1.0 - 1.0 / number) ** at_once)
    collect_group = _collect_group(collect, at_once)

    def split(x: Array) -> Array:
        """(number, ...) to (turns, at_once, ...); neighbours, which may be on one device, in different turns."""
        return x.reshape(at_once, turns, *x.shape[1:]).swapaxes(0, 1)

    def join(x: Array) -> Array:
        return x.swapaxes(0, 1).reshape(number, *x.shape[2:])

    def explore(keys: Key, key: Key, state: TrainState) -> tuple[TrainState, Learned]:
        weights, policy_of = begin(state)
        kind = jax.random.key_impl(key)

        def learn_in(one: Member, own: tuple[PyTree, Array, EpisodeState, SegmentReturns | None]) -> tuple[Member, PyTree]:
            data, *group = own
            collect_keys, shuffle_key = (jax.random.wrap_key_data(x, impl=kind) for x in data)
            episodes, segments, experience = collect_group(
                collect_keys, policy_of(one), *group, _only(one.returns), weights, state.rates
            )
            one, losses = teach(state, shuffle_key, one, weights, experience)
            learned = _learned(experience, jax.tree.map(lambda x: jnp.broadcast_to(x, (at_once,)), losses))
            return one, (episodes, segments, learned)

        one = jax.tree.map(lambda x: x[:1], members_of(state))
        shuffles = jax.random.key_data(jax.random.split(key, turns))
        group = jnp.arange(held, assigner.k, dtype=jnp.int32), state.episodes, state.segments
        own = ((split(jax.random.key_data(keys)), shuffles), *jax.tree.map(split, group))
        one, done = jax.lax.scan(learn_in, one, own)
        episodes, segments, learned = jax.tree.map(join, done)
        return _all_are(one, number, state._replace(episodes=episodes, segments=segments)), learned

    return explore


def number_of_turns(number: int) -> int:
    """Turns in which one policy goes through the environments of so many: as many, or of many policies about `TURNS`.

    So an exploring iteration is about ten times as deep as another, however many policies fill a device, where their number has
    a divisor near ten; a prime number has none, and takes as many turns.
    """
    shared_out = [turns for turns in range(min(number, TURNS // 2), number + 1) if number % turns == 0]
    return min(shared_out, key=lambda turns: abs(math.log(turns / TURNS)))


def _collect_group(collect: Collect, number: int) -> Collect:
    """`collect` by one policy in the environments of so many, (number, ...)."""
    if number > 1:
        return jax.vmap(partial(collect, axis=_GROUP), (0, None, 0, 0, 0, None, None, None), axis_name=_GROUP)

    def alone(keys: Key, policy: Policies, *rest: PyTree) -> PyTree:
        own, shared = rest[:3], rest[3:]
        return jax.tree.map(lambda x: x[None], collect(keys[0], policy, *_only(own), *shared))

    return alone


_GROUP = "group"  # name of the axis of those whose environments are learned from in one turn


def _make_teach(model: Model, config: TrainConfig, assigner: Assigner, memory: float) -> tuple[Callable, Callable]:
    """How one policy that acts for all learns: what it acts by, and its update from the experience of some groups, (g, ...).

    `memory` is of utilities, from one improvement of the policy to the next: those of an iteration count.
    """
    sizes, whole_of = config.sizes, assigner.together
    assert whole_of is not None
    improve = make_improve(
        partial(ppo_loss, model), sizes, lambda weights: weights, lambda gradient, weights: weights
    )  # of one policy, whose weights (1, n) are all there is of an assignment

    def begin(state: TrainState) -> tuple[Array, Callable[[Member], Policies]]:
        def policy_of(one: Member) -> Policies:
            params = Params(state.learner.params.shared, _only(one.params))
            return Policies(params, _only(one.statistics), state.rates.observation_clip)

        return counted(whole_of(state.assignment).weights, state.counts), policy_of

    def teach(state: TrainState, key: Key, one: Member, weights: Array, seen: Experience) -> tuple[Member, LossParts]:
        rates, schedule = state.rates, schedule_at(state.rates, state.iteration, config.iterations)
        shared, groups = state.learner, seen.episodes.size
        learner = Learner(Params(shared.params.shared, one.params), Params(shared.opt_state.shared, one.opt_state))
        batch = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), seen.batch)
        learner, _, losses = improve(rates, schedule, key, learner, weights[None], batch)
        decay = jnp.minimum(rates.utility_decay, memory)  # it is archived as what it is, not as what it was
        rewards, episodes = seen.totals.rewards.sum(0, keepdims=True), seen.episodes.sum(0, keepdims=True, dtype=jnp.int32)
        utilities = accumulate(one.utilities, decay, rewards, episodes, groups * sizes.transitions)
        statistics, returns = jax.tree.map(lambda x: x[:1], (seen.statistics, seen.returns))  # the same of all groups
        return Member(
            model.networks.keep_noise(learner.params.own), learner.opt_state.own, statistics, returns, utilities
        ), losses

    return begin, teach


def _all_are(one: Member, number: int, state: TrainState) -> TrainState:
    """The state with `number` policies that are all this one."""
    alike = jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *x.shape[1:])), one)
    return with_members(state, alike, state.learner.params.shared, state.learner.opt_state.shared)


def _only(tree: PyTree) -> PyTree:
    """Leaves (1, ...) to (...)."""
    return jax.tree.map(lambda x: x[0], tree)


def _learned(experience: Experience, losses: LossParts) -> Learned:
    return Learned(experience.totals, experience.episodes, experience.diverged, experience.outcome, losses)
