"""Files of every format: atomic writing, canonical JSON, checksums, tensors.

Files appear under their final name only when they are complete: they are written beside it, flushed
to disk and renamed. JSON is canonical (sorted keys, no time stamps, no random ids), so equal
content is equal bytes.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geomem.canonical import canonical_json
from geomem.errors import InputError

# How numpy and safetensors tell of a full disk, since they drop or wrap the system's error
FULL_DISK = ("requested and", "problem writing element", "os error 28", "os error 122")


@contextlib.contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Raise OSError with ENOSPC and `path` for whatever a library makes of a full disk."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if known or any(words in str(error) for words in FULL_DISK):
            reason = os.strerror(errno.ENOSPC)
            raise OSError(errno.ENOSPC, reason, str(path)) from error
        raise


def _drop_leftovers(path: Path, suffix: str = "") -> None:
    """Remove what killed writers of this very path have left beside it; one at a time writes."""
    leftover = re.compile(rf"\.{re.escape(path.name)}\.(old\.)?\w{{8}}{re.escape(suffix)}")
    for other in path.parent.iterdir():
        if leftover.fullmatch(other.name):
            shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_leftovers(path, path.suffix)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _naming_full_disk(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        # mkstemp makes private files; results are for the whole group
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_leftovers(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with _naming_full_disk(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
        temporary.chmod(0o755)
        if path.exists():
            outdated = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.replace(outdated / "outdated")
            temporary.replace(path)
            shutil.rmtree(outdated)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def exclusive(directory: Path | str, *, part: str = "", wait: bool = False) -> Iterator[None]:
    """Hold `directory`, or the part of that name in it, for this process alone.

    Args:
        directory: Is made where it is missing.
        part: Name of what is held in it; empty for all.
        wait: Whether to wait until another process that holds it is done, however long that takes.

    Raises:
        InputError: If another process works in it, and it is not waited for.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    name = f".lock-{part}" if part else ".lock"
    with (directory / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(
                f"{directory / part} is in use by another run; wait for it to end or stop it first"
            ) from None
        yield


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as canonical JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(canonical_json(value), encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: If the file is missing, truncated, not JSON, or holds what is no number.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run the workflow to make it") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise InputError(
            f"{path} is not readable JSON ({error}); delete it and run the workflow again"
        ) from None


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}")


def read_record(path: Path | str, *names: str) -> dict[str, Any]:
    """Return the content of a JSON file that has at least these names at its top.

    Raises:
        InputError: If it is missing, damaged, or of another shape.
    """
    content = read_json(path)
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise InputError(
            f"{path} has no {missing[0]!r} and so is no such record; delete it and run the "
            "workflow again"
        )
    found: dict[str, Any] = content
    return found


def weights_remedy(path: Path) -> str:
    """Return what to do about damaged weights: the repository has those below `weights/`."""
    if "weights" in path.parts[:1]:
        return f"bring it back with `git checkout -- {path}`"
    return "delete it and run the workflow again"


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run the workflow to make it") from None


def check_sha256(
    path: Path | str, expected: str, remedy: str = "delete it and run the workflow again"
) -> None:
    """Raise InputError, which tells the remedy, unless the file has the expected SHA-256."""
    actual = sha256_file(path)
    if actual != expected:
        raise InputError(
            f"{path} fails its checksum (SHA-256 {actual[:12]}..., expected {expected[:12]}...); "
            f"{remedy}"
        )


def write_tensors(path: Path | str, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Write tensors as safetensors with a JSON `metadata` entry, atomically; return the SHA-256."""
    from safetensors.torch import save_file

    header = {"metadata": json.dumps(metadata, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, header)
        return sha256_file(temporary)


def read_tensors(path: Path | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (tensors by name, metadata) of a safetensors file.

    Raises:
        InputError: If the file is missing or truncated.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path} is missing; run the workflow to make it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("metadata", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{path} is truncated or no safetensors file ({error}); delete it and run again"
        ) from None
