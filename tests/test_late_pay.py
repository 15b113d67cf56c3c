"""What is said where pay comes with the end of an episode."""

import jax.numpy as jnp
import pytest

from rmdp_jax import Env, EnvSpec, Population, Rates, Step, TrainConfig
from rmdp_jax.running.late_pay import endless_note, late_pay_note, notes_on, see_pay

PEOPLE = Population(jnp.array([1.0, 3.0]), lambda agent, paid: agent * paid)


def walk(pay, length=6, probe=True, finite_horizon=True):
    """Episodes of `length` steps; step t of 1..length pays `pay(t)`."""

    def step(clock, action):
        return clock + 1, Step(jnp.zeros(1), jnp.float32(pay(clock + 1)), clock + 1 >= length, jnp.bool_(False))

    spec = EnvSpec("walk", 1, 2, True, 20, 1.0, 1.0, "jax", finite_horizon=finite_horizon, probe=probe)
    return Env(spec, lambda key: (jnp.int32(0), jnp.zeros(1)), step)


def at_the_end(clock):
    return jnp.where(clock == 6, 5.0, 0.0)


def test_pay_is_seen_by_hand():
    """Two agents weigh it 1 and 3, so a step that pays x is seen as 2 x."""
    pay = see_pay(walk(lambda clock: jnp.where(clock == 6, 5.0, 0.5)), PEOPLE)
    assert pay == pytest.approx((10.0, 1.0, 6.0, 0.0))


def test_what_an_adapter_changed_is_told_too():
    env = walk(at_the_end)._replace(spec=walk(at_the_end).spec._replace(notes=("actions are scaled",)))
    first, second = notes_on(env, PEOPLE, TrainConfig(k=2, n=2))
    assert (first, second[:15]) == ("actions are scaled", "pay comes late:")


@pytest.mark.parametrize(
    ("env", "rates", "expected"),
    [
        (walk(at_the_end), Rates(), "brings all that is paid"),
        (walk(lambda clock: jnp.where(clock == 6, 5.0, -0.5)), Rates(), "brings 10 times what another step does"),
        (walk(lambda clock: jnp.where(clock == 6, 1.0, 0.5)), Rates(), None),
        (walk(lambda clock: jnp.where(clock == 6, 0.0, -1.0)), Rates(), None),
        (walk(lambda clock: jnp.float32(3.0)), Rates(), None),
        (walk(at_the_end), Rates(gae_lambda=1.0), None),
        (walk(at_the_end, probe=False), Rates(), None),
        (walk(lambda clock: jnp.float32(3.0), length=30), Rates(), None),
        (walk(lambda clock: jnp.float32(3.0), length=1), Rates(), None),
    ],
)
def test_it_is_told_where_it_is_late_and_nobody_chose_lambda(env, rates, expected):
    note = late_pay_note(env, PEOPLE, TrainConfig(k=2, n=2, rates=rates))
    assert note is None if expected is None else expected in note


@pytest.mark.parametrize(
    ("env", "rates", "expected"),
    [
        (walk(at_the_end, length=30, finite_horizon=False), Rates(), True),  # cut after 20 steps
        (walk(at_the_end, length=30, finite_horizon=False), Rates(discount=0.99), False),
        (walk(at_the_end, length=6, finite_horizon=False), Rates(), False),
        (walk(at_the_end, length=30), Rates(), False),
        (walk(at_the_end, length=30, finite_horizon=False, probe=False), Rates(), False),
    ],
)
def test_a_value_without_end_is_told(env, rates, expected):
    note = endless_note(env, PEOPLE, TrainConfig(k=2, n=2, rates=rates))
    assert (note is not None) == expected
    assert not expected or (
        note.startswith("the discount is 1") and note in notes_on(env, PEOPLE, TrainConfig(k=2, n=2, rates=rates))
    )
