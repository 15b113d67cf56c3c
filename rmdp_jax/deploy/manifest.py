"""manifest.json of an export: what its files are, of which run, and how to feed them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmdp_jax.context import InContext, context_vectors
from rmdp_jax.deploy.formats import FORMATS
from rmdp_jax.env import EnvSpec
from rmdp_jax.errors import ConfigError
from rmdp_jax.records.checksums import sha256_of
from rmdp_jax.records.files import read_json
from rmdp_jax.records.folder import describe_versions
from rmdp_jax.records.loading import Run

MANIFEST, ASSIGNMENT, CONTEXT = "manifest.json", "assignment.csv", "context.csv"
BEGUN = {"kind": "rmdp_jax export", "format": 1, "complete": False}  # what stands there while files are written

_ABOUT_RESULT = ("iterations", "transitions_per_policy", "welfare", "welfare_deterministic", "upper_bound")


def policy_file(name: str, policy: int) -> str:
    """The file of a policy 0..k-1 in the format `name`."""
    return f"policy_{policy}{FORMATS[name].suffix}"


def holds_export(folder: Path) -> bool:
    """Whether `folder` holds an export, or one that was begun; never an error."""
    try:
        content = read_json(folder / MANIFEST)
    except ConfigError:
        return False
    return isinstance(content, dict) and content.get("kind") == BEGUN["kind"]


def describe_export(run: Run, formats: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """What manifest.json holds of an export in `formats` whose `files` are written."""
    spec, config = run.env.spec, run.folder.read_config()
    sizes = np.bincount(run.assignment, minlength=run.config.k).tolist()
    packages = [package for name in formats for package in FORMATS[name].packages]
    return {
        **BEGUN,
        "complete": True,
        "run": run.folder.path.resolve().name,
        "env": spec.name,
        "env_options": dict(spec.options),
        "backend": spec.backend,
        "algorithm": config["algorithm"],
        **{name: getattr(run.config, name) for name in ("k", "n", "seed")},
        "observation": _describe_observation(run),
        "action": _describe_action(spec),
        "policies": [
            {"policy": j, "agents": size, "files": {name: policy_file(name, j) for name in formats}}
            for j, size in enumerate(sizes)
        ],
        "assignment": ASSIGNMENT,
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files},
        "result": {name: run.result.get(name) for name in _ABOUT_RESULT},
        "versions": describe_versions("rmdp-jax", "jax", "jaxlib", "flax", "brax", *packages),
        "config": config,
    }


def _describe_observation(run: Run) -> dict[str, Any]:
    """What a policy takes: observations of the env as they are."""
    normalised = run.config.sizes.normalize_observations
    description = {"size": run.env.spec.observation_size, "dtype": "float32", "normalized_inside": normalised}
    return description if vectors_of(run) is None else {**description, "appended": CONTEXT}


def vectors_of(run: Run) -> np.ndarray | None:
    """What the policy of a run in context is told of each agent, (n, c), after the observation; None without context."""
    agents = run.population.agents
    return context_vectors(agents.agent) if isinstance(agents, InContext) else None


def _describe_action(spec: EnvSpec) -> dict[str, Any]:
    """What a policy gives, as the env takes it."""
    if spec.discrete:
        return {"kind": "discrete", "number": spec.action_size, "dtype": "int32", "low": 0, "high": spec.action_size - 1}
    return {"kind": "continuous", "size": spec.action_size, "dtype": "float32", "low": -1.0, "high": 1.0}
