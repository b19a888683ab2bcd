"""Fetch a file from an address, going on where a stopped download stopped."""

import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

TIMEOUT = 60  # seconds without a byte


def fetch_file(repository: str, file: str, *, local_dir: Path, revision: str = "") -> str:
    """Fetch `repository`/`file` to `local_dir`/`file` and return its path.

    What has come so far lies beside it as `<file>.incomplete`; the next call asks for the rest. A
    file that is there is taken as it is.

    Args:
        repository: Address that the file lies below, as `https://archive.org/download`.
        file: Path below it.
        local_dir: Folder.
        revision: Of no use here; the hub's function has it.

    Raises:
        ConnectionError: If the address cannot be reached, refuses, or stops before the end.
    """
    target = Path(local_dir) / file
    if target.is_file():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.incomplete")
    have = partial.stat().st_size if partial.exists() else 0
    request = Request(f"{repository}/{quote(file)}", headers={"Range": f"bytes={have}-"})
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            resumed = answer.status == 206  # else the server sends it all again
            have = have if resumed else 0
            expected = have + int(answer.headers["Content-Length"])
            with partial.open("ab" if resumed else "wb") as sink:
                shutil.copyfileobj(answer, sink, 1 << 20)
    except HTTPError as error:
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if error.code != 416 or total != str(have):  # else nothing was missing but the name
            raise ConnectionError(f"HTTP {error.code} {error.reason}") from None
        expected = have
    except (URLError, HTTPException, TimeoutError) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from None
    if (size := partial.stat().st_size) != expected:
        raise ConnectionError(f"it stopped after {size} of {expected} bytes")
    partial.replace(target)
    return str(target)
