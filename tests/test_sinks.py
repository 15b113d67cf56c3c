"""What is logged elsewhere: real event files of TensorBoard, and stubs of what wandb and trackio document."""

import json
import struct
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
from tiny import CONFIG, K, make_tiny, stop_at

from rmdp_jax import ConfigError, plain_em, train
from rmdp_jax.records.files import RunWarning, read_lines
from rmdp_jax.records.sinks import Sinks, evaluation_series, series

STEPS = [iteration * CONFIG.sizes.transitions for iteration in (5, 10, 15, 20)]
QUICK = {"progress": False}


def events_of(folder):
    """What is in event files: (series, step, value), in the order of the files; frames as TFRecord has them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            found += [
                (value.tag, event.step, value.simple_value)
                for value in event.summary.value
                if value.tag != "config/text_summary"
            ]
    return found


class Stub:
    """A module with `init` that keeps what it and its runs are called with."""

    def __init__(self, failing=()):
        self.inits, self.lines, self.finished, self.failing = [], {}, [], failing

    def init(self, **how):
        self.inits.append(how)
        if "init" in self.failing:
            raise OSError("no network")
        name = how.get("id") or how["name"]
        lines = self.lines.setdefault(name, [])

        def log(values, step):
            if "log" in self.failing:
                raise RuntimeError("no room")
            lines.append((step, values))

        return SimpleNamespace(log=log, finish=lambda: self.finished.append(name))


def stubbed(monkeypatch, name, failing=()):
    stub, module = Stub(failing), ModuleType(name)
    module.__spec__ = SimpleNamespace()
    module.init, module.login, module.Settings = stub.init, lambda prompt, verify: True, lambda **how: how
    monkeypatch.setitem(sys.modules, name, module)
    return stub


def test_series_are_numbers_by_name():
    line = {"welfare": 3.5, "policy_sizes": [1, 3], "entropy": [0.5, None], "mean['speed']": [1.0, 2.0]}
    line |= {"assignment": [0, 1], "softness": None, "transitions_per_policy": 32}
    assert series(line) == {
        "welfare": 3.5,
        "sizes/policy_0": 1.0,
        "sizes/policy_1": 3.0,
        "entropy/policy_0": 0.5,
        "mean_speed/policy_0": 1.0,
        "mean_speed/policy_1": 2.0,
    }
    assert evaluation_series({"welfare": 2.0, "k": 3, "upper_bound": None}) == {"evaluation/welfare": 2.0}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after its second line and went on to its end; trackio failed until then."""
    folder, task, assigner = tmp_path_factory.mktemp("sinks") / "run", make_tiny(), plain_em(CONFIG.k, CONFIG.n)
    how = {"out": folder, "log": ["tensorboard", "trackio"], **QUICK}
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        stub = stubbed(monkeypatch, "trackio", {"log"})
        train(*task, CONFIG, assigner, on_metrics=stop_at(10), **how)
        after_stop, stub.failing = events_of(folder / "tensorboard"), ()
        result = train(*task, CONFIG, assigner, resume=True, **how)
    warned = [str(warning.message) for warning in warned if warning.category is RunWarning]
    return SimpleNamespace(folder=folder, after_stop=after_stop, result=result, trackio=stub, warned=warned)


def test_event_files_hold_every_line_once(stopped):
    folder, after_stop, result = stopped.folder, stopped.after_stop, stopped.result
    lines = read_lines(folder / "metrics.jsonl")
    again = Sinks(["tensorboard"], folder, {})  # as of a finished run that is started again
    again.tell(lines)
    again.close(lines, result.summary)
    events = events_of(folder / "tensorboard")
    assert [step for name, step, _ in events if name == "welfare"] == STEPS
    written = {(name, step): value for name, step, value in events}
    assert len(written) == len(events)  # nothing twice
    for line in lines:
        for name, value in series(line).items():
            assert written[name, line["transitions_per_policy"]] == pytest.approx(value, rel=1e-6)
    assert {f"utility/policy_{j}" for j in range(K)} <= {name for name, *_ in events}
    evaluated = {(name, step) for name, step, _ in after_stop if name.startswith("evaluation/")}
    assert ("evaluation/welfare", STEPS[1]) in evaluated  # of the run that was stopped
    assert written["evaluation/welfare", STEPS[-1]] == pytest.approx(result.summary["welfare"], rel=1e-6)


def test_a_run_remembers_its_sinks(stopped):
    from rmdp_jax.commands.train import settings_of

    state = json.loads((stopped.folder / "sinks.json").read_text())
    assert state["tensorboard"]["step"] == state["tensorboard"]["evaluated"] == STEPS[-1]
    assert settings_of(stopped.folder)["log"] == ("tensorboard", "trackio")


def test_a_sink_that_fails_is_told_once_and_made_up_for(stopped):
    assert stopped.warned == ["trackio: no room; nothing more is sent to it, and the run goes on"]
    assert stopped.result.summary["finished"]
    (lines,) = stopped.trackio.lines.values()
    assert [step for step, _ in lines] == [*STEPS, STEPS[-1]]
    assert len(stopped.trackio.inits) == 2  # once a process
    assert stopped.trackio.inits[0]["name"] == stopped.trackio.inits[1]["name"]


@pytest.mark.parametrize("content", ["[]", '{"trackio": {}}', "{"])
def test_a_damaged_sinks_json_is_told(tmp_path, content):
    (tmp_path / "sinks.json").write_text(content)
    with pytest.warns(RunWarning, match="series are begun anew"):
        assert Sinks(["trackio"], tmp_path, {}).state == {}


def test_wandb_and_trackio_get_the_same_series_of_every_seed(tmp_path, monkeypatch):
    wandb, trackio = stubbed(monkeypatch, "wandb"), stubbed(monkeypatch, "trackio")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assigner = plain_em(CONFIG.k, CONFIG.n)
    results = train(*make_tiny(), CONFIG, assigner, seeds=2, out=tmp_path / "first", log=["wandb", "trackio"], **QUICK)
    assert [how["name"] for how in wandb.inits] == ["first-seed-3", "first-seed-4"]
    for stub, resume in ((wandb, {"reinit": "create_new"}), (trackio, {"embed": False})):
        assert [{name: how[name] for name in ("project", "group", "resume", *resume)} for how in stub.inits] == [
            {"project": "rmdp_jax", "group": "first", "resume": "allow", **resume}
        ] * 2
        assert [how["config"]["train"]["seed"] for how in stub.inits] == [3, 4]
        for lines, result in zip(stub.lines.values(), results, strict=True):
            written = read_lines(tmp_path / "first" / f"seed-{result.summary['seed']}" / "metrics.jsonl")
            steps = [line["transitions_per_policy"] for line in written]
            expected = list(zip(steps, map(series, written), strict=True))
            assert lines == [*expected, (steps[-1], evaluation_series(result.summary))]
        assert stub.finished == list(stub.lines)
    ids = [how["id"] for how in wandb.inits]
    assert len(set(ids)) == 2
    states = [json.loads((tmp_path / "first" / f"seed-{seed}" / "sinks.json").read_text()) for seed in (3, 4)]
    assert [state["wandb"]["id"] for state in states] == ids
    assert [how["name"] for how in trackio.inits] == [
        f"first-seed-{seed}-{state['trackio']['id']}" for seed, state in zip((3, 4), states, strict=True)
    ]


def test_a_sink_that_cannot_be_opened_is_told_once(tmp_path, monkeypatch, recwarn):
    stub = stubbed(monkeypatch, "trackio", {"init"})
    sinks = Sinks(["trackio"], tmp_path, {})
    lines = [{"transitions_per_policy": step, "welfare": 1.0} for step in STEPS]
    sinks.tell(lines[:1])
    sinks.tell(lines)
    sinks.close(lines, {"transitions_per_policy": STEPS[-1], "welfare": 1.0})
    warned = [str(warning.message) for warning in recwarn if warning.category is RunWarning]
    assert warned == ["trackio: no network; nothing more is sent to it, and the run goes on"]
    assert len(stub.inits) == 1


def test_without_a_login_wandb_is_kept_offline(monkeypatch):
    from rmdp_jax.records.sinks import SINKS, RunInfo

    stub = stubbed(monkeypatch, "wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sys.modules["wandb"].login = lambda prompt, verify: prompt
    with pytest.warns(RunWarning, match="nobody is logged in"):
        SINKS["wandb"].open(RunInfo("run", "1", None, None, {}))
    assert stub.inits[0]["mode"] == "offline"


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (["tensorbord"], "log = 'tensorbord' is not known; did you mean 'tensorboard'"),
        (["tensorboard"], "log = 'tensorboard': there is no folder to write to; give out"),
        (["wandb"], r"log = 'wandb': takes wandb, which is not installed; pip install 'rmdp-jax\[wandb\]'"),
    ],
)
def test_what_cannot_be_logged_to_is_refused(monkeypatch, log, message):
    monkeypatch.setattr("rmdp_jax.records.sinks.find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(ConfigError, match=message):
        train(*make_tiny(), CONFIG, log=log, **QUICK)
