"""One published file, pinned: of a hub's repository, or at an address."""

import shutil
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from geomem.errors import InputError
from geomem.formats.files import atomic_path, check_sha256, sha256_file

PATIENCE = 60.0  # seconds without an answer


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


def fetch_address(path: Path, url: str, *, sha256: str) -> None:
    """Fetch what lies at an https address to `path`, and compare its checksum.

    Args:
        path: File to write; it appears when all of it is there and is the right one.
        url: The address.
        sha256: Of the file, or its first digits; empty where it is not known.

    Raises:
        InputError: If the address cannot be reached, or what lies there is not the pinned file.
    """
    if not url.startswith("https://"):
        raise InputError(f"{url} is no https address")
    with atomic_path(path) as temporary:
        try:
            with (
                urllib.request.urlopen(url, timeout=PATIENCE) as answer,
                temporary.open("wb") as out,
            ):
                shutil.copyfileobj(answer, out)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or error
            raise InputError(
                f"{url} cannot be fetched ({reason}); on a machine without the network, "
                f"bring the file to {path}"
            ) from None
        found = sha256_file(temporary)
        if not found.startswith(sha256):
            raise InputError(
                f"{url} is not the pinned file (SHA-256 {found[:12]}..., expected "
                f"{sha256[:12]}...); look at the address, or name the checksum if you trust it"
            )
