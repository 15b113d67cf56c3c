"""What random actions show of a task that learners are weak at: pay that comes with the end of an episode, or no end at all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.checks import PROBED_STEPS, being_traced
from rmdp_jax.config import Rates, TrainConfig
from rmdp_jax.env import Env, Population, guard
from rmdp_jax.types import Array, Key

EPISODES = 64
AGENTS = 64  # whose rewards are looked at, evenly drawn from all
LATE = 3.0  # times as much as any other step brings is late
SHORT = 3.0  # steps; in shorter episodes every step is near the end


class Pay(NamedTuple):
    """Mean size of a reward, over agents, in the best quarter of the episodes of random actions that came to their end."""

    last: float  # of the last step
    others: float  # of each step before it
    length: float  # mean number of steps; 0 where no episode ended
    cut: float = 0.0  # share of all episodes that ended by a cut, not terminated


def notes_on(env: Env, population: Population, config: TrainConfig) -> list[str]:
    """What a person may want to know of a task before training: what an adapter changed, whether pay is late, or endless."""
    return [*env.spec.notes, *filter(None, [late_pay_note(env, population, config), endless_note(env, population, config)])]


def endless_note(env: Env, population: Population, config: TrainConfig) -> str | None:
    """What to say where the value of a state has no end: no discount, and episodes that are cut, beyond which learners look."""
    spec = env.spec
    discount = spec.discount if config.rates.discount is None else config.rates.discount
    if not spec.probe or being_traced() or spec.finite_horizon or discount < 1.0 or see_pay(env, population).cut <= 0.5:
        return None
    return (
        "the discount is 1 and most episodes of random actions are cut by the clock: learners look past a cut, and what they "
        "see there has no end; take a discount below 1 (--discount 0.99), or, where the horizon is part of the task, "
        "EnvSpec(finite_horizon=True) with a step that reports truncated at the cut"
    )


def late_pay_note(env: Env, population: Population, config: TrainConfig) -> str | None:
    """What to say at the start where pay comes late and `config.rates` have the default for pay that does not; else None.

    On deep-sea treasure (`examples/deep_sea_treasure.py`) the defaults reach 90 to 99.8% of the optimum, lambda 1 with 4 epochs
    99.7 to 99.9%.
    """
    if not env.spec.probe or being_traced() or config.rates.gae_lambda != Rates.gae_lambda:
        return None
    pay = see_pay(env, population)
    if pay.length < SHORT or pay.last == 0.0 or pay.last < LATE * pay.others:
        return None
    how_much = f"{pay.last / pay.others:.0f} times what another step does" if pay.others > 0.0 else "all that is paid"
    return (
        f"pay comes late: the last step of an episode of random actions brings {how_much}. "
        f"gae_lambda = {Rates.gae_lambda:g} forgets that within some steps; where it is so, Rates(gae_lambda=1.0) with "
        "Sizes(epochs=4) learns better (--gae-lambda 1 --epochs 4)"
    )


def see_pay(env: Env, population: Population) -> Pay:
    """Play some episodes with random actions; one short program."""
    some = np.unique(np.linspace(0, population.n - 1, AGENTS).astype(np.int32))
    people = population._replace(agents=jax.tree.map(lambda x: jnp.asarray(x)[some], population.agents))
    returns, last, others, steps, ended, terminated = _play_all(guard(env), people)
    best = np.flatnonzero(ended)[np.argsort(-returns[ended], kind="stable")][: -(-EPISODES // 4)]  # what is to be learned
    if not best.size:
        return Pay(0.0, 0.0, 0.0)
    each = others[best].sum() / max((steps[best] - 1).sum(), 1)
    return Pay(float(last[best].mean()), float(each), float(steps[best].mean()), float((ended & ~terminated).mean()))


def _play_all(env: Env, people: Population) -> list[np.ndarray]:
    """(episodes,) return, size of the last reward, sum of those before it, steps, whether the episode ended, and terminated."""
    spec = env.spec

    def act(key: Key) -> Array:
        if spec.discrete:
            return jax.random.randint(key, (), 0, spec.action_size, jnp.int32)
        return jax.random.uniform(key, (spec.action_size,), jnp.float32, -1.0, 1.0)

    def play(key: Key) -> tuple[Array, ...]:
        start_key, act_key = jax.random.split(key)
        state, _ = env.reset(start_key)

        def advance(carry: tuple) -> tuple:
            number, state, total, last, others, *_ = carry
            state, step = env.step(state, act(jax.random.fold_in(act_key, number)))
            rewards = people.rewards(step)
            ended = step.terminated | step.truncated | (number + 1 >= spec.episode_length)
            return number + 1, state, total + rewards.mean(), jnp.abs(rewards).mean(), others + last, ended, step.terminated

        nothing = jnp.float32(0)
        start = (jnp.int32(0), state, nothing, nothing, nothing, jnp.bool_(False), jnp.bool_(False))
        most = min(spec.episode_length, PROBED_STEPS)
        steps, _, *paid, ended, terminated = jax.lax.while_loop(lambda carry: (carry[0] < most) & ~carry[5], advance, start)
        return *paid, steps, ended, terminated

    played = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), EPISODES))
    return [np.asarray(x) for x in played]
