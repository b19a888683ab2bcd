"""Canonical JSON, and the short digest by which settings are told apart."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and one final newline; NaN is refused."""
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
