"""End-to-end: a soft assignment learned together with the policies (Ivanov & Ben-Porat, 2024).

Agent i is served by policy j with weight w[j,i] = softmax(theta[:,i])[j], theta free logits started at N(0, 1). Policies are
trained on the softly mixed reward; reports use the hardened assignment, the policy of the largest weight.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rmdp_jax.assigners.base import Assigner, Copies, EStepInput, check_sizes, no_copies, returns_of
from rmdp_jax.errors import known_name, positive_number
from rmdp_jax.types import Array, Key, PyTree


class SoftAssignment(NamedTuple):
    """Logits and the state of what moves them."""

    logits: Array  # (k, n)
    opt_state: PyTree


def end_to_end(
    k: int, n: int, *, gradient: Literal["exact", "surrogate"] = "exact", learning_rate: float | None = None
) -> Assigner:
    """The soft assigner.

    Args:
        k, n: policies and agents.
        gradient: "exact" climbs welfare itself: dW/dw[j,i] = U[j,i] / n, from the running utilities, once an iteration, as
            natural gradient in the logits (the softmax would otherwise stall near its corners) and scale-free per agent:
            theta[j,i] += learning_rate (U[j,i] - sum_l w[l,i] U[l,i]) / (std_j U[j,i] + 0.01 max_j |U[j,i]|).
            "surrogate" lets the PPO losses carry the gradient, minibatch by minibatch, through the advantages
            sum_i w[j,i] A[j,i], as the authors do; it needs critic="per_agent".
        learning_rate: default 0.2 an iteration (exact), 2e-3 of Adam a minibatch (surrogate, the authors').

    Raises:
        ConfigError: an argument breaks its rule.
    """
    k, n = check_sizes(k, n)
    kind = known_name("gradient", gradient, _KINDS)
    return kind(k, n, None if learning_rate is None else positive_number("learning_rate", learning_rate))


def _exact(k: int, n: int, learning_rate: float | None) -> Assigner:
    rate = 0.2 if learning_rate is None else learning_rate

    def reassign(key: Key, soft: SoftAssignment, inputs: EStepInput) -> tuple[SoftAssignment, Copies]:
        del key
        utility = returns_of(inputs)  # in which welfare of soft weights is linear; its slope is the same for all policies
        better = utility - (_weights(soft) * utility).sum(0, keepdims=True)
        scale = utility.std(0, keepdims=True) + 1e-2 * jnp.abs(utility).max(0, keepdims=True)
        return soft._replace(logits=soft.logits + rate * better / jnp.where(scale > 0.0, scale, 1.0)), no_copies(k)

    options = {"gradient": "exact", "learning_rate": rate}
    return _soft(k, n, ())._replace(reassign=reassign, options=options, takes_given=True)


def _surrogate(k: int, n: int, learning_rate: float | None) -> Assigner:
    rate = 2e-3 if learning_rate is None else learning_rate
    optimizer = optax.adam(rate)

    def descend(by_weight: Array, soft: SoftAssignment) -> SoftAssignment:
        sound = jnp.isfinite(by_weight).all(1, keepdims=True)  # of a policy that is not finite no agent hears anything
        by_weight = jnp.where(sound, by_weight, 0.0)
        (by_logit,) = jax.vjp(partial(jax.nn.softmax, axis=0), soft.logits)[1](by_weight)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            move, opt_state = optimizer.update(by_logit, soft.opt_state)
        return SoftAssignment(soft.logits + move, opt_state)

    opt_state = optimizer.init(jnp.zeros((k, n), jnp.float32))
    options = {"gradient": "surrogate", "learning_rate": rate}
    return _soft(k, n, opt_state)._replace(descend=descend, needs_per_agent_critic=True, options=options)


def _soft(k: int, n: int, opt_state: PyTree) -> Assigner:
    return Assigner(
        name="end_to_end",
        k=k,
        n=n,
        needs_per_agent_critic=False,
        pretraining=0,
        init=lambda key: SoftAssignment(jax.random.normal(key, (k, n)), opt_state),
        weights=_weights,
        descend=lambda by_weight, soft: soft,
        reassign=lambda key, soft, inputs: (soft, no_copies(k)),
    )


def _weights(soft: SoftAssignment) -> Array:
    return jax.nn.softmax(soft.logits, axis=0)


_KINDS = {"exact": _exact, "surrogate": _surrogate}
