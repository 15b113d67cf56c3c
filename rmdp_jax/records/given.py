"""Policies of finished runs that another run is given, the first of its k: to stay as they are, or to begin with.

config.json names them by run, policy and a SHA-256 of what acts; result.json has that of what the run ended with. Their
parameters are in the checkpoints of the run that was given them, from iteration 0 on.
"""

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmdp_jax.config import TrainConfig
from rmdp_jax.env import Env, task_options
from rmdp_jax.errors import ConfigError, shown, whole_number
from rmdp_jax.learning.learner import init_learner
from rmdp_jax.learning.utility import no_utilities
from rmdp_jax.policies.model import Policies, make_model, repeat
from rmdp_jax.records.folder import RunFolder
from rmdp_jax.records.places import run_folder
from rmdp_jax.records.settings import load_train_config
from rmdp_jax.records.spec import GivenPolicies, Source
from rmdp_jax.state import Member

Named = tuple[str | Path, int]  # folder of a finished run, and one of its policies

_ALIKE = ("trunk", "hidden", "critic", "std", "log_std_init", "normalize_observations", "normalize_returns")  # of `Sizes`
_NOT_RELEASED = ("opt_state", "returns")  # of a member; those of a policy of a release begin anew


def given_policies(
    env: Env, config: TrainConfig, frozen: Sequence[Named] = (), start: Sequence[Named] = (), goes_on: Path | None = None
) -> GivenPolicies:
    """The policies that a run is given, found and checked.

    Args:
        env, config: of the run; shapes, normalisation and task of the policies have to be the same.
        frozen, start: policies (run, j) that stay as they are, and those that go on learning.
        goes_on: folder of the run where it may be gone on with. What that was given counts then, and the folders of those
            runs are not looked at.

    Raises:
        ConfigError: a policy is none, is named twice or does not fit, or its run is no finished one or damaged; or the run in
            `goes_on` was given others.
    """
    named = [[_named(name, entry) for entry in entries] for name, entries in (("frozen", frozen), ("start", start))]
    if goes_on is not None and RunFolder(goes_on).holds_run():
        return _recorded(RunFolder(goes_on), named)
    places = [(Path(run).resolve(), policy) for entries in named for run, policy in entries]
    for place, (run, policy) in zip(places, [*named[0], *named[1]], strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"frozen, start = {run}:{policy}: is named twice; name each policy once")
    given = GivenPolicies(*(tuple(Source(run, policy, "") for run, policy in entries) for entries in named))
    members = load_members(env, config, given)
    if members is None:
        return given
    sums = checksums(members)
    sources = [source._replace(sha256=sha256) for source, sha256 in zip(given.sources, sums, strict=True)]
    return GivenPolicies(tuple(sources[: len(frozen)]), tuple(sources[len(frozen) :]))


def load_members(env: Env, config: TrainConfig, given: GivenPolicies) -> Member | None:
    """What the given policies are, leaves (g, ...) as numpy arrays, without utilities; None where there are none.

    Raises:
        ConfigError: as `given_policies`; or a policy is another than it was when its SHA-256 was taken.
    """
    members = [_load_member(env, config, source) for source in given.sources]
    if not members:
        return None
    stacked = jax.tree.map(lambda *x: np.stack(x), *members)
    for source, sha256 in zip(given.sources, checksums(stacked), strict=True):
        if source.sha256 and source.sha256 != sha256:
            raise ConfigError(f"{_word(source)}: is another policy than when this run was begun; bring that one back")
    return stacked


def checksums(policies: Policies | Member) -> list[str]:
    """A SHA-256 for each policy of what acts: names, types and values of its parameters and statistics of observations."""
    params = policies.params.own if isinstance(policies, Policies) else policies.params
    leaves = [
        (jax.tree_util.keystr(path), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path({"params": params, "statistics": policies.statistics})
    ]
    return [_sha256((name, leaf[j]) for name, leaf in leaves) for j in range(len(leaves[0][1]))]


def _sha256(leaves: Any) -> str:
    digest = hashlib.sha256()
    for name, leaf in leaves:
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def describe_given(given: GivenPolicies, policies: Policies | None = None) -> dict[str, Any]:
    """What config.json says of them, or result.json, where the frozen are among the `policies` that a run ended with."""
    frozen = given.frozen
    if policies is not None and frozen:
        sums = checksums(policies)[: len(frozen)]
        frozen = tuple(source._replace(sha256=sha256) for source, sha256 in zip(frozen, sums, strict=True))
    named = {"frozen": frozen, "start": given.start}
    return {name: [source._asdict() for source in sources] for name, sources in named.items() if sources}


def _named(name: str, entry: Any) -> tuple[str, int]:
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise ConfigError(f"{name} = {shown(entry)}: must be pairs of the folder of a run and a policy, such as (run, 0)")
    return str(run_folder(name, entry[0])), whole_number(f"{name} = {entry[0]}: policy", entry[1], 0)


def _recorded(folder: RunFolder, named: Sequence[Sequence[tuple[str, int]]]) -> GivenPolicies:
    described = folder.read_config()
    given = GivenPolicies(*(tuple(Source(**of) for of in described.get(name, [])) for name in GivenPolicies._fields))
    there = [[source[:2] for source in sources] for sources in given]
    if any(named) and named != there:
        raise ConfigError(
            f"resume: {_words(named)} are others than the policies that the run in {folder.path} was given, {_words(there)}; "
            "leave them out"
        )
    return given


def _words(named: Sequence[Sequence[tuple[Any, ...]]]) -> str:
    kinds = zip(GivenPolicies._fields, named, strict=True)
    return ", ".join(f"{kind} {run}:{policy}" for kind, pairs in kinds for run, policy in pairs) or "none"


def _word(source: Source) -> str:
    return f"given policy {source.run}:{source.policy}"


def _load_member(env: Env, config: TrainConfig, source: Source) -> Member:
    """One policy of a finished run, leaves (...)."""
    from rmdp_jax.records.checkpoint import restore_checkpoint  # orbax takes half a second to import
    from rmdp_jax.records.loading import choose_members, last_step

    folder = RunFolder(Path(source.run))
    described, result = folder.read_config(), folder.read_result()
    there = load_train_config(described)
    if not result["finished"]:
        end = f"rmdp-jax train {shlex.quote(source.run)} --resume"
        raise ConfigError(f"{_word(source)}: its run is not finished; end it with `{end}`")
    if source.policy >= there.k:
        raise ConfigError(f"{_word(source)}: must be one of 0..{there.k - 1}, as that run has k = {there.k} policies")
    _check_alike(env, config, source, described, there)
    step = last_step(folder, result["iterations"])
    if step != result["iterations"]:
        raise ConfigError(f"{_word(source)}: the checkpoint of its result is lost or damaged; bring it back")
    like, members = jax.eval_shape(lambda: _new_members(env, there)), result.get("policies_from", list(range(there.k)))
    now = {"params": ".learner.params.own", "opt_state": ".learner.opt_state.own", "statistics": ".statistics"}
    parts = {
        name: choose_members(
            folder.checkpoints,
            step,
            restore_checkpoint(folder.checkpoints, getattr(like, name), now.get(name, f".{name}"), step),
            f".archive.{name}",
            [members[source.policy]],
        )
        for name in Member._fields
        if name not in ("utilities", *(_NOT_RELEASED if described.get("release") else ()))
    }
    if described.get("release"):
        new = _new_members(env, there)
        parts |= {name: jax.tree.map(lambda x: x[:1], getattr(new, name)) for name in _NOT_RELEASED}
    member = jax.device_get(jax.tree.map(lambda x: x[0], Member(**parts, utilities=None)))  # type: ignore[arg-type]
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(member)):
        raise ConfigError(f"{_word(source)}: holds numbers that are not finite; name another policy")
    return member


def _check_alike(env: Env, config: TrainConfig, source: Source, described: dict[str, Any], there: TrainConfig) -> None:
    """Raise `ConfigError` unless the policy acts in this env as it did in its own, and its networks are of the same shapes."""

    pairs = {
        "env": (described["env"], env.spec.name),
        "backend": (described["backend"], env.spec.backend),
        "env_options": (task_options(described["env_options"]), task_options(env.spec.options)),
        **{name: (getattr(there.sizes, name), getattr(config.sizes, name)) for name in _ALIKE},
    }
    if config.sizes.normalize_observations:
        pairs["observation_clip"] = there.rates.observation_clip, config.rates.observation_clip
    if config.sizes.critic == "per_agent":
        pairs["n"] = there.n, config.n
    for name, (value, here) in pairs.items():
        if value != here:
            raise ConfigError(
                f"{_word(source)}: {name} = {shown(value)} there, {shown(here)} here: must be the same; give what that run has"
            )


def _new_members(env: Env, config: TrainConfig) -> Member:
    """k policies as a run begins with, as members."""
    model, k = make_model(env.spec, config.sizes, config.k, config.n), config.k

    learner = init_learner(model.networks, config.rates, jax.random.key(0), jax.random.split(jax.random.key(0), k))
    own = learner.params.own, learner.opt_state.own
    return Member(*own, repeat(model.normalizer.init(), k), repeat(model.returns.init(), k), no_utilities(k, config.n))
