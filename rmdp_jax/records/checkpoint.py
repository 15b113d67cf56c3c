"""The whole `TrainState` on disk, by orbax; a restored run goes on bit for bit as if it had never stopped."""

from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from rmdp_jax.errors import ConfigError
from rmdp_jax.trainer import TrainState

Tree = TypeVar("Tree")


def save_checkpoint(folder: Path, state: TrainState, keep: int = 2) -> None:
    """Write `state` as step `state.iteration` under `folder`; all but the latest `keep` are removed.

    Of a state that lies on devices of several processes each writes its part, into a folder that all of them see.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        step = int(state.iteration)
        if step not in manager.all_steps():
            manager.save(step, args=ocp.args.StandardSave(_flatten(state)))


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a finished checkpoint."""
    if not folder.is_dir():
        return False
    with ocp.CheckpointManager(folder.absolute()) as manager:
        return manager.latest_step() is not None


def restore_checkpoint(folder: Path, like: Tree, prefix: str = "") -> Tree:
    """The latest state under `folder`, or the part of it at `prefix`, such as ``.learner.params``.

    Args:
        folder: of `save_checkpoint`.
        like: arrays or `jax.ShapeDtypeStruct`s; only structure, shapes, dtypes and shardings are read. Without a sharding, a
            leaf comes to this process's first device.
        prefix: path from the `TrainState` to what is wanted.

    Raises:
        ConfigError: there is no checkpoint, or it was written by a run of other sizes.
    """
    data = _load(folder, {prefix + name: leaf.sharding for name, leaf in _by_path(like).items()})

    def restore(path: Any, like: Any) -> Any:
        name = prefix + jax.tree_util.keystr(path)
        if name not in data:
            raise ConfigError(f"checkpoints = {folder}: holds no {name}; it was written by a run of other settings")
        leaf = jax.random.wrap_key_data(data[name]) if _is_key(like) else data[name]
        if leaf.shape != like.shape:
            raise ConfigError(f"checkpoints = {folder}: {name} has shape {leaf.shape}, this run needs {like.shape}")
        return leaf

    return jax.tree_util.tree_map_with_path(restore, like)


def saved_shape(folder: Path, name: str) -> tuple[int, ...]:
    """Shape of one leaf of the latest state under `folder`, such as ``.iteration``."""
    with ocp.CheckpointManager(folder.absolute(), item_handlers=ocp.StandardCheckpointHandler()) as manager:
        return tuple(manager.item_metadata(manager.latest_step())[name].shape)


def _load(folder: Path, shardings: dict[str, Any]) -> dict[str, Any]:
    """Leaves of the latest state by their names, those of `shardings` that it has; others are not read."""
    if not folder.is_dir():
        raise ConfigError(f"checkpoints = {folder}: no such folder, so there is nothing to restore")
    here = SingleDeviceSharding(jax.local_devices()[0])
    with ocp.CheckpointManager(folder.absolute(), item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
        step = manager.latest_step()
        if step is None:
            raise ConfigError(f"checkpoints = {folder}: holds no finished checkpoint")
        saved = manager.item_metadata(step).tree
        wanted = {
            name: jax.ShapeDtypeStruct(saved[name].shape, saved[name].dtype, sharding=sharding or here)
            for name, sharding in shardings.items()
            if name in saved
        }
        if not wanted:  # statistics of observations that are not normalised
            return {}
        how = ocp.checkpoint_utils.construct_restore_args(wanted)
        return manager.restore(step, args=ocp.args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))


def _flatten(state: TrainState) -> dict[str, Any]:
    """Leaves by the path to them; keys as the data behind them, which is what files can hold."""

    def plain(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf

    return {name: plain(leaf) for name, leaf in _by_path(state).items()}


def _by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
