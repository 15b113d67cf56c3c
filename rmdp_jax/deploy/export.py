"""A finished run's policies as a folder of files that act elsewhere: `export_run`."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rmdp_jax.deploy.formats import FORMATS, Source, check_formats
from rmdp_jax.deploy.manifest import (
    ASSIGNMENT,
    BEGUN,
    CONTEXT,
    MANIFEST,
    describe_export,
    holds_export,
    policy_file,
    vectors_of,
)
from rmdp_jax.deploy.plain import plain_arrays
from rmdp_jax.errors import ConfigError
from rmdp_jax.paths import local_path
from rmdp_jax.policies.model import likeliest_action, make_model, one_policy
from rmdp_jax.records.files import reason_of, to_json, whole, writing
from rmdp_jax.records.folder import check_finished
from rmdp_jax.records.loading import Run

WAY_OUT = "make room or give rights, or choose another --out"

_SUFFIXES = "|".join(re.escape(form.suffix) for form in FORMATS.values())
_OURS = re.compile(rf"(policy_\d+({_SUFFIXES})|run_policy\.py|context\.csv)(\.part)?")  # what an export may replace or remove


class Exported(NamedTuple):
    """What `export_run` wrote."""

    folder: Path
    files: tuple[str, ...]  # their names, manifest.json last


def export_run(run: Run, out: str | os.PathLike[str], formats: Iterable[str] = tuple(FORMATS)) -> Exported:
    """Write the k policies of a finished run into the folder `out`, in each of the `formats`.

    A file acts as `make_act` does without a key: observations are normalised inside, and the action is the most likely one, as
    the env takes it. Files: policy_J.onnx, policy_J.jax, policy_J.safetensors (with run_policy.py, which runs them by numpy
    alone), assignment.csv (who is served by which policy), of `contextual` context.csv (what follows the observation, for each
    agent), and manifest.json (what all of it is). An earlier export in `out` is replaced, and what else lies there stays. While
    files are written the manifest says `"complete": false`.

    Args:
        run: of `load_run`.
        out: folder; made if need be.
        formats: names in `FORMATS`.

    Raises:
        ConfigError: a format is not known, or takes a package that is not installed; the run was stopped early, its last
            checkpoint is damaged, or a policy is not finite; `out` holds something else, or cannot be written.
    """
    names, folder = check_formats(formats), check_folder(out)
    check_whole(run)
    sources = list(_sources(run))
    with writing(folder, WAY_OUT):
        folder.mkdir(parents=True, exist_ok=True)
    _write(folder / MANIFEST, _text(BEGUN))
    written = [_write(folder / ASSIGNMENT, _assignment_table(run.assignment))]
    if (vectors := vectors_of(run)) is not None:
        written.append(_write(folder / CONTEXT, _context_table(vectors)))
    for name in names:
        written += [_write(folder / path.name, path.read_bytes()) for path in FORMATS[name].beside]
        written += [_write(folder / policy_file(name, j), FORMATS[name].write(source)) for j, source in enumerate(sources)]
    _remove_stale(folder, set(written))
    _write(folder / MANIFEST, _text(describe_export(run, names, [folder / name for name in written])))
    return Exported(folder, (*written, MANIFEST))


def check_folder(out: str | os.PathLike[str]) -> Path:
    """The path of `out`, or ConfigError unless it is a folder that is empty, an earlier export, or not there yet."""
    folder = local_path("out", out)
    try:
        there = sorted(os.listdir(folder), key=lambda name: (name.startswith("."), name))
    except FileNotFoundError:
        return folder
    except OSError as error:
        raise ConfigError(f"out = {folder}: cannot be written ({reason_of(error)}); choose another --out") from None
    if there and not holds_export(folder):
        raise ConfigError(f"out = {folder}: holds {there[0]} and is no earlier export; choose another --out, or empty it")
    return folder


def check_whole(run: Run) -> None:
    """Raise `ConfigError` unless the policies of `run` are those that its training ended with."""
    path, ended = run.folder.path, run.result["iterations"]
    if run.iteration != ended:
        raise ConfigError(
            f"{path}: its last checkpoint is damaged or lost, and the policies are of iteration {run.iteration} of {ended}; "
            "bring it back, or train the rest again with --resume"
        )
    check_finished(path, run.result)


def _sources(run: Run) -> Iterator[Source]:
    """The policies, or ConfigError where one is not finite."""
    spec, config = run.env.spec, run.config
    model = make_model(spec, config.sizes, config.k, config.n)
    for j in range(config.k):
        policy = jax.device_get(one_policy(run.policies, j))
        arrays = plain_arrays(model, policy)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ConfigError(f"{run.folder.path}: policy {j} is not finite, so it cannot act; train again")
        yield Source(partial(likeliest_action, model, spec, policy), arrays, spec.observation_size)


def _write(path: Path, content: bytes) -> str:
    with writing(path, WAY_OUT), whole(path) as temporary:
        temporary.write_bytes(content)
    return path.name


def _text(content: dict[str, Any]) -> bytes:
    return (to_json(content, indent=1) + "\n").encode()


def _assignment_table(assignment: np.ndarray) -> bytes:
    """Lines "agent,policy", agents 0..n-1 in turn."""
    return "\n".join(["agent,policy", *map("{},{}".format, range(len(assignment)), assignment.tolist()), ""]).encode()


def _context_table(vectors: np.ndarray) -> bytes:
    """A line an agent of what comes after its observation, float32 as it is, under names context_0 .. ."""
    names = ",".join(["agent", *(f"context_{i}" for i in range(vectors.shape[1]))])
    return "\n".join(
        [names, *(",".join([str(i), *map(str, row)]) for i, row in enumerate(vectors.astype(np.float32))), ""]
    ).encode()


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Remove files of an earlier export, of more policies or of other formats; nothing that has another name than those."""
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in written:
            with writing(path, WAY_OUT):
                path.unlink()
