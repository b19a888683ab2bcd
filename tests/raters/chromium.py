"""Chromium for tests, where this machine has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

playwright_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = Path("/usr/bin/chromium")
NEEDS_CHROMIUM = [
    pytest.mark.long,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install -y chromium"
    ),
]
LONG = 30_000  # milliseconds; several tests may share two cores


@contextmanager
def started() -> Iterator[Any]:
    """Run a browser."""
    with playwright_api.sync_playwright() as play:
        # tests may run as root, for whom Chromium has no sandbox
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()
