"""One file at an address of the web, fetched so that no failure costs what is there already.

What has arrived lies beside the file under the name `<file>.part` until all of it is there and is
the right one; the next try, or the next run, goes on from its end. It does so only if the server
says that it is the same file still (its entity tag), and begins anew otherwise.
"""

import errno
import os
import time
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from geomem.errors import InputError
from geomem.formats.files import exclusive, sha256_file

PATIENCE = 60.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing new
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds
CHUNK = 1 << 20
OVERLOADED = (429, 500, 502, 503, 504)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NOTHING_LEFT = 416


def fetch_address(
    path: Path,
    url: str,
    *,
    sha256: str,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch what lies at an https address to `path`, and compare its checksum.

    A connection that is cut or silent is tried again, from where it was; a server that has too
    much to do is given the time that it asks for, five minutes at most.

    Args:
        path: File to write; it appears when all of it is there and is the right one.
        url: The address; plain http on this machine alone.
        sha256: Of the file, or its first digits; empty where it is not known.
        patience: Seconds without a byte after which a try has failed.
        sleep: Waits so many seconds.

    Raises:
        InputError: If the address cannot be reached or refuses, the disk is full, or what lies
            there is not the pinned file.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise InputError(f"{url} is no https address")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, tag = (path.with_name(path.name + end) for end in (".part", ".part.tag"))
    with exclusive(path.parent, part=path.name):
        _fill(part, tag, url, path, patience=patience, sleep=sleep)
        found = sha256_file(part)
        tag.unlink(missing_ok=True)
        if not found.startswith(sha256):
            part.unlink()
            raise InputError(
                f"{url} is not the pinned file (SHA-256 {found[:12]}..., expected "
                f"{sha256[:12]}...); look at the address, or name the checksum if you trust it"
            )
        part.replace(path)


def _fill(
    part: Path,
    tag: Path,
    url: str,
    path: Path,
    *,
    patience: float,
    sleep: Callable[[float], None],
) -> None:
    """Bring `part` to its full length, in as many tries as go forward."""
    tries, wait = 0, FIRST_WAIT
    while True:
        before, asked_for = _size(part), None
        try:
            if _append(part, tag, url, patience):
                return
            reason = "the connection was cut"
        except HTTPError as error:
            if error.code == NOTHING_LEFT:  # what is there is no beginning of what lies there now
                part.unlink(missing_ok=True)
            elif error.code not in OVERLOADED:
                raise _failed(url, path, f"HTTP {error.code} {error.reason}") from None
            reason = f"HTTP {error.code} {error.reason}"
            asked_for = _retry_after(error.headers.get("Retry-After"))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"{part}: {os.strerror(error.errno)} after {_size(part)} bytes; make room and "
                    "run again, it goes on from there"
                ) from None
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        except HTTPException as error:
            reason = str(error) or type(error).__name__
        if _size(part) > before:
            tries, wait = 0, FIRST_WAIT
        tries += 1
        if tries >= TRIES:
            raise _failed(url, path, reason)
        sleep(min(wait if asked_for is None else asked_for, LONGEST_WAIT))
        wait *= 2


def _append(part: Path, tag: Path, url: str, patience: float) -> bool:
    """Append what the server has beyond `part`; return whether that is all of it."""
    begun, known = _size(part), tag.read_text(encoding="utf-8") if tag.exists() else ""
    asked = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if begun and known:
        asked.add_header("Range", f"bytes={begun}-")
        asked.add_header("If-Range", known)
    with urllib.request.urlopen(asked, timeout=patience) as answer:
        goes_on = answer.status == 206 and _first_byte(answer) == begun
        entity = answer.headers.get("ETag") or ""
        tag.write_text("" if entity.startswith("W/") else entity, encoding="utf-8")
        length = answer.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                out.flush()
    whole = None if length is None else int(length) + (begun if goes_on else 0)
    return whole is None or _size(part) == whole


def _first_byte(answer: HTTPResponse) -> int | None:
    """Return where the bytes of a partial answer begin: `bytes 100-199/200`."""
    unit, _, span = (answer.headers.get("Content-Range") or "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _retry_after(given: str | None) -> float | None:
    """Return for how many seconds a server asks to be left alone: a number, or a date."""
    if given is None:
        return None
    if given.strip().isdigit():
        return float(given)
    try:
        return max(parsedate_to_datetime(given).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failed(url: str, path: Path, reason: str) -> InputError:
    there = _size(path.with_name(path.name + ".part"))
    kept = f"; {there} bytes are kept, run again to go on" if there else ""
    return InputError(
        f"{url} cannot be fetched ({reason}){kept}; on a machine without the network, bring the "
        f"file to {path}"
    )
