"""The theorem on other terms than the mean: exact steps on finite MDPs whose policies are mixtures.

    max over occupancy measures d_1..d_k and labels x of W_p(u),    u_i = <d_{x_i}, r_i>

For p < 1 the welfare W_p of what agents get is concave in the returns and not linear, so no deterministic policy need be best,
and the one that is best for welfare's gradient may well lower it. Its occupancy measure is only a direction: returns are linear
in occupancy measures, these are a polytope, and a line search between the old and the new measure (Frank & Wolfe, 1956) never
lowers a concave function. One measure is kept a policy; that of a line search is a mixture (play one of two policies for the
episode, drawn at its start), and as an occupancy measure it belongs to a stationary policy as well.

The minimum, p = -inf, has no gradient: its M-step is solved exactly, as a linear program over occupancy measures
(`best_least`). Measures are in units of visits: d[s, a] is the discounted number of times.
"""

from typing import NamedTuple

import numpy as np

from rmdp_jax.evaluation.tabular import TabularMDP

_GOLDEN = (5**0.5 - 1) / 2
_SECTIONS = 80  # of the line search, beyond float64


class Mixed(NamedTuple):
    """Where alternating steps on mixtures came to rest, and the way there."""

    labels: np.ndarray  # (n,) the policy of each agent
    occupancy: np.ndarray  # (k, s, a) discounted visits
    utility: np.ndarray  # (k, n)
    welfare: list[float]  # after the first measures and every half step since


def solve_mixed(mdp: TabularMDP, k: int, labels: np.ndarray, p: float, *, rounds: int = 50, steps: int = 20) -> Mixed:
    """E-steps, and M-steps of `steps` Frank-Wolfe steps each (of one linear program where p = -inf), in float64.

    Welfare falls at no half step. Returns must be above 0 where p < 1, by rewards above 0.

    Args:
        mdp: as of `tabular_mdp`.
        k: policies.
        labels: (n,) the first assignment.
        p: up to 1, or -inf.
        rounds: pairs of half steps at most.
        steps: of Frank and Wolfe in an M-step.
    """
    reward, n = np.asarray(mdp.reward, np.float64), len(labels)
    occupancy = np.stack([visits(mdp, best_actions(mdp, reward[labels == j].sum(0))) for j in range(k)])
    utility = np.einsum("ksa,nsa->kn", occupancy, reward)
    agents, welfare = np.arange(n), [p_welfare(utility[labels, np.arange(n)], p)]
    for _ in range(rounds):
        own = utility[labels, agents]
        labels = np.where(utility.max(0) > own, utility.argmax(0), labels)  # as W_p rises with each agent's return
        welfare.append(p_welfare(utility[labels, agents], p))
        occupancy = _m_step(mdp, reward, labels, occupancy, p, steps)
        utility = np.einsum("ksa,nsa->kn", occupancy, reward)
        welfare.append(p_welfare(utility[labels, agents], p))
        if welfare[-1] - welfare[-3] <= 1e-12 * abs(welfare[-1]):
            break
    return Mixed(labels, occupancy, utility, welfare)


def _m_step(mdp: TabularMDP, reward: np.ndarray, labels: np.ndarray, occupancy: np.ndarray, p: float, steps: int) -> np.ndarray:
    """Measures (k, s, a) of no less welfare; all policies move at once, along one line."""
    groups = [reward[labels == j] for j in range(len(occupancy))]
    if p == -np.inf:
        return np.stack([best_least(mdp, own) if len(own) else old for own, old in zip(groups, occupancy, strict=True)])
    for _ in range(steps):
        own = np.einsum("nsa,nsa->n", occupancy[labels], reward)
        slope = p_slope(own, p)
        new = np.stack(
            [visits(mdp, best_actions(mdp, np.tensordot(slope[labels == j], group, 1))) for j, group in enumerate(groups)]
        )
        gain = np.einsum("nsa,nsa->n", new[labels], reward) - own
        if slope @ gain <= 1e-13 * abs(slope @ own):  # Frank and Wolfe's gap, above which welfare's shortfall never is
            break
        share = line_search(own, gain, p)
        occupancy = (1 - share) * occupancy + share * new
    return occupancy


def line_search(own: np.ndarray, gain: np.ndarray, p: float) -> float:
    """The share t in [0, 1] with the largest W_p(own + t gain), by golden sections; 0 where none is above the value there."""

    def value(share: float) -> float:
        return p_welfare(own + share * gain, p)

    low, high = 0.0, 1.0
    for _ in range(_SECTIONS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if value(left) > value(right) else (left, high)
    return max((0.0, (low + high) / 2, 1.0), key=value)


def p_welfare(returns: np.ndarray, p: float) -> float:
    """W_p of returns (n,) above 0, as `rmdp_jax.welfare` has it, in float64."""
    if p == -np.inf:
        return float(returns.min())
    return float(np.exp(np.log(returns).mean()) if p == 0 else (returns**p).mean() ** (1 / p))


def p_slope(returns: np.ndarray, p: float) -> np.ndarray:
    """The gradient of W_p (n,), up to a factor above 0."""
    return (returns / returns.min()) ** (p - 1)


def best_actions(mdp: TabularMDP, reward: np.ndarray) -> np.ndarray:
    """The best action in each state (s,) for one reward (s, a), by policy iteration."""
    chance, discount = np.asarray(mdp.transition), float(mdp.discount)
    rows, actions = np.arange(len(reward)), reward.argmax(1)
    while True:
        value = np.linalg.solve(np.eye(len(reward)) - discount * chance[rows, actions], reward[rows, actions])
        ahead = reward + discount * chance @ value
        better = ahead.max(1) > ahead[rows, actions] + 1e-12 * np.abs(ahead).max()
        if not better.any():
            return actions
        actions = np.where(better, ahead.argmax(1), actions)


def visits(mdp: TabularMDP, actions: np.ndarray) -> np.ndarray:
    """The occupancy measure (s, a) of actions (s,): how often each pair is met, discounted."""
    chance, states = np.asarray(mdp.transition), len(actions)
    rows, found = np.arange(states), np.zeros(chance.shape[:2])
    flow = np.eye(states) - float(mdp.discount) * chance[rows, actions].T
    found[rows, actions] = np.linalg.solve(flow, np.asarray(mdp.start))
    return found


def balance(mdp: TabularMDP) -> tuple[np.ndarray, np.ndarray]:
    """A (s, s a) and b (s,): measures are the d >= 0 with A d = b, what leaves a state is what comes into it."""
    chance = np.asarray(mdp.transition)
    states, actions = chance.shape[:2]
    leaves = np.repeat(np.eye(states), actions, 1)
    return leaves - float(mdp.discount) * chance.reshape(states * actions, states).T, np.asarray(mdp.start)


def best_least(mdp: TabularMDP, rewards: np.ndarray) -> np.ndarray:
    """The measure (s, a) whose least return to the agents with rewards (m, s, a) is largest: a linear program."""
    from scipy.optimize import linprog  # takes long to import

    flow, start = balance(mdp)
    flat = rewards.reshape(len(rewards), -1)
    found = linprog(
        np.append(np.zeros(flat.shape[1]), -1.0),
        A_ub=np.column_stack([-flat, np.ones(len(flat))]),
        b_ub=np.zeros(len(flat)),
        A_eq=np.column_stack([flow, np.zeros(len(flow))]),
        b_eq=start,
        bounds=[(0, None)] * flat.shape[1] + [(None, None)],
    )
    if found.status != 0:
        raise ArithmeticError(f"HiGHS found no measure: {found.message}")
    return found.x[:-1].reshape(rewards.shape[1:])
