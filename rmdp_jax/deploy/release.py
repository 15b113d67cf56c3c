"""A finished run as a small folder to hand on: `write_release`. `load_run` reads it like the run itself.

It holds config.json, agents.npz, result.json, the policies that the run ended with as a checkpoint of nothing else, a README.md
that a hub shows as its model card, checksums.json, and episodes.npz where wished. Training cannot go on from it, as it has no
optimiser; `extend`, `--freeze` and `--start-from` take its policies.
"""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rmdp_jax.deploy.export import check_whole
from rmdp_jax.deploy.model_card import model_card
from rmdp_jax.errors import ConfigError
from rmdp_jax.paths import local_path
from rmdp_jax.records.checksums import write_checksums
from rmdp_jax.records.files import writing
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.loading import Run

WAY_OUT = "make room or give rights, or choose another --out"


class Released(NamedTuple):
    """What `write_release` wrote."""

    folder: Path
    files: tuple[str, ...]
    size: int  # bytes


def check_place(out: str | os.PathLike[str]) -> Path:
    """The folder `out`, which has to be new or empty, or ConfigError."""
    folder = local_path("out", out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"out = {folder}: is there already; choose another folder, or remove it")
    return folder


def write_release(run: Run, out: str | os.PathLike[str], *, episodes: bool = False) -> Released:
    """Write what others need of a finished run into the folder `out`.

    Args:
        run: of `load_run`.
        out: folder; has to be new, or empty.
        episodes: with what its fresh episodes brought, by which `assign` scores new people; up to 64 MiB.

    Raises:
        ConfigError: the run was stopped early, its last checkpoint is damaged or a policy is not finite; it keeps no episodes,
            though they are wished; `out` is there already, or cannot be written.
    """
    from rmdp_jax.records.checkpoint import save_leaves

    folder, source = RunFolder(check_place(out)), run.folder
    check_whole(run)
    if episodes and not source.episodes.exists():
        raise ConfigError(f"episodes: {source.path} keeps none; rmdp-jax evaluate DIR --keep makes them")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(run.policies))):
        raise ConfigError(f"{source.path}: a policy is not finite, so it cannot act; train again")
    described, result = _public(source.read_config()), _public(source.read_result())
    with writing(folder.path, WAY_OUT):
        folder.path.mkdir(parents=True, exist_ok=True)
        save_leaves(folder.checkpoints, result["iterations"], _leaves(run))
        folder.write_config({**described, "release": True})
        result.pop("policies_from", None)  # they are in their places now
        folder.write_result(result)
        for path in (source.people, *[source.path / "result.npz"] * ("arrays" in result)):
            if path.exists():
                shutil.copyfile(path, folder.path / path.name)
        (folder.path / "README.md").write_text(model_card(run, described), encoding="utf-8")
        write_checksums(folder.path)
        if episodes:  # they have checksums of their own, and may be made anew
            shutil.copyfile(source.episodes, folder.episodes)
    files = sorted(path for path in folder.path.rglob("*") if path.is_file())
    names = tuple(str(path.relative_to(folder.path)) for path in files)
    return Released(folder.path, names, sum(path.stat().st_size for path in files))


def _leaves(run: Run) -> dict[str, Any]:
    """The policies by the names that their leaves have in a `TrainState`."""
    parts = {".learner.params": run.policies.params, ".statistics": run.policies.statistics}
    parts[".rates.observation_clip"] = run.policies.observation_clip
    return {
        prefix + jax.tree_util.keystr(path): leaf
        for prefix, tree in parts.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _public(content: dict[str, Any]) -> dict[str, Any]:
    """What a file of a run holds, without where on a machine the runs were whose policies it was given."""
    for name in ("frozen", "start"):
        for source in content.get(name, []):
            source["run"] = Path(source["run"]).name
    return content
