"""The whole `TrainState` on disk, by orbax; a restored run goes on bit for bit as if it had never stopped.

A step is written under another name and gets its own by one rename, when it is whole and its checksums are beside it; it is
read only while they hold. Where the latest step is damaged, an older one is taken, and a `RunWarning` says so.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from rmdp_jax.devices.processes import is_first, wait_for_all
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.checksums import damage_of, has_checksums, write_checksums
from rmdp_jax.records.files import cannot_write, reason_of, warn
from rmdp_jax.trainer import TrainState

Tree = TypeVar("Tree")

_SAVING = "saving-"  # before the name of a step that is being written
_ITEM = "default"  # of orbax, in the folder of a step
_FILES = 16_384  # bytes that a step takes beside its arrays


def save_checkpoint(folder: Path, state: TrainState, keep: int = 2) -> None:
    """Write `state` as step `state.iteration` under `folder`; all but the latest `keep` are removed.

    Of a state that lies on devices of several processes each writes its part, into a folder that all of them see.

    Raises:
        ConfigError: it cannot be written. Steps that were there stay as they are.
    """
    step = int(state.iteration)
    if step in saved_steps(folder) and damage_of(folder / str(step)) is None:
        return
    temporary = folder / f"{_SAVING}{step}"
    try:
        if is_first():
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(_SAVING + "*"):  # of a process that was killed
                shutil.rmtree(left)
            _check_room(folder, state)
        wait_for_all("saving")
        with _quiet(), _plain_path(folder) as plain, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(plain / temporary.name / _ITEM, args=ocp.args.PyTreeSave(_flatten(state)))
        if is_first():
            write_checksums(temporary)
            shutil.rmtree(folder / str(step), ignore_errors=True)  # damaged
            temporary.rename(folder / str(step))
            for old in saved_steps(folder)[keep:]:
                shutil.rmtree(folder / str(old), ignore_errors=True)
    except ConfigError:
        raise
    except Exception as error:  # whatever the library makes of a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        raise cannot_write(folder / str(step), error) from error
    wait_for_all("saved")


def save_leaves(folder: Path, step: int, leaves: Mapping[str, Any]) -> None:
    """Write some leaves of a state, by their names in it, as a step that `restore_checkpoint` reads.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet(), _plain_path(folder) as plain, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(plain / str(step) / _ITEM, args=ocp.args.PyTreeSave(dict(leaves)))
        mark = folder / str(step) / _ITEM / "commit_success.txt"
        if mark.exists():
            mark.write_text(f"step {step}\n")  # it names the folder on this machine
        write_checksums(folder / str(step))
    except ConfigError:
        raise
    except Exception as error:  # whatever the library makes of a full disk
        raise cannot_write(folder / str(step), error) from error


def _check_room(folder: Path, state: TrainState) -> None:
    """Raise `OSError` where there is no room for the state: the library would say much more than that on a full disk."""
    if not hasattr(os, "posix_fallocate"):
        return
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in _flatten(state).values())
    with tempfile.TemporaryFile(dir=folder) as room:
        os.posix_fallocate(room.fileno(), 0, size + _FILES)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library logs of a failure, which is raised too, from people."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def saved_steps(folder: Path) -> list[int]:
    """Steps under `folder`, the latest first; none where there is no folder.

    Raises:
        ConfigError: it is no folder, or cannot be read.
    """
    try:
        return sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), reverse=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"checkpoints = {folder}: cannot be read ({reason_of(error)})") from None


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a finished checkpoint."""
    return bool(saved_steps(folder))


def remove_later(folder: Path, step: int) -> None:
    """Remove steps after `step`, from which a run goes on and makes them anew."""
    for later in saved_steps(folder):
        if later > step:
            shutil.rmtree(folder / str(later))


def latest_step(*folders: Path) -> int | None:
    """The latest step that is sound in all `folders`; None where there is no step in any.

    Warns:
        RunWarning: a later one is damaged, or there are no checksums to tell.

    Raises:
        ConfigError: all are damaged, or no step is in all folders.
    """
    steps = [saved_steps(folder) for folder in folders]
    if not any(steps):
        return None
    damages: list[str] = []
    for step in sorted(set.intersection(*map(set, steps)), reverse=True):
        damage = next(filter(None, (_damage_of(folder, step) for folder in folders)), None)
        if damage is None:
            for problem in damages:
                warn(f"{problem}; the older checkpoint of iteration {step} is taken")
            return step
        damages.append(damage)
    if not damages:
        raise ConfigError(
            f"resume: the checkpoints are of iterations {_in_words(steps)}, none of them common to all; train the runs apart"
        )
    raise ConfigError(f"{damages[0]}, and there is no older checkpoint that is whole; bring it back, or train again")


def restore_checkpoint(folder: Path, like: Tree, prefix: str = "", step: int | None = None) -> Tree:
    """The latest sound state under `folder`, or the part of it at `prefix`, such as ``.learner.params``.

    Args:
        folder: of `save_checkpoint`.
        like: arrays or `jax.ShapeDtypeStruct`s; only structure, shapes, dtypes and shardings are read. Without a sharding, a
            leaf comes to this process's first device.
        prefix: path from the `TrainState` to what is wanted.
        step: of `latest_step`, where it is known; its checksums are not looked at again.

    Raises:
        ConfigError: there is no checkpoint, or it was written by a run of other sizes.
    """
    step = _existing_step(folder) if step is None else step
    data = _load(folder, step, {prefix + name: leaf.sharding for name, leaf in _by_path(like).items()})

    def restore(path: Any, like: Any) -> Any:
        name = prefix + jax.tree_util.keystr(path)
        if name not in data:
            raise ConfigError(f"checkpoints = {folder}: holds no {name}; it was written by a run of other settings")
        array = data[name] if like.sharding else jnp.array(np.asarray(data[name]))  # bound to no device, as what is made here
        leaf = jax.random.wrap_key_data(array) if _is_key(like) else array
        if leaf.shape != like.shape:
            raise ConfigError(f"checkpoints = {folder}: {name} has shape {leaf.shape}, this run needs {like.shape}")
        return leaf

    return jax.tree_util.tree_map_with_path(restore, like)


def saved_shape(folder: Path, name: str, step: int | None = None) -> tuple[int, ...] | None:
    """Shape of one leaf of a state under `folder`, such as ``.iteration``; None where the state has no such leaf."""
    with _reading(folder, _existing_step(folder) if step is None else step) as (checkpointer, path):
        saved = checkpointer.metadata(path).item_metadata.tree
        return tuple(saved[name].shape) if name in saved else None


def _existing_step(folder: Path) -> int:
    if not folder.exists():
        raise ConfigError(f"checkpoints = {folder}: no such folder, so there is nothing to restore")
    step = latest_step(folder)
    if step is None:
        raise ConfigError(f"checkpoints = {folder}: holds no finished checkpoint")
    return step


def _damage_of(folder: Path, step: int) -> str | None:
    """As `damage_of`; of a folder without any checksums, from before there were some, nothing is known."""
    if any(has_checksums(folder / str(other)) for other in saved_steps(folder)):
        return damage_of(folder / str(step))
    warn(f"{folder / str(step)}: has no checksums, so nobody can tell whether it is damaged")
    return None


def _load(folder: Path, step: int, shardings: dict[str, Any]) -> dict[str, Any]:
    """Leaves of a state by their names, those of `shardings` that it has; others are not read."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    with _reading(folder, step) as (checkpointer, path):
        saved = checkpointer.metadata(path).item_metadata.tree
        wanted = {
            name: jax.ShapeDtypeStruct(saved[name].shape, saved[name].dtype, sharding=sharding or here)
            for name, sharding in shardings.items()
            if name in saved
        }
        if not wanted:  # statistics of observations that are not normalised
            return {}
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))


@contextmanager
def _reading(folder: Path, step: int) -> Iterator[tuple[ocp.Checkpointer, Path]]:
    """What reads the step, and its path; whatever goes wrong in the library is a `ConfigError`."""
    try:
        with _plain_path(folder) as plain, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            yield checkpointer, plain / str(step) / _ITEM
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"checkpoints = {folder / str(step)}: cannot be read ({reason_of(error)})") from error


@contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """A path to `folder` that orbax does not take for a pattern: its own, or a link to it where that has brackets, say."""
    folder = folder.absolute()
    if _is_plain(folder):
        yield folder
    else:
        where = None if _is_plain(tempfile.gettempdir()) else "/tmp"
        with tempfile.TemporaryDirectory(prefix="rmdp_jax-", dir=where) as plain:
            link = Path(plain) / "checkpoints"
            link.symlink_to(folder, target_is_directory=True)
            yield link


def _is_plain(path: str | Path) -> bool:
    return re.fullmatch(r"[\w /.,:=+@~#%'-]*", str(path)) is not None


def _flatten(state: TrainState) -> dict[str, Any]:
    """Leaves by the path to them; keys as the data behind them, which is what files can hold."""

    def plain(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf

    return {name: plain(leaf) for name, leaf in _by_path(state).items()}


def _in_words(steps: Sequence[list[int]]) -> str:
    return ", ".join("and ".join(map(str, own)) if own else "0" for own in steps)


def _by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
