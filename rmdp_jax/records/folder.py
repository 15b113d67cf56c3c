"""A run's folder: config.json, metrics.jsonl, result.json, checkpoints/ and pictures. All reading and writing is here.

Of more than `LARGEST_LISTED` agents, result.json names a file beside it, result.npz, in place of what it would list of each.
"""

import json
import os
import platform
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmdp_jax.config import Rates, Sizes, TrainConfig
from rmdp_jax.errors import ConfigError

FORMAT = 1  # of config.json and result.json; raised when a reader of older files would misread newer ones

LARGEST_LISTED = 10_000  # agents

_ARRAYS = ("assignment", "utility")  # of result.json, one entry per agent
_MAY_CHANGE_ON_RESUME = ("transitions", "log_every", "checkpoint_every", "evaluation_episodes")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run and what is in them."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of orbax checkpoints."""
        return self.path / "checkpoints"

    def read_config(self) -> dict[str, Any]:
        """config.json: format, env, env_options, algorithm, backend, train (a TrainConfig as a dict)."""
        return self._read("config.json")

    def read_result(self) -> dict[str, Any]:
        """result.json, which names a file of `arrays` instead of holding them for very many agents; see `read_arrays`."""
        return self._read("result.json")

    def read_arrays(self) -> dict[str, np.ndarray]:
        """What result.json says of each agent, or the file that it names: assignment (n,) int32, utility (k, n)."""
        result = self.read_result()
        if "arrays" not in result:
            return {"assignment": np.asarray(result["assignment"], np.int32), "utility": np.asarray(result["utility"])}
        path = self.path / result["arrays"]
        try:
            with np.load(path) as arrays:
                return {"assignment": arrays["assignment"].astype(np.int32), "utility": arrays["utility"]}
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); train again, or bring it back") from None

    def read_metrics(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; a last line that was cut off in writing is left out."""
        return read_lines(self.path / "metrics.jsonl")

    def previous_timing(self) -> dict[str, Any]:
        """What an earlier result says of how long training took; nothing where there is none."""
        if not (self.path / "result.json").exists():
            return {}
        result = self.read_result()
        names = ("wall_s", "compile_s", "transitions_per_s", "runs_together", "devices")
        return {name: result[name] for name in names if name in result}

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        append_line(self.path / "metrics.jsonl", line)

    def write_config(self, content: dict[str, Any]) -> None:
        """Write config.json."""
        self._write("config.json", content)

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        write_lines(self.path / "metrics.jsonl", lines)

    def write_result(self, content: dict[str, Any]) -> None:
        """Write result.json, and what it holds of each agent beside it where that is an array; see `listed`."""
        arrays = {name: content[name] for name in _ARRAYS if isinstance(content[name], np.ndarray)}
        if arrays:
            temporary = self.path / "result.part.npz"  # np.savez wants this ending
            np.savez(temporary, **arrays)
            temporary.replace(self.path / "result.npz")
        self._write("result.json", plain_result(content))

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not os.path.exists(path):  # which a name that is too long does not either, where Path.exists raises
            raise ConfigError(f"out = {self.path}: holds no {name}, so it is not the folder of a finished run")
        try:
            content = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: is not JSON ({error}); train again into another folder") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else None
            raise ConfigError(f"{path}: has format {found}, this version reads {FORMAT}; train again with this version")
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.path / (name + ".part")
        temporary.write_text(json.dumps({"format": FORMAT, **content}, indent=1) + "\n")
        temporary.replace(self.path / name)


def listed(values: np.ndarray) -> list[Any] | np.ndarray:
    """Values (..., n) as JSON lists them, or as they are where n is too large for a text."""
    return values.tolist() if values.shape[-1] <= LARGEST_LISTED else values


def plain_result(content: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON takes it: without the arrays of very many agents, but with the name of their file."""
    plain = {name: value for name, value in content.items() if not isinstance(value, np.ndarray)}
    return plain if len(plain) == len(content) else {**plain, "arrays": "result.npz"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON lines file, none where there is no file; a last line that was cut off in writing is left out.

    Raises:
        ConfigError: the file cannot be read, or another line is not JSON.
    """
    try:
        texts = path.read_text().splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    whole = []
    for number, text in enumerate(texts, 1):
        try:
            whole.append(json.loads(text))
        except json.JSONDecodeError:
            if number < len(texts):
                raise ConfigError(f"{path}: line {number} is not JSON; remove it") from None
    return whole


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one line to a JSON lines file."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write a JSON lines file anew."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def check_run(path: Path, resume: bool) -> None:
    """Raise `ConfigError` where `open_run` would, as far as can be settings before there is an assigner."""
    try:
        if resume:
            RunFolder(path).read_config()
        elif path.is_dir() and any((path / name).exists() for name in ("result.json", "metrics.jsonl")):
            raise ConfigError(f"out = {path}: already holds a run; choose another folder, or --resume to go on with it")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise ConfigError(f"out = {path}: cannot be written ({error.strerror or error}); choose another folder") from None


def open_run(path: Path, config: dict[str, Any], resume: bool, writes: bool = True) -> RunFolder:
    """Make or re-enter a run's folder before anything expensive happens.

    Args:
        path: the folder; made with its parents.
        config: what config.json is to hold.
        resume: go on with the run that is there instead of refusing it.
        writes: this process is the one that writes.

    Raises:
        ConfigError: the folder holds another run, cannot be written, or holds nothing to resume.
    """
    check_run(path, resume)
    folder = RunFolder(path)
    if resume:
        _check_same_run(folder, config)
    if writes:
        folder.write_config(config)
    return folder


def load_train_config(content: dict[str, Any]) -> TrainConfig:
    """The `TrainConfig` of a config.json.

    Raises:
        ConfigError: a field is unknown or breaks its rule.
    """
    train = dict(content["train"])
    try:
        sizes = Sizes(**{**train.pop("sizes"), "hidden": tuple(content["train"]["sizes"]["hidden"])})
        rates: dict[str, Any] = train.pop("rates")
        for name in ("learning_rate", "entropy"):
            rates[name] = tuple(rates[name])
        return TrainConfig(**train, sizes=sizes, rates=Rates(**rates))
    except TypeError as error:
        raise ConfigError(f"config.json: {error}; it was written by another version") from None


def dump_train_config(config: TrainConfig) -> dict[str, Any]:
    """A `TrainConfig` as JSON takes it.

    What only matters to very many agents is left out where there are few: their runs are the same whatever it says, and the
    same as those of versions that did not know it.
    """
    train = json.loads(json.dumps(asdict(config)))
    if config.n <= min(config.sizes.agents_exact, Sizes.agents_exact):
        for name in ("agents_exact", "utility_steps"):
            del train["sizes"][name]
    return train


def describe_machine() -> dict[str, Any]:
    """Device and versions, for every result."""
    device = jax.devices()[0]
    packages = ("rmdp-jax", "jax", "jaxlib", "flax", "optax", "brax", "mujoco", "mujoco-mjx")
    return {
        "device": f"{device.platform}: {device.device_kind}"
        + (f", {os.cpu_count()} cores" if device.platform == "cpu" else ""),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return None


def changed_settings(folder: RunFolder, config: dict[str, Any], may_change: Sequence[str]) -> list[str]:
    """The settings in `config`, as config.json holds them, that differ from those of the run in `folder`, with both values.

    Raises:
        ConfigError: there is no run.
    """
    old = folder.read_config()
    there, here = (_flat(content, with_options=old["algorithm"] == config["algorithm"]) for content in (old, config))
    changed = [name for name, value in here.items() if name not in may_change and there.get(name) != value]
    return [f"{name} ({there.get(name)} there, {here[name]} here)" for name in changed]


def _flat(config: dict[str, Any], *, with_options: bool) -> dict[str, Any]:
    """The settings of a config.json by their own names, those of the algorithm too or not."""
    train = config["train"]
    names = ("env", "backend", "algorithm", "pretraining_transitions")
    settings = {name: config[name] for name in names if name in config} | config["env_options"]
    settings |= config["algorithm_options"] if with_options else {}
    settings |= {name: value for name, value in train.items() if name not in ("sizes", "rates")}
    return settings | train["sizes"] | train["rates"]


def _check_same_run(folder: RunFolder, config: dict[str, Any]) -> None:
    changed = changed_settings(folder, config, _MAY_CHANGE_ON_RESUME)
    if changed:
        raise ConfigError(f"resume: {', '.join(changed)} differ from the run in {folder.path}; give what it was made with")
