"""One policy that is told for whom it acts: what it is told, whom it is paid for, and that it serves opposite wishes."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, make_probe, probe_config
from tiny import FLAGS, make_tiny

from rmdp_jax import ConfigError, RunSpec, evaluate, fixed, make_trainer, train, train_batch, with_context
from rmdp_jax.commands.cli import main
from rmdp_jax.context import context_vectors
from rmdp_jax.envs import make
from rmdp_jax.evaluation.comparison import compare_runs
from rmdp_jax.records.finished import find_runs
from rmdp_jax.records.loading import load_run
from rmdp_jax.running import train as train_module
from rmdp_jax.running.cells import Cell
from rmdp_jax.running.sweep import sweep


def one_for_all(n):
    return fixed(1, n, np.zeros(n, np.int32))


def test_what_a_policy_is_told_by_hand():
    agents = {
        "amount": jnp.array([2.0, 4.0, 3.0]),
        "cell": jnp.array([7, 3, 7]),
        "same": jnp.ones((3, 2)),
        "yes": jnp.ones(3, bool),
    }
    assert context_vectors(agents).tolist() == [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert context_vectors(jnp.arange(200))[[0, 199]].tolist() == [[-1.0], [1.0]]  # too many for names
    assert context_vectors(jnp.ones(3)).shape == (3, 0)
    with pytest.raises(ConfigError, match=r"agents is key<fry>: cover and contextual go by agents' parameters"):
        context_vectors(jax.random.split(jax.random.key(0), 3))


def test_an_episode_is_for_one_agent_who_alone_is_paid():
    bare, people = make_probe(PROBES["constant"], 4)  # agent i is paid i + 1
    env, population = with_context(bare, people)
    vectors = context_vectors(people.agents)
    states, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 400))
    assert np.bincount(states.who, minlength=4).min() > 70  # of 100 expected, deviation 9
    np.testing.assert_array_equal(obs[:, 1:], vectors[states.who])
    for who in range(4):
        state, obs = env.for_agent(who).reset(jax.random.key(1))
        after, stepped = env.step(state, jnp.int32(0))
        assert (int(state.who), int(after.who)) == (who, who)
        np.testing.assert_array_equal(obs[1:], vectors[who])
        np.testing.assert_array_equal(stepped.obs[1:], vectors[who])
        rewards = population.rewards(stepped)
        assert rewards.tolist() == [4.0 * (who + 1) * (i == who) for i in range(4)]
        assert float(rewards.mean()) == who + 1  # what the policy for all learns from


def test_bounds_are_those_of_n_policies():
    _, population = make("resource_gathering", context=True)
    assert population.upper_bound(1) == make("resource_gathering")[1].upper_bound(25) == 0.9356


def test_who_was_drawn_by_chance_counts_no_more_on_any_terms():
    env, population = with_context(*make_probe(PROBES["constant"], 4))
    config = replace(probe_config(1, 4, 1), welfare_p=0.0)
    trainer = make_trainer(env, population, config, one_for_all(4))
    state, _ = jax.jit(trainer.step)(jax.jit(trainer.init)(jax.random.key(0)))
    assert state.counts.tolist() == [1.0] * 4


@pytest.mark.slow
def test_every_agent_is_evaluated_by_as_many_episodes_of_its_own():
    env, population = with_context(*make_probe(PROBES["constant"], 5))
    config = probe_config(1, 5, 1)
    policies = train(env, population, config, one_for_all(5), progress=False).policies
    for episodes in (1, 3):
        evaluation = evaluate(env, population, config, policies, np.zeros(5, int), episodes=episodes)
        np.testing.assert_allclose(evaluation.utility, [[100.0, 200.0, 300.0, 400.0, 500.0]], rtol=1e-6)
        assert float(evaluation.welfare) == pytest.approx(300.0)
        assert evaluation.episode_length.tolist() == [1.0]
    assert float(evaluation.standard_error) < 1e-3  # no luck in who is drawn


@pytest.mark.slow
def test_one_policy_serves_opposite_wishes_once_it_is_told():
    bare, people = make_probe(PROBES["both"], 4)
    config = probe_config(1, 4, 200, hidden=(64, 64))
    contextual = train(*with_context(bare, people), config, one_for_all(4), progress=False)
    plain = train(bare, people, config, one_for_all(4), progress=False)
    assert plain.summary["welfare"] == pytest.approx(50.0, abs=10.0)  # whoever is served, half of the agents are not
    assert contextual.summary["welfare"] > 90.0
    assert np.asarray(contextual.evaluation.utility).shape == (1, 4)
    assert np.asarray(contextual.evaluation.utility).min() > 80.0


@pytest.mark.slow
def test_the_command_trains_resumes_and_evaluates(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "resource_gathering", "--algorithm", "contextual", "--size", "3", "--k", "2", "--out", str(out), *FLAGS]
    main([*command, "--transitions", "320"])
    result = json.loads((out / "result.json").read_text())
    assert (result["algorithm"], result["k"], result["n"], result["assignment"]) == ("contextual", 1, 9, [0] * 9)
    assert np.shape(result["utility"]) == (1, 9)
    assert result["welfare"] == pytest.approx(np.mean(result["utility"]), rel=1e-5)
    assert result["env_options"] == {"seed": 0, "size": 3, "n": 9, "context": True}
    main(["train", str(out), "--extend", "640"])
    assert json.loads((out / "result.json").read_text())["iterations"] == 20
    assert "proved for k = 9" in capsys.readouterr().out
    main(["evaluate", str(out), "--json"])
    assert np.shape(json.loads(capsys.readouterr().out)["utility"]) == (1, 9)
    assert load_run(out, make).env.spec.observation_size == 2 + 9 + 9
    (row,) = compare_runs(find_runs([tmp_path]).lines)
    assert row.options == "size=3"  # beside the other algorithms on this task
    people = tmp_path / "people.csv"
    people.write_text("cell\n1\n")
    for words in (["assign", str(out), str(people)], ["evaluate", str(out), "--keep"]):
        with pytest.raises(SystemExit):
            main(words)
        assert f"run = {out}: one policy is told for whom it acts" in " ".join(capsys.readouterr().err.split())
    main(["export", str(out), "--formats", "safetensors"])
    manifest = json.loads((out / "export" / "manifest.json").read_text())
    table = np.loadtxt(out / "export" / manifest["observation"]["appended"], delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 1:], context_vectors(np.arange(9)))
    assert manifest["observation"]["size"] == 2 + 9 + table.shape[1] - 1
    main(["dossier", str(out), "--out", str(tmp_path / "review")])
    content = json.loads((tmp_path / "review" / "dossier.json").read_text())
    assert content["agents"]["columns"] == {"who": list(range(9)), "cell": list(range(9))}


@pytest.mark.slow
def test_runs_whose_agents_differ_have_envs_of_their_own(tmp_path, monkeypatch):
    programs, original = [], train_module.learn
    monkeypatch.setattr(
        train_module, "learn", lambda env, runs, *a, **o: [programs.append(len(runs)), original(env, runs, *a, **o)][1]
    )

    def make_drawn(name, *, seed, n=3, context=False):
        env, people = make_probe(PROBES["constant"], n)
        people = people._replace(agents=people.agents._replace(scale=people.agents.scale * (1 + seed) ** 2 + seed))
        env = env._replace(spec=env.spec._replace(options={"seed": seed, "n": n}))
        return with_context(env, people) if context else (env, people)

    cell = Cell(env="probe", algorithm="contextual", config=probe_config(1, 3, 2))
    first, second = sweep([cell], [0, 1], tmp_path, make=make_drawn, progress=False)
    assert programs == [1, 1]
    assert (first["welfare"], second["welfare"]) == pytest.approx((200.0, 900.0))  # 1, 2, 3 and 5, 9, 13
    assert first["algorithm"] == "contextual"

    one, other = (with_context(*make_drawn("probe", seed=seed)) for seed in (0, 1))
    runs = [RunSpec(task[1], probe_config(1, 3, 2), one_for_all(3)) for task in (one, other)]
    with pytest.raises(ConfigError, match=r"agents in context = .*; train them apart"):
        train_batch(one[0], runs, progress=False)


def test_agents_that_the_env_does_not_show_are_refused(tmp_path):
    env, population = with_context(*make_tiny())
    train(env, population, probe_config(1, 4, 1), one_for_all(4), out=tmp_path / "run", progress=False)

    def make_others(name, *, context, **options):
        env, people = make(name, **options)
        return with_context(env, people._replace(agents=people.agents[::-1]))

    with pytest.raises(ConfigError, match="its agents are others than make gives, whom the env shows to the policy"):
        load_run(tmp_path / "run", make_others)
