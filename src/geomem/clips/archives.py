"""Fetch a published archive in parts, and unpack them without trusting it."""

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from geomem.errors import InputError
from geomem.formats import atomic_directory, sha256_file, write_json
from geomem.formats.addresses import fetch_address

Fetch = Callable[..., str]
GZIP = b"\x1f\x8b"  # how such a file begins


def download_parts(
    repository: str,
    files: Mapping[str, str],
    folder: Path,
    *,
    revision: str,
    fetch: Fetch | None = None,
) -> list[Path]:
    """Fetch files of a repository into `folder`; a stopped download goes on where it stopped.

    What came is recorded in `folder`/archive.json: repository, revision and checksums.

    Args:
        repository: `owner/name` on the Hugging Face hub, or what else `fetch` takes.
        files: Paths inside it with their SHA-256, empty where it is not known.
        folder: Where they go, under the same paths.
        revision: Commit of the repository.
        fetch: `huggingface_hub.hf_hub_download` by default; `fetch_below` of an address.

    Raises:
        InputError: If the host cannot be reached or refuses, or a file is not the pinned one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, HTTPError, XetDownloadError

    # a full disk is an OSError as well, but the command line has its own words for that
    faults = (HTTPError, HFValidationError, XetDownloadError, FileNotFoundError, ConnectionError)
    paths = []
    for file in files:
        try:
            path = (fetch or hf_hub_download)(repository, file, local_dir=folder, revision=revision)
        except faults as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise InputError(
                f"{file} of {repository} cannot be fetched ({reason}); connect to the network and "
                f"run again (it resumes), or put the file at {folder / file}"
            ) from None
        paths.append(Path(path))
    checksums = {file: sha256_file(path) for file, path in zip(files, paths, strict=True)}
    for file, expected in files.items():
        if expected and checksums[file] != expected:
            raise InputError(
                f"{folder / file} is not the file that the configuration pins (SHA-256 "
                f"{checksums[file]}, expected {expected}); delete it and run again"
            )
    record = {"repository": repository, "revision": revision, "files": checksums}
    write_json(folder / "archive.json", record)
    return paths


def fetch_below(address: str, file: str, *, local_dir: Path, revision: str) -> str:
    """Fetch `address`/`file` to `local_dir`/`file`, unless it is there, and return its path.

    It stands in for the hub's function, whose `revision` means nothing at an address.
    """
    path = local_dir / file
    if not path.is_file():
        fetch_address(path, f"{address}/{file}", sha256="")
    return str(path)


class PartStream(io.RawIOBase):
    """Files read one after the other as if they were one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        """Remember the parts; each is opened when its turn comes."""
        self._waiting = list(parts)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the current part, or the next one where it has ended."""
        while self._open or self._waiting:
            self._open = self._open or self._waiting.pop(0).open("rb")
            chunk = self._open.read(len(buffer))
            if chunk:
                buffer[: len(chunk)] = chunk
                return len(chunk)
            self._open.close()
            self._open = None
        return 0


def unpack_parts(parts: Sequence[Path], folder: Path) -> None:
    """Unpack a .tar or .tar.gz that was cut into parts; `folder` appears when all is unpacked.

    Raises:
        InputError: If a part is missing, the archive is truncated, or a member would leave
            `folder` or is no plain file or folder.
    """
    missing = [str(part) for part in parts if not part.is_file()]
    if missing:
        raise InputError(f"{missing[0]} is missing; download the archive first")
    names = " + ".join(part.name for part in parts)
    stream = io.BufferedReader(PartStream(parts), buffer_size=1 << 20)
    with atomic_directory(folder) as temporary:
        try:
            if stream.peek(2)[:2] == GZIP:
                # tarfile takes a stream that ends early for a short archive; gzip does not, if it
                # is read to its end
                with gzip.open(stream) as unzipped:
                    _unpack_tar(unzipped, temporary, names)
                    while unzipped.read(1 << 20):
                        pass
            else:
                # nor does it miss the block of zeros after the last member
                end = _unpack_tar(stream, temporary, names) + tarfile.BLOCKSIZE
                if sum(part.stat().st_size for part in parts) < end:
                    raise EOFError("it has no end")
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{names} is truncated or no {_kind(names)} ({error}); delete the last part, "
                "download again"
            ) from None


def _unpack_tar(stream: Any, folder: Path, names: str) -> int:
    """Unpack an archive; return where its members end."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            _unpack_member(archive, member, folder, names)
        return archive.offset


def _kind(names: str) -> str:
    return ".tar.gz" if ".gz" in names else ".tar"


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, names: str
) -> None:
    # Not `extractall(filter="data")`: Debian 12's Python 3.11.2 does not know it.
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise InputError(
            f"{names}: refused, {member.name} would be written outside or is no plain file; "
            "fetch the archive again from its publisher"
        )
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None  # a plain file has content
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
