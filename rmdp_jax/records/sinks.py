"""TensorBoard, wandb and trackio: what is logged of a run, as series that have the same names in all of them.

A series of one number a line is named as in metrics.jsonl, one of a policy ``NAME/policy_J``, one of the last evaluation
``evaluation/NAME``; steps are transitions per policy. Each seed is a run of its own. sinks.json in the run's folder says how
far each sink has come, so that a run that goes on continues its series, and what a sink missed is made up for.
"""

import contextlib
import contextvars
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from rmdp_jax.errors import ConfigError, known_name, not_installed
from rmdp_jax.records.files import read_json, reason_of, to_json, warn, write_json

PROJECT = "rmdp_jax"  # of wandb and trackio; WANDB_PROJECT names another for both
STATE = "sinks.json"
MOST_POLICIES = 100  # that have series of their own

_NO_SERIES = ("assignment", "nonfinite_rewards_by_agent", "transitions_per_policy")
_EVALUATED = ("welfare", "welfare_standard_error", "welfare_deterministic", "upper_bound", "share_of_bound")


class RunInfo(NamedTuple):
    """What a sink learns about a run when it opens."""

    name: str  # of the run
    id: str  # the same whenever the run goes on, and no other run's
    group: str | None  # of the runs of other seeds
    folder: Path | None
    config: Mapping[str, Any]  # what config.json holds


class Log(NamedTuple):
    """An open sink."""

    add: Callable[[dict[str, float], int], None]  # values by series, and their step
    close: Callable[[], None]


class SinkKind(NamedTuple):
    """A kind of sink."""

    module: str  # that it takes
    open: Callable[[RunInfo], Log]
    needs_folder: bool = False


def series(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics by the names of their series; what is not known has none."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        if name in _NO_SERIES:
            continue
        plain = re.sub(r"[^\w./-]+", "_", name).strip("_")  # what TensorBoard takes
        if isinstance(value, list):
            short = plain.removeprefix("policy_")
            found |= {f"{short}/policy_{j}": one for j, one in enumerate(value[:MOST_POLICIES])}
        else:
            found[plain] = value
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def evaluation_series(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a result by the names of their series."""
    return series({f"evaluation/{name}": summary.get(name) for name in _EVALUATED})


def _open_tensorboard(info: RunInfo) -> Log:
    from tensorboardX import SummaryWriter

    assert info.folder is not None
    folder = info.folder / "tensorboard"
    new = not folder.exists()
    writer = SummaryWriter(str(folder))
    if new:
        writer.add_text("config", f"```\n{to_json(info.config, indent=1)}\n```", 0)

    def add(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Log(add, writer.close)


def _open_wandb(info: RunInfo) -> Log:
    import wandb

    def init(**how: Any) -> Any:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=info.name,
            group=info.group,
            id=info.id,
            resume="allow",
            reinit="create_new",
            dir=None if info.folder is None else str(info.folder),
            config=dict(info.config),
            settings=wandb.Settings(console="off", silent=True, init_timeout=30),
            **how,
        )

    if "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False):  # it would ask for a key and wait
        warn("wandb: nobody is logged in (wandb login), so it is kept offline; wandb sync uploads it")
        run = init(mode="offline")
    else:
        run = init()
    return Log(lambda values, step: run.log(values, step=step), run.finish)


def _open_trackio(info: RunInfo) -> Log:
    import trackio

    begin = partial(
        trackio.init,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=f"{info.name}-{info.id}",  # by which it is found again
        group=info.group,
        config=dict(info.config),
        resume="allow",
        embed=False,
    )

    def quietly(what: Callable[[], Any]) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            return what()

    run = quietly(lambda: contextvars.copy_context().run(begin))  # of its own, as it would end the run of another seed
    return Log(lambda values, step: run.log(values, step=step), lambda: quietly(run.finish))


SINKS = {
    "tensorboard": SinkKind("tensorboardX", _open_tensorboard, needs_folder=True),
    "wandb": SinkKind("wandb", _open_wandb),
    "trackio": SinkKind("trackio", _open_trackio),
}


def sink_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names of sinks, each once; or ConfigError where one is not known, or its package is not installed."""
    names = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in names:
        kind = known_name("log", name, SINKS)
        if find_spec(kind.module) is None:
            raise not_installed(f"log = {name!r}", kind.module, name)
    return names


def check_sinks(names: Sequence[str], folder: Path | None) -> None:
    """Raise `ConfigError` unless the sinks can be opened: `sink_names`, and there is a folder where one needs it."""
    for name in sink_names(names):
        kind = SINKS[name]
        if kind.needs_folder and folder is None:
            raise ConfigError(f"log = {name!r}: there is no folder to write to; give out")


def sinks_of(folder: Path) -> tuple[str, ...]:
    """The sinks that a run in `folder` reports to."""
    return tuple(name for name in _read_state(folder) if name in SINKS)


@dataclass
class Sinks:
    """The sinks of one run. What fails is reported once and left out from then on: no sink ends a training."""

    names: Sequence[str]
    folder: Path | None
    config: Mapping[str, Any]
    state: dict[str, Any] = field(default_factory=dict)  # what sinks.json holds: id, step and evaluated of each
    opened: dict[str, Log] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.state |= {} if self.folder is None else _read_state(self.folder)

    def tell(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Hand on the lines of metrics that a sink does not have yet."""
        for name in self.names:
            self._guarded(name, lambda known, log: _add_lines(known, log, history))

    def close(self, history: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Hand on what is missing, and the evaluation, and close."""
        self.tell(history)
        for name in self.names:
            self._guarded(name, lambda known, log: _add_evaluation(known, log, summary))
        for name, log in self.opened.items():
            self._try(name, log.close)

    def _guarded(self, name: str, hand_on: Callable[[dict[str, Any], Callable[[], Log]], None]) -> None:
        known = self.state.setdefault(name, {"id": uuid4().hex[:12], "step": 0, "evaluated": 0})

        def hand_on_and_note() -> None:
            before = dict(known)
            hand_on(known, lambda: self._open(name))
            if self.folder is not None and known != before:
                write_json(self.folder / STATE, self.state)

        if name not in self.failed:
            self._try(name, hand_on_and_note)

    def _open(self, name: str) -> Log:
        if name not in self.opened:
            run, group = _names_of(self.folder, self.config)
            info = RunInfo(run, self.state[name]["id"], group, self.folder, self.config)
            self.opened[name] = SINKS[name].open(info)
        return self.opened[name]

    def _try(self, name: str, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:
            self.failed.add(name)
            warn(f"{name}: {reason_of(error)}; nothing more is sent to it, and the run goes on")


def _add_lines(known: dict[str, Any], log: Callable[[], Log], history: Sequence[Mapping[str, Any]]) -> None:
    new = list(takewhile(lambda line: line["transitions_per_policy"] > known["step"], reversed(history)))
    for line in reversed(new):
        log().add(series(line), line["transitions_per_policy"])
        known["step"] = line["transitions_per_policy"]


def _add_evaluation(known: dict[str, Any], log: Callable[[], Log], summary: Mapping[str, Any]) -> None:
    step, values = summary["transitions_per_policy"], evaluation_series(summary)
    if step > known["evaluated"] and values:
        log().add(values, step)
        known["evaluated"] = step


def _names_of(folder: Path | None, config: Mapping[str, Any]) -> tuple[str, str | None]:
    """Name and group of a run: those of its folder, and of the folder above where it is one of several seeds."""
    if folder is None:
        return f"{config['env']}-{config['algorithm']}-k{config['train']['k']}-s{config['train']['seed']}", None
    folder = folder.absolute()
    if re.fullmatch(r"seed-\d+", folder.name):
        return f"{folder.parent.name}-{folder.name}", folder.parent.name
    seeds = re.fullmatch(r"(.+)-s\d+", folder.name)  # of a sweep
    return folder.name, seeds[1] if seeds else None


def _read_state(folder: Path) -> dict[str, Any]:
    """What sinks.json holds; nothing where it cannot be read, as series are then begun anew."""
    if not (folder / STATE).exists():
        return {}
    try:
        content = read_json(folder / STATE)
        return {
            name: {"id": str(of["id"]), **{at: int(of[at]) for at in ("step", "evaluated")}} for name, of in content.items()
        }
    except (ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        warn(f"{folder / STATE}: {reason_of(error)}; series are begun anew")
        return {}
