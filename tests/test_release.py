"""A release reads like its run, is checked when it is loaded, and its address on a hub is taken like a folder."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_cli import refused
from tiny import CONFIG, assert_same, make_tiny

from rmdp_jax import ConfigError, em, make_act, train
from rmdp_jax.commands.cli import main
from rmdp_jax.commands.tables import _describe_verified
from rmdp_jax.deploy.model_card import model_card
from rmdp_jax.deploy.release import write_release
from rmdp_jax.envs import make
from rmdp_jax.records.files import write_json
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.given import given_policies, load_members
from rmdp_jax.records.loading import load_run
from rmdp_jax.records.places import outputs_folder, run_folder
from rmdp_jax.records.verification import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A run whose policies are partly from its archive, and its release."""
    folder = tmp_path_factory.mktemp("release")
    env, population = make_tiny()
    train(env, population, CONFIG, em(CONFIG.k, CONFIG.n), out=folder / "run", progress=False)
    result = folder / "run" / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"policies_from": [1, 2]}))  # 2: the first of the archive
    run = load_run(folder / "run", make)
    return run, write_release(run, folder / "small"), folder


def test_a_release_reads_like_its_run(released):
    run, written, _ = released
    small = load_run(written.folder, make)
    assert_same(small.policies, run.policies)
    np.testing.assert_array_equal(small.assignment, run.assignment)
    assert small.config == run.config
    assert small.result["welfare"] == run.result["welfare"]
    assert written.size < 60_000 < 10 * sum(path.stat().st_size for path in run.folder.path.rglob("*") if path.is_file())
    leaks = [
        path
        for path in written.folder.rglob("*")
        if path.is_file() and str(written.folder.parent).encode() in path.read_bytes()
    ]
    assert leaks == []  # nothing says where on this machine it was made
    card = (written.folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: rmdp-jax\n")
    assert f"{run.result['welfare']:.2f} ± {run.result['welfare_standard_error']:.2f}" in card


def test_a_release_of_very_many_agents_has_their_arrays(released, tmp_path):
    run, _, _ = released
    folder = tmp_path / "run"
    shutil.copytree(run.folder.path, folder)
    result = RunFolder(folder).read_result()
    RunFolder(folder).write_result({**result, **{name: np.asarray(result[name]) for name in ("assignment", "utility")}})
    written = write_release(load_run(folder, make), tmp_path / "small")
    np.testing.assert_array_equal(load_run(written.folder, make).assignment, run.assignment)


def test_the_card_says_on_whose_terms_welfare_is(released):
    run, _, _ = released
    terms = run._replace(result={**run.result, "welfare_p": "-inf", "at_most": 2})
    card = model_card(terms, run.folder.read_config())
    assert "welfare, p-mean of returns, p = -inf of the 4 agents, with at most 2 agents a policy, of 100" in card
    assert "mean return" not in card
    assert "mean_reward" not in card
    assert "| proved upper bound for k = 2 without limits |" in card
    diverged = run._replace(result={**run.result, "welfare": None})
    described = run.folder.read_config()
    in_context = {**described, "env_options": {**described["env_options"], "context": True}}
    card = model_card(diverged, in_context)
    assert "model-index" not in card
    assert f"| proved upper bound for k = {run.config.n} |" in card


def test_the_release_among_the_examples_is_whole():
    run = load_run(Path(__file__).parent.parent / "examples" / "resource_gathering_k3", make)
    assert (run.config.k, run.config.n, run.iteration) == (3, 25, run.config.iterations)
    assert sum(path.stat().st_size for path in run.folder.path.rglob("*")) < 200_000
    act = make_act(run.env, run.config)
    _, obs = run.env.reset(jax.random.key(0))
    assert {int(act(run.policies, j, obs)) for j in range(3)} <= set(range(run.env.spec.action_size))


@pytest.mark.parametrize("name", ["result.json", "agents.npz", "README.md"])
def test_a_changed_file_is_noticed(released, tmp_path, name):
    shutil.copytree(released[1].folder, tmp_path / "small")
    with (tmp_path / "small" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ConfigError, match=f"{name}: is not what was written; bring it back, or download the release again"):
        load_run(tmp_path / "small", make)


def test_evaluate_tells_whether_a_release_agrees(released, tmp_path, capsys):
    main(["evaluate", str(released[1].folder)])
    assert "agrees (" in capsys.readouterr().out
    assert max(map(len, capsys.readouterr().out.splitlines()), default=0) <= 80
    result = released[0].result
    other = dict(result, welfare=result["welfare"] + 60.0)
    write_json(shutil.copytree(released[0].folder.path, tmp_path / "other") / "result.json", other)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(tmp_path / "other")])
    assert stop.value.code == 1
    assert "DOES NOT AGREE" in capsys.readouterr().out
    fresh = SimpleNamespace(welfare=result["welfare"] + 5.0, standard_error=1.2)
    verified = verify({"welfare": result["welfare"], "welfare_standard_error": 0.9}, fresh, deterministic=False)
    assert verified.standard_errors == pytest.approx(5.0 / 1.5)
    assert not verified.agrees
    by_mode = SimpleNamespace(welfare=result["welfare_deterministic"] + 4.0, standard_error=1.0)
    assert not verify(result, by_mode, deterministic=True, recorded_by=64, episodes=64).standard_errors > 4.0
    assert verify(result, by_mode, deterministic=True, recorded_by=16, episodes=64).standard_errors == pytest.approx(4 / 5**0.5)
    exact = {"welfare_deterministic": 3.0, "welfare_standard_error": 0.0}
    assert verify(exact, SimpleNamespace(welfare=3.0, standard_error=0.0), deterministic=True).agrees
    assert not verify(exact, SimpleNamespace(welfare=3.1, standard_error=0.0), deterministic=True).agrees
    assert verify(exact, SimpleNamespace(welfare=float("nan"), standard_error=0.0), deterministic=True) is None
    unknown = verify(exact, SimpleNamespace(welfare=3.1, standard_error=float("nan")), deterministic=True)
    assert (unknown.standard_errors, unknown.agrees) == (None, None)  # of one episode
    assert "nobody can tell" in _describe_verified(**unknown._asdict())


def test_policies_of_a_release_may_be_given_to_a_run(released):
    run, written, _ = released
    named = [(written.folder, 1), (written.folder, 0)]
    member = load_members(run.env, run.config, given_policies(run.env, run.config, frozen=named[:1], start=named[1:]))
    for given, own in zip(jax.tree.leaves(member.params), jax.tree.leaves(run.policies.params.own), strict=True):
        np.testing.assert_array_equal(given, np.asarray(own)[::-1])
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(member.opt_state) if np.ndim(leaf) > 1)  # an optimiser that is new


def test_training_does_not_go_on_from_a_release(released, capsys):
    message = refused(["train", str(released[1].folder), "--resume"], capsys)
    assert message.startswith(f"out = {released[1].folder}: is a release, whose training cannot go on")


def test_a_release_goes_to_a_new_folder(released, capsys):
    _, written, folder = released
    message = refused(["release", str(folder / "run"), "--out", str(written.folder)], capsys)
    assert message == f"out = {written.folder}: is there already; choose another folder, or remove it"


@pytest.mark.parametrize(
    ("address", "repository", "revision", "folder", "named"),
    [
        ("hf://somebody/walks", "somebody/walks", None, "", "somebody--walks"),
        (Path("hf://somebody/walks@v1/k5"), "somebody/walks", "v1", "k5", "somebody--walks--v1--k5"),
        ("https://huggingface.co/somebody/walks", "somebody/walks", None, "", "somebody--walks"),
        (
            Path("https://huggingface.co/somebody/walks/tree/v1/a/k5"),
            "somebody/walks",
            "v1",
            "a/k5",
            "somebody--walks--v1--a--k5",
        ),
    ],
)
def test_an_address_of_the_hub_is_downloaded(monkeypatch, tmp_path, address, repository, revision, folder, named):
    called = []

    def snapshot_download(repo_id, **how):
        called.append((repo_id, how))
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download, __spec__=1))
    assert run_folder("run", address) == tmp_path / folder
    assert called == [(repository, {"revision": revision, "allow_patterns": [f"{folder}/*"] if folder else None})]
    assert outputs_folder("run", address) == Path("runs") / named  # not into the cache of downloads


def test_a_snapshot_of_links_is_read(released, monkeypatch, tmp_path):
    """As huggingface_hub keeps it: files are links to others, named by their content."""
    for number, name in enumerate(released[1].files):
        blob, link = tmp_path / f"blobs/{number}", tmp_path / "snapshot" / name
        blob.parent.mkdir(exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(released[1].folder / name, blob)
        link.symlink_to(blob)
    download = SimpleNamespace(snapshot_download=lambda *_, **__: str(tmp_path / "snapshot"), __spec__=1)
    monkeypatch.setitem(sys.modules, "huggingface_hub", download)
    assert_same(load_run("hf://somebody/walks", make).policies, released[0].policies)
    before = sorted((tmp_path / "snapshot").rglob("*"))
    monkeypatch.chdir(tmp_path)
    main(["report", "hf://somebody/walks"])
    assert list((tmp_path / "runs/somebody--walks").glob("*.png"))
    assert sorted((tmp_path / "snapshot").rglob("*")) == before  # a cache stays what was downloaded


@pytest.mark.parametrize("address", ["hf://walks", "hf://a/b/../c", "hf://", "hf://a b/c"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConfigError, match=r"must be hf://USER/NAME, hf://USER/NAME@REVISION or hf://USER/NAME/FOLDER"):
        run_folder("run", address)


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch, capsys):
    def snapshot_download(*_, **__):
        raise ConnectionError("no network\nand much more")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download, __spec__=1))
    assert refused(["evaluate", "hf://a/b"], capsys) == "run = hf://a/b: cannot be downloaded (no network)"
    monkeypatch.setattr("rmdp_jax.records.places.find_spec", lambda name: None)
    assert "pip install 'rmdp-jax[hub]'" in refused(["evaluate", "hf://a/b"], capsys)


@pytest.mark.parametrize("name", ["make", "env"])
def test_code_that_a_release_on_the_hub_names_is_not_run(monkeypatch, tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps({"env": "x", name: "os:system", "env_options": {"command": "true"}}))
    download = SimpleNamespace(snapshot_download=lambda *_, **__: str(tmp_path), __spec__=1)
    monkeypatch.setitem(sys.modules, "huggingface_hub", download)
    with pytest.raises(ConfigError, match="its task is made by 'os:system', code that would be run here"):
        run_folder("run", "hf://somebody/walks")


def test_a_folder_under_runs_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "config.json").touch()
    assert run_folder("run", "first") == Path("runs/first")
    assert run_folder("run", "second") == Path("second")
    (tmp_path / "first").mkdir()
    assert run_folder("run", "first") == Path("first")
