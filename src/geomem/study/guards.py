"""What stands before the pages of a study: headers, sizes of bodies, tries at the password."""

import hmac
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

BODY = 4096  # bytes; a vote has about 150
TRIES, WINDOW = 5, 60.0  # wrong passwords from one address in so many seconds
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # the address has the invitation
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"x-robots-tag", b"noindex"),
)


class SafeHeaders:
    """ASGI middleware that adds HEADERS to every response, and forbids to keep pages."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                if not any(name == b"cache-control" for name, _ in given):
                    given.append((b"cache-control", b"no-store"))
                message["headers"] = [*given, *HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)


async def small_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; of a body above BODY bytes no more than that is read.

    Raises:
        HTTPException: 413 if it is larger, 400 if it is no form.
    """
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or int(told) > BODY:
        raise HTTPException(413, "This request is too large.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise HTTPException(413, "This request is too large.")
    try:
        return dict(parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=20))
    except ValueError:  # of ASCII, too
        raise HTTPException(400, "This request is no form.") from None


class Password:
    """A password, compared in constant time, with a limit on wrong tries from one address."""

    def __init__(self, password: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._password, self._clock = password.encode(), clock
        self._wrong: dict[str, list[float]] = {}

    def check(self, given: str | None, address: str) -> None:
        """Return if it is right.

        Raises:
            HTTPException: 401 if it is wrong or none, 429 after TRIES wrong ones in WINDOW seconds.
        """
        now = self._clock()
        recent = {
            known: kept
            for known, times in self._wrong.items()
            if (kept := [moment for moment in times if now - moment < WINDOW])
        }
        self._wrong = recent
        if len(recent.get(address, [])) >= TRIES:
            wait = {"Retry-After": str(int(WINDOW))}
            raise HTTPException(429, "Too many wrong passwords; wait a minute.", wait)
        if given is not None and hmac.compare_digest(given.encode(), self._password):
            return
        if given is not None:
            recent.setdefault(address, []).append(now)
        asked = {"WWW-Authenticate": 'Basic realm="study", charset="UTF-8"'}
        raise HTTPException(401, "The password is wrong or missing.", asked)
