"""One published file of a hub's repository, pinned."""

import shutil
from pathlib import Path

from geomem.errors import InputError
from geomem.formats.files import atomic_path, check_sha256


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
