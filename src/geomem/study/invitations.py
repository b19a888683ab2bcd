"""Signed invitations: who has one is a rater of this study, and nobody else is."""

import os
import secrets
from pathlib import Path

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from geomem.errors import InputError

SECRET = "GEOMEM_STUDY_SECRET"
SECRET_FILE = "secret"
LEAST = 16  # characters of a secret
DAY = 24 * 3600  # seconds


class InvitationError(Exception):
    """A token that is no invitation: the message is for the rater."""


class Invitations:
    """Makes and checks tokens of one study."""

    def __init__(self, secret: str, study: str, *, days: float = 60) -> None:
        """Keep what tokens are signed with.

        Args:
            secret: At least LEAST characters.
            study: Its digest.
            days: For so long an invitation holds.
        """
        self._signer = URLSafeTimedSerializer(secret, salt=f"geomem study {study}")
        self._seconds = days * DAY

    def make(self) -> tuple[str, str]:
        """Return a new rater's pseudonym and token."""
        rater = secrets.token_hex(6)
        return rater, str(self._signer.dumps(rater))

    def rater(self, token: str) -> str:
        """Return the rater that a token was made for.

        Raises:
            InvitationError: If it was not made here, or too long ago.
        """
        try:
            # whole seconds, and to itsdangerous an age of 0 is no age
            return str(self._signer.loads(token, max_age=int(self._seconds)))
        except SignatureExpired:
            raise InvitationError(
                "This invitation has expired. Please ask for a new link."
            ) from None
        except BadSignature:
            raise InvitationError(
                "This is no valid invitation. Please open the link exactly as you were sent it."
            ) from None


def study_secret(folder: Path) -> str:
    """Return the secret of the environment, else of the study's folder, where it is made once.

    Raises:
        InputError: If it is too short, or others can read its file.
    """
    given = os.environ.get(SECRET)
    if given is not None:
        if len(given) < LEAST:
            raise InputError(f"{SECRET} has {len(given)} characters; give at least {LEAST}")
        return given
    path = folder / SECRET_FILE
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise InputError(f"others can read {path}; delete it, and invite again")
    found = path.read_text(encoding="ascii").strip()
    if len(found) < LEAST:
        raise InputError(f"{path} is damaged; delete it, and invite again")
    return found


def _make(path: Path) -> None:
    """Write a secret, whole; where another process has just written one, that one stands."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        partial.unlink()
