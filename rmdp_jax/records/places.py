"""Where a run is: a folder, the name of one under runs/, or a release on the Hugging Face hub, which is downloaded."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rmdp_jax.errors import ConfigError, not_installed, shown
from rmdp_jax.paths import local_path
from rmdp_jax.records.files import read_json, reason_of

RUNS = Path("runs")  # where `train` writes to when nothing else is said

# `Path` makes one slash of two.
_HUB = re.compile(r"(?:hf:/{1,2}|https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)/)(?P<rest>.*)")


class HubFolder(NamedTuple):
    """A folder on the hub."""

    repository: str  # USER/NAME
    revision: str | None  # branch, tag or commit; the newest of the main branch when not given
    folder: str  # in the repository, "" for all of it


def run_folder(name: str, value: str | os.PathLike[str]) -> Path:
    """The folder that the argument `name` means.

    Args:
        name: of the argument, for errors.
        value: a path; the name of a folder under runs/, where no path is that; ``hf://USER/NAME``, with ``@REVISION`` and
            ``/FOLDER`` as you like, or the address of the same at https://huggingface.co. What was downloaded once is found
            without network too.

    Raises:
        ConfigError: it is no path and no such address, or cannot be downloaded.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    address = _HUB.match(text) if isinstance(text, str) else None
    if address:
        source = f"hf://{address['rest']}"
        return _download(name, source, _hub_folder(name, source, address["rest"]))
    path = local_path(name, value)
    below = RUNS / path
    return below if path.name == str(path) and not os.path.exists(path) and os.path.exists(below / "config.json") else path


def outputs_folder(name: str, value: str | os.PathLike[str]) -> Path:
    """Where what is made of a run goes: its own folder; of one from the hub, whose folder is a cache, runs/USER--NAME."""
    address = _HUB.match(os.fspath(value))
    if address is None:
        return run_folder(name, value)
    hub = _hub_folder(name, f"hf://{address['rest']}", address["rest"])
    return RUNS / "--".join([*hub.repository.split("/"), *filter(None, [hub.revision]), *filter(None, hub.folder.split("/"))])


def _hub_folder(name: str, text: str, rest: str) -> HubFolder:
    user, _, more = rest.strip("/").partition("/")
    repository, _, folder = more.partition("/")
    repository, _, revision = repository.partition("@")
    if folder.startswith("tree/"):  # as pages of the hub have it
        revision, _, folder = folder.removeprefix("tree/").partition("/")
    plain = all(re.fullmatch(r"[\w.-]+", part) for part in (user, repository))
    if not plain or ".." in folder.split("/"):
        raise ConfigError(f"{name} = {text}: must be hf://USER/NAME, hf://USER/NAME@REVISION or hf://USER/NAME/FOLDER")
    return HubFolder(f"{user}/{repository}", revision or None, folder)


def _download(name: str, text: str, hub: HubFolder) -> Path:
    if find_spec("huggingface_hub") is None:
        raise not_installed(f"{name} = {text}", "huggingface_hub", "hub")
    from huggingface_hub import snapshot_download

    patterns = [f"{hub.folder}/*"] if hub.folder else None
    try:
        whole = snapshot_download(hub.repository, revision=hub.revision, allow_patterns=patterns)
    except Exception as error:  # of the network, or of the hub
        raise ConfigError(f"{name} = {text}: cannot be downloaded ({reason_of(error)})") from error
    folder = Path(whole) / hub.folder
    described = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    task = str(described.get("make", described.get("env", "")))
    if ":" in task:
        raise ConfigError(
            f"{name} = {text}: its task is made by {shown(task)}, code that would be run here; look at it, download the "
            "release (hf download), and give its folder if you trust it"
        )
    return folder
