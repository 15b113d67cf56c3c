"""A run's folder: config.json, agents.npz, metrics.jsonl, result.json, episodes.npz, checkpoints/ and pictures.

Of more than `LARGEST_LISTED` agents, result.json names a file beside it, result.npz, in place of what it would list of each.
"""

import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmdp_jax.config import Sizes, TrainConfig
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.files import (
    UNREADABLE,
    append_line,
    read_json,
    read_lines,
    reason_of,
    warn,
    write_json,
    write_lines,
    writing,
)
from rmdp_jax.records.schema import check_config, check_line, check_result
from rmdp_jax.version import __version__

FORMAT = 1  # of config.json and result.json; raised when a reader of older files would misread newer ones

LARGEST_LISTED = 10_000  # agents

_ARRAYS = ("assignment", "utility")  # of result.json, one entry per agent
_OF_A_RUN = ("result.json", "metrics.jsonl", "checkpoints")  # what no new run is begun beside


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run and what is in them."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of orbax checkpoints."""
        return self.path / "checkpoints"

    @property
    def people(self) -> Path:
        """File of the agents; see `rmdp_jax.records.people`."""
        return self.path / "agents.npz"

    @property
    def episodes(self) -> Path:
        """File of what fresh episodes brought; see `rmdp_jax.records.episodes`."""
        return self.path / "episodes.npz"

    @property
    def metrics(self) -> Path:
        """File of the lines of metrics."""
        return self.path / "metrics.jsonl"

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").exists()

    def is_ours(self) -> bool:
        """Whether the config.json here is one that a run writes."""
        try:
            content = read_json(self.path / "config.json")
        except ConfigError:
            return False
        return isinstance(content, dict) and {"format", "train"} <= content.keys()

    def has_result(self) -> bool:
        """Whether a run came to its end here, or to an end."""
        return (self.path / "result.json").exists()

    def read_config(self) -> dict[str, Any]:
        """config.json: format, env, make (of a user's own), env_options, algorithm, backend, train (of a TrainConfig)."""
        return {"algorithm_options": {}, **self._read("config.json", check_config)}

    def read_task(self) -> str:
        """The name by which `rmdp_jax.envs.make` makes the env of the run."""
        described = self.read_config()
        return str(described.get("make", described["env"]))

    def read_result(self, check: Callable[[Path, Any], None] = check_result) -> dict[str, Any]:
        """result.json, which names a file of `arrays` instead of holding them for very many agents; see `read_arrays`.

        `check` raises `ConfigError` unless the content is as it should be.
        """
        return self._read("result.json", check)

    def read_arrays(self) -> dict[str, np.ndarray]:
        """What result.json says of each agent, or the file that it names: assignment (n,) int32, utility (k, n)."""
        result = self.read_result()
        if "arrays" not in result:
            return {"assignment": np.asarray(result["assignment"], np.int32), "utility": np.array(result["utility"], float)}
        path = self.path / result["arrays"]
        k, n = result["k"], result["n"]
        try:
            with np.load(path, allow_pickle=False) as arrays:  # pickled objects could run anything
                labels, utility = arrays["assignment"].astype(np.int32), arrays["utility"]
            if labels.shape != (n,) or utility.shape != (k, n) or labels.min() < 0 or labels.max() >= k:
                raise ValueError(f"it is not of k = {k} policies and n = {n} agents")
            return {"assignment": labels, "utility": utility}
        except UNREADABLE as error:
            raise ConfigError(f"{path}: cannot be read ({reason_of(error)}); train again, or bring it back") from None

    def read_metrics(self, k: int | None = None, n: int | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; a last line that was cut off in writing is left out.

        Raises:
            ConfigError: a line has no iteration, or, where k and n are given, lacks something else that pictures read.
        """
        lines = read_lines(self.metrics)
        for number, line in enumerate(lines, 1):
            check_line(f"{self.metrics}: line {number}", line, k, n)
        return lines

    def earlier_result(self) -> dict[str, Any] | None:
        """result.json of who went on with the run; None where there is none that can be read, as another will be written."""
        try:
            return self.read_result() if self.has_result() else None
        except ConfigError as error:
            warn(f"{error}; it is written again")
            return None

    def previous_timing(self) -> dict[str, Any]:
        """What an earlier result says of how long training took; nothing where there is none."""
        result = self.earlier_result() or {}
        names = ("wall_s", "compile_s", "transitions_per_s", "runs_together", "devices", "device", "versions")
        return {name: result[name] for name in names if name in result}

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        append_line(self.metrics, line)

    def write_config(self, content: dict[str, Any]) -> None:
        """Write config.json."""
        self._write("config.json", content)

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew."""
        write_lines(self.metrics, lines)

    def write_result(self, content: dict[str, Any]) -> None:
        """Write result.json, and what it holds of each agent beside it where that is an array; see `listed`."""
        arrays = {name: content[name] for name in _ARRAYS if isinstance(content.get(name), np.ndarray)}
        if arrays:
            temporary = self.path / "result.part.npz"  # np.savez wants this ending
            with writing(self.path / "result.npz"):
                np.savez(temporary, **arrays)
                temporary.replace(self.path / "result.npz")
        self._write("result.json", plain_result(content))

    def reopen(self) -> None:
        """Say that the run is not finished any more, as it goes on; config.json and result.json say the same at any time."""
        if content := self.earlier_result():
            self._write("result.json", {**content, "finished": False})

    def _read(self, name: str, check: Callable[[Path, Any], None]) -> dict[str, Any]:
        path = self.path / name
        if not os.path.exists(path):  # which a name that is too long does not either, where Path.exists raises
            way_out = "; --resume ends it" if name == "result.json" and self.holds_run() else ""
            raise ConfigError(f"run = {self.path}: holds no {name}, so it is not the folder of a finished run{way_out}")
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else None
            raise ConfigError(
                f"{path}: has format {str(found)[:60]}, this version reads {FORMAT}; train again with this version"
            )
        check(path, content)
        return content

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / name, {"format": FORMAT, **content})


def listed(values: np.ndarray) -> list[Any] | np.ndarray:
    """Values (..., n) as JSON lists them, or as they are where n is too large for a text."""
    return values.tolist() if values.shape[-1] <= LARGEST_LISTED else values


def plain_result(content: dict[str, Any]) -> dict[str, Any]:
    """A result as JSON takes it: without the arrays of very many agents, but with the name of their file."""
    plain = {name: value for name, value in content.items() if not isinstance(value, np.ndarray)}
    return plain if len(plain) == len(content) else {**plain, "arrays": "result.npz"}


def check_run(path: Path, resume: bool) -> None:
    """Raise `ConfigError` unless a run can be begun in the folder `path`, or gone on with where `resume`; makes the folder."""
    folder = RunFolder(path)
    try:
        there = [name for name in _OF_A_RUN if (path / name).exists()]
        if resume and folder.holds_run():
            if folder.read_config().get("release"):
                raise ConfigError(
                    f"out = {path}: is a release, whose training cannot go on; begin with its policies: rmdp-jax train ENV "
                    "--start-from DIR:J,J, or rmdp-jax extend DIR"
                )
        elif resume and there:
            raise ConfigError(f"out = {path}: holds no config.json beside its {there[0]}, so nobody can tell which run it is")
        elif there:
            raise ConfigError(f"out = {path}: already holds a run; choose another folder, or --resume to go on with it")
        elif folder.holds_run() and not folder.is_ours():
            raise ConfigError(f"out = {path}: holds a config.json of something else; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise ConfigError(f"out = {path}: cannot be written ({error.strerror or error}); choose another folder") from None


def check_finished(path: Path, result: dict[str, Any]) -> None:
    """Raise `ConfigError` unless `result`, of the run in the folder `path`, is of a run that came to its end."""
    if not result["finished"]:
        ended = result["iterations"]
        raise ConfigError(f"{path}: was stopped early, at iteration {ended}; end it with rmdp-jax train DIR --resume")


def dump_train_config(config: TrainConfig) -> dict[str, Any]:
    """A `TrainConfig` as JSON takes it.

    What only matters to very many agents is left out where there are few: their runs are the same whatever it says, and the
    same as those of versions that did not know it.
    """
    train = json.loads(json.dumps(asdict(config)))
    train["welfare_p"] = str(config.welfare_p) if config.welfare_p == -math.inf else config.welfare_p  # JSON has no infinity
    for name in ("at_most", "at_least"):  # as of versions that did not know them
        if train[name] is None:
            del train[name]
    if config.sizes.explore == Sizes.explore:  # likewise
        del train["sizes"]["explore"]
    if config.n <= min(config.sizes.agents_exact, Sizes.agents_exact):
        for name in ("agents_exact", "utility_steps"):
            del train["sizes"][name]
    return train


NUMERICS = {"JAX_DEFAULT_PRNG_IMPL": "threefry2x32", "JAX_DEFAULT_MATMUL_PRECISION": "default"}  # as JAX has them


def describe_numerics() -> dict[str, str]:
    """What is set for JAX from outside and makes other numbers: the generator, and the precision of the networks' products."""
    return {name: str(getattr(jax.config, name.lower()) or default) for name, default in NUMERICS.items()}


_PACKAGES = ("rmdp-jax", "jax", "jaxlib", "flax", "optax", "brax", "mujoco", "mujoco-mjx")
_EXTRAS = ("warp-lang", "gymnasium")  # of the backend `warp` and of `model="gymnasium"`, named where they are installed


def describe_machine() -> dict[str, Any]:
    """Device, precision of the networks' products of matrices (all others are in float32), and versions."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}"
        + (f", {os.cpu_count()} cores" if device.platform == "cpu" else ""),
        "matmul_precision": describe_numerics()["JAX_DEFAULT_MATMUL_PRECISION"],
        "versions": describe_versions(*_PACKAGES) | {name: it for name in _EXTRAS if (it := _version(name))},
    }


def describe_versions(*packages: str) -> dict[str, str | None]:
    """Versions of Python and of packages, None of those that are not installed; of this one as its source says."""
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    if package == "rmdp-jax":  # which may run from a checkout, beside an installed one
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None
