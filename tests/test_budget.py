"""How many policies: choices and rules by hand, what a tiny run predicts, and the command."""

import json
import shutil
from dataclasses import replace
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import texts
from test_cli import refused
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import ConfigError, Limits, budget, em, make_evaluate, plots, random_even, train
from rmdp_jax.commands.budget import Budget
from rmdp_jax.commands.cli import _goes_on, main
from rmdp_jax.envs import make
from rmdp_jax.evaluation.budget import check_ks, check_rule, choose_members, recommend
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.given import checksums
from rmdp_jax.records.loading import load_members, load_run
from rmdp_jax.records.lock import Locked, locked
from rmdp_jax.running import ladder as ladders
from rmdp_jax.running.cells import Cell
from rmdp_jax.welfare import from_worth, make_welfare, worth

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


def test_a_larger_choice_leads_out_of_a_local_optimum():
    table = np.array([[0, 1, 4, 0], [2, 1, 3, 4], [0, 0, 1, 4], [3, 2, 3, 3], [4, 2, 1, 0.0]])
    alone, two = choose_members(table, [2], PLAIN)[0], choose_members(table, [2, 3], PLAIN)[0]
    assert (set(alone.members.tolist()), alone.welfare) == ({0, 3}, 3.0), "no swap of the greedy choice is better"
    assert (set(two.members.tolist()), two.welfare) == ({1, 4}, 3.25)


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


@pytest.mark.parametrize("p", [1.0, 0.5, 0.0, -2.0, -np.inf])
def test_from_worth_is_the_inverse(p):
    returns = jnp.linspace(0.05, 1.0, 5)
    np.testing.assert_allclose(from_worth(worth(returns, p), p), returns, rtol=2e-3)


def test_members_serve_within_limits():
    table = np.array([[10.0, 10, 50, 50], [60, 60, 70, 60], [50, 50, 10, 10], [0, 0, 0, 1]])
    (free,) = choose_members(table, [2], PLAIN)
    assert (set(free.members.tolist()) & {1}, free.welfare) == ({1}, 62.5)
    (held,) = choose_members(table, [2], PLAIN, Limits(at_most=2))
    assert held.members.tolist() == free.members.tolist()
    assert sorted(np.unique(held.labels, return_counts=True)[1].tolist()) == [2, 2]
    two_each = set(permutations([0, 0, 1, 1]))
    best = max(table[held.members][list(some), range(4)].mean() for some in two_each)
    assert held.welfare == pytest.approx(best)
    weights = np.array([1.0, 2.0, 3.0, 1.0], np.float32)
    weighted = choose_members(table, [2], make_welfare(1.0, 0.01, weights), Limits(at_most=4), weights)[0]
    assert sorted(np.bincount(weighted.labels, weights, 4)[weighted.members].tolist()) == [3, 4]


# One run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of em, with an archive."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(*make_tiny(), CONFIG, em(K, N, explore=3, archive_size=3), out=folder, progress=False)
    return load_run(folder, make)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Of an algorithm that keeps no archive."""
    folder = tmp_path_factory.mktemp("runs") / "bare"
    train(*make_tiny(), CONFIG, random_even(K, N), out=folder, progress=False)
    return load_run(folder, make)


def test_members_are_the_policies_and_the_archive_each_once(run, bare):
    found = load_members(run)
    assert found.archived
    leaves = jax.tree.leaves((found.policies.params.own, found.policies.statistics))
    rows = np.concatenate([np.asarray(leaf).reshape(found.number, -1) for leaf in leaves], 1)
    assert len(np.unique(rows, axis=0)) == found.number
    assert K < found.number <= K + 3 + 2 * K
    for leaf, own in zip(leaves, jax.tree.leaves((run.policies.params.own, run.policies.statistics)), strict=True):
        np.testing.assert_array_equal(leaf[:K], own)
    assert (load_members(bare).number, load_members(bare).archived) == (K, False)


def test_what_is_chosen_in_some_episodes_is_told_by_others(run, monkeypatch):
    """Member 2 is the luckiest in the first set of episodes and the worst in the second."""
    first = np.array([[10.0, 10, 50, 50], [50, 50, 10, 10], [60, 60, 60, 60]])
    second = np.array([[10.0, 10, 50, 50], [50, 50, 10, 10], [20, 20, 20, 20]])
    noise = np.array([0.0, 4.0])  # of two batches
    monkeypatch.setattr(
        "rmdp_jax.running.budget._make_play", lambda *of: lambda number, batch: (first, second)[number] + noise[batch]
    )
    found = budget(run, ks=[1, 2], episodes=2)
    assert [choice.welfare for choice in found.choices] == [62.0, 62.0]
    assert found.welfare.tolist() == [22.0, 22.0]
    assert found.individual == 22.0
    np.testing.assert_allclose(found.standard_error, noise.std(ddof=1) / 2**0.5)
    assert found.episodes == 2
    monkeypatch.setattr("rmdp_jax.running.budget._make_play", lambda *of: lambda number, batch: second)
    alone = budget(run, ks=[1, 2], price=1, episodes=1)
    assert (alone.welfare.tolist(), alone.standard_error, alone.recommended.k) == ([30.0, 50.0], None, 2)


def test_limits_leave_out_ks_without_room(run, monkeypatch):
    table = np.array([[60.0, 60, 60, 60], [0, 50, 0, 0], [40, 10, 10, 10], [1, 1, 1, 1]])
    monkeypatch.setattr("rmdp_jax.running.budget._make_play", lambda *of: lambda number, batch: table)
    held = run._replace(config=replace(run.config, at_most=2))
    found = budget(held, episodes=1)
    assert found.ks == (2, 3, 4)
    assert found.limits == Limits((2.0,), None)
    assert found.individual == 60.0
    for choice in found.choices:
        assert len(set(choice.members.tolist())) == len(choice.members), "a policy twice would serve twice as many"
        assert (np.bincount(choice.labels) <= 2).all()
        assert choice.welfare <= choice.limit
    assert found.choices[0].members.tolist() == [0, 2]
    assert found.welfare.tolist() == [42.5, 52.5, 52.5]  # agent 0 is best off elsewhere, then agent 1 too
    with pytest.raises(ConfigError, match=r"^ks = \(1,\): must be numbers of policies with room for all .* as \(2, 4\) are"):
        budget(held, ks=[1, 2, 4])
    with pytest.raises(ConfigError, match=r"^at_most = \(2\.0, 3\.0\): must be one number for all policies, as"):
        budget(run._replace(config=replace(run.config, at_most=(2, 3))))
    assert budget(held, episodes=1, limits=Limits(at_least=1)).ks == (1, 2, 3, 4)


def test_one_run_predicts_all_ks(run):
    known = run._replace(population=run.population._replace(upper_bound=lambda k: 0.9 + 0.01 * k))
    found = budget(known, seed=5)
    assert found.ks == (1, 2, 3, 4)
    np.testing.assert_allclose(found.bound, [91, 92, 93, 94])
    assert found.episodes == CONFIG.evaluation_episodes
    assert all(choice.welfare <= choice.limit for choice in found.choices)
    assert (np.diff([choice.welfare for choice in found.choices]) >= 0).all()
    again = budget(run, seed=5)
    np.testing.assert_array_equal(again.welfare, found.welfare)
    assert again.bound is None


def test_members_are_evaluated_as_evaluate_does(bare):
    """Batch 0 of the set to choose by, which of one episode is all of it."""
    found = budget(bare, episodes=1, seed=3)
    key = jax.random.split(jax.random.fold_in(jax.random.key(3), 0), 1)[0]
    evaluate = jax.jit(make_evaluate(bare.env, bare.population, bare.config, episodes=1))
    table = np.asarray(evaluate(bare.policies, jnp.zeros(N, jnp.int32), key).utility)
    assert found.choices[1].welfare == pytest.approx(table.max(0).mean())
    assert found.choices[0].welfare == pytest.approx(table.mean(1).max())


def test_welfare_is_on_the_terms_of_the_run(bare):
    plain, nash = (budget(bare._replace(config=replace(bare.config, welfare_p=p))) for p in (1.0, 0.0))
    assert (nash.welfare < plain.welfare).all()
    weighted = bare._replace(population=bare.population._replace(weights=jnp.array([9.0, 1, 1, 1])))
    assert budget(weighted, ks=[1]).choices[0].welfare != plain.choices[0].welfare


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ks": [1, 3]},
            r"ks = \(1, 3\): must be at most 2, as .* knows 2 different policies, and no archive; take a run of em",
        ),
        ({"ks": [5]}, r"ks = \(5,\): must be at most n = 4, one policy per agent"),
        ({"ks": [2, 1]}, r"ks = \[2, 1\]: must be whole numbers"),
        ({"price": -1}, "price = -1: must be"),
        ({"price": 1, "share": 0.5}, "price = 1, share = 0.5: are two rules"),
        ({"episodes": 0}, "episodes = 0: must be a whole number of at least 1"),
        ({"seed": -1}, "seed = -1: must be a whole number from 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_compiled(bare, monkeypatch, options, message):
    monkeypatch.setattr("jax.jit", None)
    with pytest.raises(ConfigError, match=f"^{message}"):
        budget(bare, **options)


def test_a_policy_in_context_is_refused(bare):
    with pytest.raises(ConfigError, match="one policy is told for whom it acts, so there are no ks to compare"):
        budget(bare._replace(env=bare.env._replace(for_agent=lambda agent: bare.env)))


# The command.


def test_the_command_writes_prints_and_draws(run, bare, tmp_path, capsys):
    folder = str(run.folder.path)
    main(["budget", folder, "--price", "1"])
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith("picture")) <= 80
    report = json.loads((run.folder.path / "budget.json").read_text())
    assert f"recommended: k = {report['recommended']['k']} (welfare less 1 a policy is highest there)" in printed
    assert f"{report['members']} different policies, its archive with them; 8 fresh episodes" in printed
    found = budget(run, price=1)
    np.testing.assert_allclose(report["predicted"], found.welfare, rtol=1e-6)
    assert report["policies"] == [choice.members.tolist() for choice in found.choices]
    assert (run.folder.path / "budget.png").stat().st_size > 1000
    main(["budget", str(bare.folder.path), "--json", "--out", str(tmp_path / "out"), "--ks", "1", "2"])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out" / "budget.json").read_text())
    assert not (bare.folder.path / "budget.json").exists()
    main(["budget", str(bare.folder.path), "--out", str(tmp_path / "out")])
    assert "2 different policies, no archive, as random keeps none here" in capsys.readouterr().out
    main(["budget", str(bare.folder.path), "--out", str(tmp_path / "out"), "--at-most", "3"])
    assert "limits: at most 3 agents a policy; the end, no choice above and proved are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "target = 'nowhere': is neither the folder of a run nor a task (known: ant_speed, "),
        (["."], "run = .: holds no config.json, so it is not the folder of a finished run"),
        ([".", "--seeds", "3"], "seeds = 3: is for a task to train, not for the folder of a run; leave it out"),
        ([".", "--size", "4"], "size = 4: is for a task to train, not for the folder of a run; leave it out"),
        ([".", "--ks", "3", "2"], "ks = (3, 2): must be whole numbers of at least 1, each above the one before"),
        ([".", "--ks"], "ks = (): must be whole numbers of at least 1, each above the one before"),
        ([".", "--price", "-1"], "price = -1: must be a finite number from 0 up"),
        ([".", "--share", "95"], "share = 95: must be above 0, at most 1"),
        ([".", "--share", "0.9", "--price", "1"], "price = 1, share = 0.9: are two rules, must be one"),
        ([".", "--episodes", "1e12"], "episodes = 1000000000000: must be at most 1,000,000"),
        ([".", "--seed", "-1"], "seed = -1: must be a whole number from 0"),
        (["resource_gathering", "--seed", "1"], "seed = 1: is for the folder of a run, not for a task; leave it out"),
        (["resource_gathering", "--episodes", "8"], "episodes = 8: is for the folder of a run, not for a task"),
        (["resource_gathering", "--ks", "2"], "ks = (2,): must be 2 or more whole numbers"),
        (["resource_gathering", "--ks", "2", "26"], "k = 26: must be at most n = 25, one policy per agent"),
        ([".", "--warm"], "warm = True: is for a task to train, not for the folder of a run; leave it out"),
        (["resource_gathering", "--at-most", "9"], "ks = (1, 2): must be numbers of policies with room for all within the"),
        (["resource_gathering", "--at-most", "2"], "ks = (1, 2, 3, 5, 8): none has room for all within the limits; at_most: "),
        (["resource_gathering", "--seeds", "0"], "seeds = 0: must be a whole number of at least 1"),
        (["resource_gathering", "--transitions", "0"], "transitions = 0: must be a whole number of at least 1"),
        (
            ["resource_gathering", "--out", "/dev/null/x"],
            "out = /dev/null/x/budget.png: must be in a folder that can be written",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_told_in_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("jax.jit", None)
    monkeypatch.chdir(tmp_path)
    assert refused(["budget", *arguments], capsys).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_ladder_is_to_be_started_again():
    assert _goes_on(["budget", "resource_gathering", "--ks", "1", "2"]) == "the same command goes on with what was saved"
    assert _goes_on(["sweep", "ant_speed"]) == _goes_on(["budget", "resource_gathering"])
    assert _goes_on(["train", "resource_gathering"]).endswith("--resume")
    assert _goes_on(["budget", "runs/first"]) == _goes_on(["evaluate", "runs/first"]) == _goes_on([]) == ""


# The ladder.

TINY = replace(CONFIG, transitions=320, log_every=10)
CELLS = [Cell(env="resource_gathering", env_options={"size": 2}, algorithm="random", config=replace(TINY, k=k)) for k in (1, 2)]


@pytest.mark.slow
def test_a_ladder_sets_what_the_last_run_predicts_beside_what_was_trained(tmp_path, monkeypatch, capsys):
    def climb(**options):
        return ladders.train_ladder(CELLS, [0, 1], tmp_path, make=make, progress=False, **options)

    found = climb()
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(line["k"], line["seed"]) for line in lines] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    means = np.array([[line["welfare"] for line in lines if line["k"] == k] for k in (1, 2)]).mean(1)
    np.testing.assert_allclose([of.mean for of in found.trained], means)
    assert [one.members for one in found.budgets] == [2, 2], "of the runs of k = 2"
    np.testing.assert_allclose(found.predicted, np.mean([one.welfare for one in found.budgets], 0))
    assert found.error == pytest.approx(np.abs(found.predicted - means).mean())

    monkeypatch.setattr("rmdp_jax.running.sweep.train_held", None)  # nothing is left to train
    again = climb(price=1000)
    np.testing.assert_array_equal(again.predicted, found.predicted)
    assert (again.recommended.k, again.confirmed.k) == (1, 1)
    Budget(target="resource_gathering").write_ladder(again, tmp_path)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith("picture")) <= 80
    assert f"mean absolute error over k: {found.error:.2f}" in printed
    report = json.loads((tmp_path / "budget.json").read_text())
    assert report["mean_absolute_error"] == pytest.approx(found.error, rel=1e-6)
    assert [of["number"] for of in report["trained"]] == [2, 2]

    steps = TINY.iterations * TINY.sizes.transitions
    assert (found.transitions, found.warm) == ((steps, 2 * steps), False)
    with pytest.raises(ConfigError, match="algorithm = 'random': must be em, plain_em or end_to_end where policies are given"):
        climb(warm=True)
    monkeypatch.setattr(ladders, "sweep", lambda *of, **options: lines[:3])
    with pytest.raises(Locked, match="1 of the runs are trained by another process; start the same command again"):
        climb()


@pytest.mark.slow
def test_a_warm_ladder_begins_each_k_with_the_policies_of_the_one_before(tmp_path, monkeypatch):
    cells = [replace(cell, algorithm="plain_em") for cell in CELLS]

    def climb(out, **options):
        return ladders.train_ladder(cells, [0, 1], out, make=make, progress=False, **{"warm": True, **options})

    found, steps = climb(tmp_path / "first"), TINY.iterations * TINY.sizes.transitions
    assert (found.transitions, found.warm) == ((steps, 3 * steps), True)
    one, two = (
        [RunFolder(tmp_path / "first" / f"resource_gathering-size2-plain_em-k{k}-s{s}") for s in (0, 1)] for k in (1, 2)
    )
    for before, after in zip(one, two, strict=True):
        assert "start" not in before.read_config()
        (source,) = after.read_config()["start"]
        assert (source["run"], source["policy"]) == (str(before.path), 0)
        assert source["sha256"] == checksums(load_run(before.path, make).policies)[0]

    monkeypatch.setattr("rmdp_jax.running.sweep.train_held", None)  # nothing is left to train, wherever the folders are
    (tmp_path / "first").rename(tmp_path / "moved")
    np.testing.assert_array_equal(climb(tmp_path / "moved").predicted, found.predicted)
    with pytest.raises(ConfigError, match=r"k2-s0 was made with other start \(resource.*k1-s0:0 there, none here\)"):
        climb(tmp_path / "moved", warm=False)
    moved = tmp_path / "moved"
    (moved / one[0].path.name / "result.json").unlink()
    shutil.rmtree(moved / two[0].path.name)
    with locked(moved / one[0].path.name), pytest.raises(Locked, match="2 of the runs are trained by another process"):
        climb(moved)  # k = 2 of seed 0 waits for it


# The picture.


def test_the_picture_has_the_gains_the_levels_and_the_mark():
    curves = [plots.Curve("predicted", [60.0, 80.0, 90.0], [1.0, 1.0, 1.0]), plots.Curve("trained", [65.0, 85.0, 92.0])]
    figure = plots.welfare_by_budget([1, 2, 4], curves, 93.0, bound=[70.0, 86.0, 95.0], recommended=2, price=3.0)
    above, below = figure.axes
    assert [bar.get_height() for bar in below.patches] == [20.0, 5.0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in below.patches] == pytest.approx([2.0, 4.0])
    levels = {line.get_ydata()[0] for line in above.lines if len(set(line.get_ydata())) == 1}
    assert {93.0, 60.0, 70.0, 86.0, 95.0} <= levels
    for word in ("individual end, 93.00", "single policy, 60.00", "upper bound", "predicted", "trained", "price 3"):
        assert word in texts(figure)
    assert above.get_title("right") == "recommended: k = 2"
    assert figure.get_label().endswith("individual end 93.0. Recommended: k = 2.")
