"""The whole `TrainState` on disk, by orbax; a restored run goes on bit for bit as if it had never stopped."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rmdp_jax.errors import ConfigError
from rmdp_jax.trainer import TrainState


def save_checkpoint(folder: Path, state: TrainState, keep: int = 2) -> None:
    """Write `state` as step `state.iteration` under `folder`; all but the latest `keep` are removed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        step = int(state.iteration)
        if step not in manager.all_steps():
            manager.save(step, args=ocp.args.StandardSave(_flatten(state)))


def restore_checkpoint(folder: Path, like: TrainState) -> TrainState:
    """The latest state under `folder`; `like` has its structure (values are not read, so `jax.eval_shape` will do).

    Raises:
        ConfigError: there is none, or it was written by a run of other sizes.
    """
    if not folder.is_dir():
        raise ConfigError(f"checkpoints = {folder}: no such folder, so there is nothing to go on from")
    abstract = jax.eval_shape(_flatten, like)
    with ocp.CheckpointManager(folder.absolute()) as manager:
        step = manager.latest_step()
        if step is None:
            raise ConfigError(f"checkpoints = {folder}: holds no finished checkpoint")
        try:
            data = manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except ValueError as error:
            first_line = str(error).strip().splitlines()[0]
            raise ConfigError(f"checkpoints = {folder}: written by a run of other sizes ({first_line})") from error
    return _unflatten(data, like)


def _flatten(state: TrainState) -> dict[str, Any]:
    """Leaves by the path to them; keys as the data behind them, which is what files can hold."""

    def plain(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf

    return {jax.tree_util.keystr(path): plain(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _unflatten(data: dict[str, Any], like: TrainState) -> TrainState:
    def restore(path: Any, like: Any) -> Any:
        leaf = data[jax.tree_util.keystr(path)]
        return jax.random.wrap_key_data(leaf) if _is_key(like) else leaf

    return jax.tree_util.tree_map_with_path(restore, like)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
