"""How many policies: choices and rules by hand, what a tiny run predicts, and the command."""

from itertools import combinations

import numpy as np
import pytest

from rmdp_jax import ConfigError
from rmdp_jax.evaluation.budget import check_ks, check_rule, choose_members, recommend
from rmdp_jax.welfare import make_welfare

PLAIN = make_welfare(1.0, 0.01)
# Greedy begins with member 0 (6 of all), and can then reach 7 only; members 1 and 2 together are 8. Member 3 adds 1 to them.
TABLE = np.array([[3.0, 3.0, 0.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0]])


def test_the_best_members_of_every_k():
    one, two, three, four = choose_members(TABLE, [1, 2, 3, 4], PLAIN)
    assert one.members.tolist() == [0]
    assert set(two.members.tolist()) == {1, 2}, "a swap mends the greedy choice"
    assert two.labels[:2].tolist() == [1, 2]
    assert set(three.members.tolist()) == {1, 2, 3}
    assert three.labels.tolist() == [1, 2, 3]
    assert [choice.welfare for choice in (one, two, three, four)] == pytest.approx([2.0, 8 / 3, 3.0, 3.0])
    # {1, 2} and the largest gain, 1, are 9; {0} and the two largest, 1 and 1, are 8: nothing is above 8 with two members
    assert two.limit == pytest.approx(8 / 3)
    assert four.limit == three.limit == pytest.approx(3.0)


@pytest.mark.parametrize(("p", "weighted"), [(1.0, False), (1.0, True), (0.0, False), (-2.0, True), (-np.inf, False)])
def test_no_choice_passes_the_limit(p, weighted):
    rng = np.random.default_rng(0)
    for _ in range(5):
        table = rng.uniform(1.0, 99.0, (8, 6)).astype(np.float32)
        welfare = make_welfare(p, 0.01, np.arange(1.0, 7.0, dtype=np.float32) if weighted else None)
        for choice in choose_members(table, [1, 2, 4], welfare):
            reached = [float(welfare.mean(table[list(some)].max(0))) for some in combinations(range(8), len(choice.members))]
            assert max(reached) <= choice.limit + 1e-3
            assert choice.welfare == pytest.approx(float(welfare.mean(table[choice.members].max(0))), rel=1e-5)
            if p > -np.inf:  # which the choice stands for by -10
                assert choice.welfare >= 0.95 * max(reached)


def test_on_whose_terms_members_are_chosen():
    table = np.array([[90.0, 10.0], [40.0, 40.0]])
    assert choose_members(table, [1], PLAIN)[0].members.tolist() == [0]
    assert choose_members(table, [1], make_welfare(0.0, 0.01))[0].members.tolist() == [1]
    weights = np.array([1.0, 9.0], np.float32)
    assert choose_members(table, [1], make_welfare(1.0, 0.01, weights))[0].members.tolist() == [1]


def test_a_sample_of_very_many_agents_decides_for_all():
    n = 5000
    table = np.stack([np.full(n, 1.0), np.where(np.arange(n) % 2, 3.0, 0.0), np.where(np.arange(n) % 2, 0.0, 4.0)])
    one, two = choose_members(table, [1, 2], PLAIN)
    assert one.members.tolist() == [2]
    assert set(two.members.tolist()) == {1, 2}
    assert two.labels.tolist() == [1 if i % 2 else 2 for i in range(n)]
    assert two.welfare == two.limit == 3.5


KS, WELFARE = (1, 2, 3, 5), [60.0, 80.0, 88.0, 90.0]


@pytest.mark.parametrize(
    ("rule", "k"),
    [
        ({}, 3),  # 95% of 92 are 87.4
        ({"share": 0.97}, 5),
        ({"share": 0.6}, 1),
        ({"share": 1.0}, None),
        ({"price": 0.0}, 5),
        ({"price": 0.9}, 5),  # the last two bring 1 each
        ({"price": 1.1}, 3),
        ({"price": 8.5}, 2),
        ({"price": 21}, 1),
    ],
)
def test_rules_by_hand(rule, k):
    assert recommend(check_rule(**rule), KS, WELFARE, 92.0).k == k


def test_a_share_of_nothing_is_no_rule():
    found = recommend(check_rule(share=0.5), KS, [-4.0, -3.0, -2.0, -1.0], -1.0)
    assert found.k is None
    assert found.why.endswith("a share takes one above 0; give a price")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_rule(price=-1), "price = -1: must be a finite number from 0 up"),
        (lambda: check_rule(price=np.inf), "price = inf: must be a finite number from 0 up"),
        (lambda: check_rule(share=0), "share = 0: must be above 0, at most 1"),
        (lambda: check_rule(share=95), "share = 95: must be above 0, at most 1"),
        (lambda: check_rule(price=1, share=0.9), "price = 1, share = 0.9: are two rules, must be one; leave the other out"),
        (lambda: check_ks(()), r"ks = \(\): must be whole numbers of at least 1, each above the one before"),
        (lambda: check_ks((3, 2)), r"ks = \(3, 2\): must be whole numbers of at least 1, each above"),
        (lambda: check_ks((1, 1)), r"ks = \(1, 1\): must be whole"),
        (lambda: check_ks((0, 1)), r"ks = \(0, 1\): must be whole"),
        (lambda: check_ks(5), r"ks = 5: must be whole"),
    ],
)
def test_bad_rules_are_refused(call, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        call()
