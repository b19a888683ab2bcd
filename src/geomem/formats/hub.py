"""What is on a hub: one published file, pinned, and whole folders of models.

A model's folder goes to a repository of the hub or to a plain folder of the same layout, and back.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from geomem.errors import InputError
from geomem.formats.files import atomic_directory, atomic_path, check_sha256

CARD = "README.md"
# What a model's folder may hold: nothing that runs code when it is read, as pickles do.
HARMLESS = frozenset({".safetensors", ".json", ".md", ".txt", ".yaml", ".png", ".mp4"})
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")

R = TypeVar("R")


def fetch_file(path: Path, *, repository: str, file: str, revision: str, sha256: str) -> None:
    """Fetch a file of a hub's repository to `path`, and compare its checksum where one is given.

    Raises:
        InputError: If the hub cannot be reached or refuses, or the file is not the pinned one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        fetched = hf_hub_download(repository, file, revision=revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"{repository} cannot be fetched ({type(error).__name__}); on a machine without the "
            f"hub, bring its {file} to {path}"
        ) from None
    if sha256:
        check_sha256(Path(fetched), sha256)
    with atomic_path(path) as temporary:
        shutil.copyfile(fetched, temporary)


def push_folder(folder: Path, place: str, *, public: bool = False) -> str:
    """Bring a model's folder to a place, which then holds just what the folder holds.

    Args:
        folder: With a card and without pickles.
        place: `owner/name` of the hub, made where it is missing, or a path (`/...`, `./...`).
        public: Whether a repository that is made can be seen by everybody.

    Returns:
        Where it is now.

    Raises:
        InputError: If the folder is not fit to be published, the place is not one, or the hub
            cannot be reached or refuses.
    """
    check_folder(folder)
    path = local_path(place)
    if path is None:
        return _told(place, lambda: _upload(folder, place, public=public))
    if path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{place} lies in {folder} itself; name another place")
    _copy(folder, path)
    return str(path)


def pull_folder(place: str, folder: Path, *, revision: str | None = None) -> None:
    """Bring a model from a place to a folder, whole or not at all.

    Args:
        place: As of `push_folder`.
        folder: To make; a model that is there is replaced.
        revision: Commit, branch or tag of a repository; None for its main branch.

    Raises:
        InputError: If the place has no such model, the folder holds something else, or the hub
            cannot be reached or refuses.
    """
    path = local_path(place)
    if path is not None:
        if revision:
            raise InputError(f"{place} is a plain folder, which has no revisions")
        check_folder(path)
        _copy(path, folder)
        return
    _check_replaced(folder)
    with atomic_directory(folder) as temporary:
        _told(place, lambda: _download(place, temporary, revision))
        check_folder(temporary, shown=place)


def local_path(place: str) -> Path | None:
    """Return the path that a place is; None for a repository of the hub.

    Raises:
        InputError: If it is neither.
    """
    if place.startswith(("/", "./", "../", "~")) or place in (".", ".."):
        return Path(place).expanduser()
    if not REPOSITORY.fullmatch(place):
        raise InputError(f"{place!r} is neither owner/name of the hub nor a path (/... or ./...)")
    return None


def check_folder(folder: Path, *, shown: str = "") -> None:
    """Raise InputError unless a folder is a model that can be published.

    Args:
        folder: What is looked at.
        shown: How it is called in messages; empty: by its path.
    """
    name = shown or str(folder)
    if not folder.is_dir():
        raise InputError(f"{name} is no folder; `geomem export pipeline` makes one")
    card = folder / CARD
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise InputError(f"{name} has no {CARD} with a model card's front matter")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        if path.suffix not in HARMLESS or path.is_symlink():
            told = "is a link" if path.is_symlink() else "may be a pickle or code"
            raise InputError(f"{name}: {path.relative_to(folder)} {told}; take it away")
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"{name} has no weights (*.safetensors)")


def _copy(source: Path, target: Path) -> None:
    _check_replaced(target)
    with atomic_directory(target) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)


def _check_replaced(folder: Path) -> None:
    """Raise InputError where a folder holds something else than a model."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        try:
            check_folder(folder)
        except InputError as error:
            raise InputError(f"{folder} is there and is not replaced: {error}") from None


def _upload(folder: Path, repository: str, *, public: bool) -> str:
    """The one function that writes to the hub."""
    from huggingface_hub import HfApi

    hub = HfApi()
    url = hub.create_repo(repository, private=not public, exist_ok=True)
    hub.upload_folder(
        repo_id=repository,
        folder_path=folder,
        commit_message="Model of geomem",
        delete_patterns="*",
    )
    return str(url)


def _download(repository: str, folder: Path, revision: str | None) -> None:
    """The one function that reads whole repositories of the hub."""
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in sorted(HARMLESS)]
    snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=patterns)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # of the download


def _told(repository: str, action: Callable[[], R]) -> R:
    """Return what an action on the hub returns; tell in one line why it failed."""
    from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled

    try:
        return action()
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise InputError(
            f"{repository} on the hub: {type(error).__name__}: {lines[0]} (a token comes from "
            "`hf auth login` or HF_TOKEN; without the hub, name a path)"
        ) from None
