"""`budget`: what welfare every number of policies is predicted to reach, from one run."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmdp_jax.checks import check_knowledge
from rmdp_jax.config import LARGEST_EPISODES
from rmdp_jax.devices.settings import plain_settings
from rmdp_jax.errors import ConfigError, check, seed_number, whole_number
from rmdp_jax.evaluation.budget import (
    Choice,
    Recommended,
    check_all_ks_within,
    check_ks,
    check_ks_within,
    check_rule,
    choose_members,
    recommend,
)
from rmdp_jax.evaluation.evaluate import make_evaluate, proved_bound
from rmdp_jax.limits import Limits
from rmdp_jax.welfare import Welfare, make_welfare

if TYPE_CHECKING:
    from rmdp_jax.records.loading import Members, Run

BATCHES = 8  # that episodes are played in; their spread is the error
DEFAULT_LARGEST = 10  # k up to which is predicted where no ks are given, or twice the run's k where that is more


class Budget(NamedTuple):
    """What k of the policies that a run knows bring its n agents, for K numbers k; welfare in reference units, 0..100."""

    ks: tuple[int, ...]  # (K,)
    welfare: np.ndarray  # (K,) predicted: of the chosen members, in other episodes than they were chosen by
    standard_error: np.ndarray | None  # (K,) over episodes; None of one episode
    individual: float  # welfare where the best of all members for each agent serves it, chosen and measured in the same way
    bound: np.ndarray | None  # (K,) what k policies can reach at best, proved; None where the task does not know it
    choices: tuple[Choice, ...]  # (K,)
    recommended: Recommended
    members: int  # different policies that the run knows, M
    archived: bool  # whether earlier policies are among them
    episodes: int  # of each member, to choose by, and as many to tell by
    limits: Limits | None = None  # of the agents of each policy, within which `welfare` is; `individual`, `bound` know none


@plain_settings()
def budget(
    run: "Run",
    *,
    ks: Sequence[int] | None = None,
    price: float | None = None,
    share: float | None = None,
    episodes: int | None = None,
    seed: int = 0,
    limits: Limits | None = None,
) -> Budget:
    """Predict the welfare of k policies for every k from what a run knows, and recommend a k.

    Members are the run's k policies and the earlier ones in its archive, where it keeps one (`em` does, for 1 < k < n). All are
    played for `episodes`, by which for every k the best k of them are chosen (facility location); what these bring is measured
    by as many other episodes, so that luck in the first does not count. Policies that are trained for that k can be better than
    what a run met on its way, most for k below its own: `running.ladder.train_ladder` measures how far.

    Args:
        run: of `rmdp_jax.load_run`.
        ks: numbers of policies, rising; 1, 2, ... up to `DEFAULT_LARGEST`, or twice the run's k, when not given.
        price: recommend the k with the largest welfare - price k, in points of 100.
        share: recommend the least k with this share of the individual end; 0.95 when neither rule is given.
        episodes: of each member in either set, up to a multiple of 8; as many as the run was evaluated by when not given.
        seed: of the episodes.
        limits: how many agents, or how much weight, each policy serves; those of the run when not given. ks without room for
            all are left out, or refused where they were given.

    Raises:
        ConfigError: an argument breaks its rule; there are fewer members, or agents, than policies asked for; an episode is for
            one agent alone (`contextual`).
    """
    from rmdp_jax.records.loading import load_members  # orbax takes half a second to import

    rule, seed = check_rule(price, share), seed_number("seed", seed)
    ks = None if ks is None else check_ks(ks)
    number = whole_number("episodes", run.config.evaluation_episodes if episodes is None else episodes, 1, LARGEST_EPISODES)
    if run.env.for_agent is not None:
        raise ConfigError(f"run = {run.folder.path}: one policy is told for whom it acts, so there are no ks to compare")
    members = load_members(run)
    limits = run.config.limits if limits is None else limits
    people = run.config.n, run.population.weights
    if ks is not None:
        check_all_ks_within(ks, limits, *people)
    ks = check_ks_within(_known_ks(run, members, ks), limits, *people)
    bounds = [_bound(run, k) for k in ks]
    welfare = make_welfare(run.config.welfare_p, 0.01, run.population.weights)
    play = _make_play(run, members, seed, number)
    batches = range(min(BATCHES, number))
    utility = np.asarray(sum(play(0, batch) for batch in batches)) / len(batches)
    choices = choose_members(utility, ks, welfare, limits, run.population.weights)
    labels = [choice.labels for choice in choices] + [utility.argmax(0)]
    predicted, errors = _tell((play(1, batch) for batch in batches), labels, welfare)
    return Budget(
        ks=ks,
        welfare=predicted[:-1],
        standard_error=None if errors is None else errors[:-1],
        individual=float(predicted[-1]),
        bound=None if None in bounds else np.array(bounds, float),
        choices=tuple(choices),
        recommended=recommend(rule, ks, predicted[:-1], predicted[-1]),
        members=members.number,
        archived=members.archived,
        episodes=len(batches) * batch_size(number),
        limits=limits,
    )


def batch_size(episodes: int) -> int:
    """Episodes of each member that are played at once."""
    return -(-episodes // min(BATCHES, episodes))


def _known_ks(run: "Run", members: "Members", ks: tuple[int, ...] | None) -> tuple[int, ...]:
    most = min(members.number, run.config.n)
    if ks is None:
        return tuple(range(1, min(most, max(DEFAULT_LARGEST, 2 * run.config.k)) + 1))
    there = f"{members.number} different policies" + (" with its archive" if members.archived else ", and no archive")
    check("ks", ks, ks[-1] <= run.config.n, f"at most n = {run.config.n}, one policy per agent")
    check("ks", ks, ks[-1] <= most, f"at most {most}, as {run.folder.path} knows {there}; take a run of em with a larger k")
    return ks


def _bound(run: "Run", k: int) -> float | None:
    check_knowledge(run.population, k)
    return proved_bound(run.env, run.population, k)


def _make_play(run: "Run", members: "Members", seed: int, episodes: int) -> Callable[[int, int], np.ndarray]:
    """`play(set, batch)`: mean returns (M, n) of every member in a batch of fresh episodes, in reference units."""
    k, policies = run.config.k, members.policies
    evaluate = make_evaluate(run.env, run.population, run.config, episodes=batch_size(episodes))
    blocks = np.arange(-(-members.number // k) * k).reshape(-1, k) % members.number  # k at a time, as the run has them
    nobody = jnp.zeros(run.config.n, jnp.int32)  # is assigned: all are scored for all

    def block(rows: np.ndarray) -> Any:
        own, statistics = jax.tree.map(lambda x: x[rows], (policies.params.own, policies.statistics))
        return policies._replace(params=policies.params._replace(own=own), statistics=statistics)

    def play(number: int, batch: int) -> np.ndarray:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), BATCHES * number + batch), len(blocks))
        found = [evaluate(block(rows), nobody, key).utility for rows, key in zip(blocks, keys, strict=True)]
        return np.concatenate([np.asarray(one) for one in found])[: members.number]

    return play


def _tell(tables: Iterable[np.ndarray], labels: Sequence[np.ndarray], welfare: Welfare) -> tuple[np.ndarray, np.ndarray | None]:
    """Welfare under each of the `labels`, from batches of episodes, and its standard error by their spread."""

    def under(table: np.ndarray) -> np.ndarray:
        agents = np.arange(table.shape[1])
        return np.array([float(welfare.mean(jnp.asarray(table[own, agents]))) for own in labels])

    total, of_batches = np.zeros(0, np.float32), []
    for table in tables:
        total = total + table if total.size else table  # one at a time, as agents may be very many
        of_batches.append(under(table))
    number = len(of_batches)
    errors = np.std(of_batches, 0, ddof=1) / number**0.5 if number > 1 else None
    return under(total / number), errors
