"""The dossier of a run: every figure again from episodes.npz, the schema, and a page that needs nothing from outside."""

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats
from tiny import CONFIG, K, N, make_tiny

from rmdp_jax import ConfigError, plots, random_even, train
from rmdp_jax.commands.cli import main
from rmdp_jax.deploy.export import export_run
from rmdp_jax.dossier.behaviour import describe_episodes, describe_outcomes
from rmdp_jax.dossier.describe import dossier
from rmdp_jax.dossier.page import render
from rmdp_jax.dossier.people import BETTER, SURE, read_own, serve
from rmdp_jax.dossier.pictures import Pictures, draw
from rmdp_jax.dossier.scores import Scores, score_run
from rmdp_jax.dossier.stability import Beside
from rmdp_jax.envs import make
from rmdp_jax.evaluation.episodes import Episodes
from rmdp_jax.records.files import to_json
from rmdp_jax.records.loading import load_run

TYPED = "<script>alert(1)</script>"
E = CONFIG.evaluation_episodes
SPEC = make_tiny()[0].spec


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    train(*make_tiny(), CONFIG, random_even(K, N), out=folder, progress=False)
    return load_run(folder, make)


@pytest.fixture(scope="module")
def described(run):
    return dossier(run)


@pytest.fixture(scope="module")
def returns(run):
    """Of every agent in every episode (k, e, n) of 100, by hand: pay at the end of a walk that stood on the agent's cell."""
    with np.load(run.folder.path / "episodes.npz") as kept:
        pay, visited, alive = kept["outcome.pay"], kept["outcome.visited"], kept["alive"]
    last = alive.sum(2) - 1
    paid = np.take_along_axis(pay, last[..., None], 2)
    return 100.0 * paid * np.take_along_axis(visited, last[..., None, None], 2)[:, :, 0, :N].astype(float)


def worst_tenth(values):
    """Mean of the lowest tenth of so many values, one at its edge in part."""
    values, left = np.sort(np.ravel(values)), np.size(values) / 10
    shares = np.clip(left - np.arange(len(values)), 0, 1)
    return values @ shares / left


def close(given, by_hand):
    np.testing.assert_allclose(np.array(given, float), by_hand, rtol=2e-5, atol=1e-4)


def test_figures_of_agents_are_those_of_the_episodes(run, described, returns):
    agents, labels = described["agents"], run.assignment
    assert returns.std(1).max() > 0  # there is something to be unsure of
    assert agents["policy"] == labels.tolist()
    for i in range(N):
        own, other = returns[labels[i], :, i], returns[1 - labels[i], :, i]
        close(agents["return"][i], own.mean())
        close((agents["low"][i], agents["high"][i]), stats.t.interval(0.95, E - 1, own.mean(), stats.sem(own)))
        close(agents["margin"][i], own.mean() - other.mean())
        if own.std() + other.std() > 0:
            ends = stats.ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
            close((agents["margin_low"][i], agents["margin_high"][i]), ends)
            verdict = "sure" if ends.low > 0 else "better elsewhere" if ends.high < 0 else "open"
            assert agents["verdict"][i] == verdict
    assert agents["second"] == (1 - labels).tolist()
    close(agents["to_bound"], np.array([96.0, 98.0, 98.0, 99.0]) - agents["return"])  # of the shortest walks
    assert agents["columns"] == {"cell": [0, 1, 2, 3]}


def test_policies_that_are_alike_are_seldom_surely_better_than_each_other():
    k, n, number = 5, 20_000, 30
    draws = np.random.default_rng(0).normal(50.0, 10.0, (k, n, number))
    scores = Scores(draws.mean(-1), draws.std(-1, ddof=1), None, None, SimpleNamespace(episodes=draws), None)
    scores = scores._replace(kept=SimpleNamespace(episodes=SimpleNamespace(number=number)))
    served = serve(SimpleNamespace(assignment=np.arange(n) % k, config=SimpleNamespace(k=k, n=n)), scores)
    assert 0.01 < (served.verdict == BETTER).mean() < 0.025  # 7% by the interval of one margin
    assert (served.verdict == SURE).mean() < 0.025


def test_figures_of_policies_are_those_of_the_episodes(run, described, returns):
    for j, policy in enumerate(described["policies"]):
        mine, theirs = (returns[o][:, run.assignment == j] for o in (j, 1 - j))
        found, by_episode = policy["returns"], mine.mean(1)
        close(found["mean"], mine.mean())
        close((found["low"], found["high"]), stats.t.interval(0.95, E - 1, mine.mean(), stats.sem(by_episode)))
        close(found["agents"]["worst_tenth"], worst_tenth(mine.mean(0)))
        assert found["single_episodes"]["number"] == mine.size
        close(found["single_episodes"]["worst_tenth"], worst_tenth(mine))
        (other,) = policy["others"]
        ends = stats.ttest_ind(by_episode, theirs.mean(1), equal_var=False).confidence_interval(0.95)
        close((other["policy"], other["loss"], other["low"], other["high"]), (1 - j, mine.mean() - theirs.mean(), *ends))
        assert other["better_for"] == (theirs.mean(0) > mine.mean(0)).sum()
        close(policy["without"]["mean"], theirs.mean())
        assert (
            sum(policy["sureness"][name] for name in ("sure", "open", "better_elsewhere")) == policy["agents"] == mine.shape[1]
        )


def test_agents_of_weight_count_more(run, returns):
    weights = np.array([1.0, 5.0, 2.0, 3.0])
    heavy = run._replace(population=run.population._replace(weights=jnp.asarray(weights, jnp.float32)))
    found = dossier(heavy)
    assert found["agents"]["weight"] == weights.tolist()
    for j, policy in enumerate(found["policies"]):
        own = run.assignment == j
        close(policy["returns"]["mean"], returns[j][:, own].mean(0) @ weights[own] / weights[own].sum())
        close(policy["share_of_weight"], weights[own].sum() / weights.sum())


def test_steps_falls_and_divergences_are_counted():
    """Four of at most 5 steps: a whole one, one that falls after 2, one that breaks at its third, one that breaks last."""
    lengths, broken = np.array([5, 2, 3, 5]), np.zeros((1, 4, 5), bool)
    broken[0, 2, 2] = broken[0, 3, 4] = broken[0, 1, 4] = True  # the last of them is padding
    alive = np.arange(5) < lengths[:, None]
    speed = np.where(alive, 2.0, 99.0) + np.where(broken[0], 1e6, 0.0)
    episodes = Episodes({"speed": speed[None]}, alive[None], broken)
    hopper, cheetah = (SPEC._replace(name=name) for name in ("hopper_speed", "halfcheetah_speed"))
    found = describe_episodes(episodes, 0, hopper)
    assert (found["number"], found["steps"]["least"], found["steps"]["most"], found["steps"]["mean"]) == (4, 2, 5, 3.75)
    assert (found["falls"]["number"], found["falls"]["share"]) == (1, 0.25)
    assert found["diverged"]["number"] == 2
    assert found["falls"]["low"] == pytest.approx(0.0456, abs=1e-3)  # Wilson's for 1 of 4
    assert describe_episodes(episodes, 0, cheetah)["falls"] is None  # it cannot
    (outcome,) = describe_outcomes(episodes, 0, hopper)
    assert (outcome["name"], outcome["unit"], outcome["mean"], outcome["last"]) == ("speed", "m/s", 2.0, 2.0)
    for spec in (SPEC, hopper._replace(make="mine:hopper_speed")):  # a task of one's own, whatever its name
        assert describe_outcomes(episodes, 0, spec)[0]["unit"] is None
        assert describe_episodes(episodes, 0, spec)["falls"] is None


def test_what_stands_out_is_said(run):
    alone = dossier(run._replace(assignment=np.zeros(N, np.int32)))
    assert alone["policies"][1]["notes"] == ["It serves nobody."]
    assert alone["policies"][1]["returns"] is None
    worst = run._replace(assignment=score_run(run).utility.argmin(0).astype(np.int32))
    worst = dossier(worst, scores=score_run(worst)._replace(deviation=np.full((K, N), 1e-3)))  # as of very many episodes
    surely = sum(policy["sureness"]["better_elsewhere"] for policy in worst["policies"] if policy["agents"])
    assert surely == sum(verdict == "better elsewhere" for verdict in worst["agents"]["verdict"]) > 0
    assert any("would surely be better served by another" in note for one in worst["policies"] for note in one["notes"])


def test_the_hash_is_that_of_exported_parameters(run, described, tmp_path):
    export_run(run, tmp_path, ["safetensors"])
    layers = [f"{part}_{i}" for i in range(len(CONFIG.sizes.hidden) + 1) for part in ("weight", "bias")]
    for policy in described["policies"]:
        arrays, digest = load_file(tmp_path / f"policy_{policy['policy']}.safetensors"), hashlib.sha256()
        names = [name for name in ("observation_mean", "observation_std", "observation_clip") if name in arrays] + layers
        assert sorted(names) == sorted(arrays)
        for name in names:
            digest.update(f"{name} {' '.join(map(str, arrays[name].shape))}\n".encode() + arrays[name].tobytes())
        assert policy["parameters"] == {"number": sum(x.size for x in arrays.values()), "sha256": digest.hexdigest()}
    assert described["policies"][0]["parameters"]["sha256"] != described["policies"][1]["parameters"]["sha256"]


def test_files_have_the_checksums_that_are_told(run, described):
    assert set(described["files"]) == {"config.json", "agents.npz", "metrics.jsonl", "result.json", "episodes.npz"}
    for name, one in described["files"].items():
        content = (run.folder.path / name).read_bytes()
        assert one == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture(scope="module")
def schema():
    schema = json.loads((files("rmdp_jax.dossier") / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def without_episodes(run):
    """As of a task whose episodes are for one agent alone."""
    return run._replace(env=run.env._replace(for_agent=lambda agent: run.env))


def test_the_json_holds_the_schema(run, described, schema):
    other = Beside("second", run.result, 1 - run.assignment)
    for content in (described, dossier(run, [other]), dossier(without_episodes(run))):
        jsonschema.validate(json.loads(to_json(content)), schema)
    for broken in ({**described, "other": 1}, {**described, "welfare": 1.0}, {**described, "policies": [{"policy": 0}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(to_json(broken)), schema)


def test_a_task_that_keeps_no_episodes_has_what_the_result_says(run):
    bare = without_episodes(run)
    found = dossier(bare)
    assert found["episodes"]["number"] == 0
    assert found["episodes"]["reason"] == "an episode is for one agent alone"
    assert found["agents"]["low"] is found["agents"]["verdict"] is None
    close(found["agents"]["return"], run.result["utility"][run.assignment, np.arange(N)])
    text = render(found, draw(bare, found, score_run(bare), animations=True))
    assert "There are no intervals" in text
    assert "none fell or diverged" not in text
    assert "surely has the best policy" not in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text))


class Attributes(HTMLParser):
    """All tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [(tag, *one) for one in attributes]


@pytest.fixture(scope="module")
def page(run, described):
    return render(described, draw(run, described, score_run(run), animations=True))


def test_the_page_needs_nothing_from_outside(page):
    read = Attributes(page)
    assert "script" not in read.tags
    assert read.tags.count("img") == 5 + 3 * K  # of the run, and of each policy
    targets = [value for _, name, value in read.found if name in ("src", "href", "srcset", "action", "data")]
    assert targets
    assert all(value.startswith(("data:", "#")) for value in targets)
    assert not re.search(r"https?://|@import|url\(|\son\w+=", page)
    ids = [value for _, name, value in read.found if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in targets if value.startswith("#")} <= set(ids)
    assert all(value for tag, name, value in read.found if (tag, name) == ("img", "alt"))
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_pictures_are_the_same_every_time():
    first, again, other = (plots.to_svg(plots.served_agents(x, "#00a3ff", [1.0, 2.0])) for x in ([3, 4], [3, 4], [3, 5]))
    assert first == again != other
    assert b"<dc:date" not in first


def test_names_are_text_whatever_they_hold(run, tmp_path):
    """Of a task of one's own, too, which draws nothing itself."""
    spec = run.env.spec._replace(name=TYPED)
    (tmp_path / "people.csv").write_text("id,group,cell\n" + "".join(f"{TYPED},{TYPED},{i}\n" for i in range(N)))
    table = read_own(tmp_path / "people.csv", run)
    typed = run._replace(
        env=run.env._replace(spec=spec), result={**run.result, "env": TYPED, "device": TYPED, "algorithm": TYPED}
    )
    found = dossier(typed, [Beside(TYPED, typed.result, run.assignment)], table)
    assert found["fairness"]["groups"][TYPED]["agents"] == N
    text = render(found, draw(typed, found, score_run(typed), animations=True))
    assert "script" not in Attributes(text).tags
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "<script" not in text


def test_the_command_writes_page_and_data(run, tmp_path, capsys):
    main(["dossier", str(run.folder.path), "--out", str(tmp_path / "new"), "--no-animations"])
    said = capsys.readouterr().out
    assert f"dossier  {tmp_path / 'new' / 'dossier.html'} (" in said
    written = json.loads((tmp_path / "new" / "dossier.json").read_text())
    assert written == json.loads(to_json(dossier(run)))
    assert (tmp_path / "new" / "dossier.html").stat().st_size < 1_500_000
    load_run(run.folder.path, make)  # nothing was changed there


def test_an_unfinished_run_is_refused_from_python_too(run):
    with pytest.raises(ConfigError, match=r"was stopped early, at iteration 20; end it with rmdp-jax train DIR --resume"):
        dossier(run._replace(result={**run.result, "finished": False}))


def test_scoring_in_blocks_changes_nothing(run, described, monkeypatch):
    monkeypatch.setattr("rmdp_jax.running.assign.BLOCK", 2)
    found = dossier(run)
    close(found["agents"]["low"], described["agents"]["low"])
    for one, other in zip(found["policies"], described["policies"], strict=True):
        close(one["returns"]["low"], other["returns"]["low"])


def test_one_policy_has_no_second_best(run, schema):
    first = run.policies._replace(
        params=run.policies.params._replace(own=jax.tree.map(lambda x: x[:1], run.policies.params.own)),
        statistics=jax.tree.map(lambda x: x[:1], run.policies.statistics),
    )
    alone = run._replace(
        config=replace(run.config, k=1),
        assignment=np.zeros(N, np.int32),
        policies=first,
        result={**run.result, "k": 1, "utility": run.result["utility"][:1]},
    )
    found = dossier(alone, scores=score_run(run)._replace(utility=run.result["utility"][:1]))
    assert found["agents"]["margin"] is found["policies"][0]["sureness"] is found["policies"][0]["without"] is None
    assert found["policies"][0]["others"] == []
    jsonschema.validate(json.loads(to_json(found)), schema)
    text = render(found, Pictures([], [[]], None))
    assert "<th>margin" not in text
    assert "1 policy serves" in text
