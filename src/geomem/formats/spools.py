"""Metrics of a running job, a line of JSON a step, that another process may read meanwhile.

A job writes its spool and never hears of a tracking server: where the disk fails, the job goes on
without its spool. The first line says whose metrics they are; a line torn by a crash is skipped.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomem.canonical import digest

SPOOL = "metrics.jsonl"


def spool_header(identity: Mapping[str, Any], made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spool's first line for a run in the making.

    Runs of the same settings, stage version and inputs are one run, however often it is resumed.

    Args:
        identity: `variant` and `seed`.
        made_by: Provenance of the checkpoint in the making.
    """
    run = {"variant": identity["variant"], "seed": identity["seed"], "run": digest(dict(made_by))}
    return {**run, "settings": made_by["settings"]}


class Spool:
    """The writing end; one process of a run has it."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Go on with the spool of the same run, or begin it anew."""
        self._path = path
        self._broken = False
        first = json.dumps(header, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            if content.partition(b"\n")[0] == first.encode():
                # a crash may have torn the last line
                self._append("" if content.endswith(b"\n") else "\n")
            else:
                path.write_text(first + "\n", encoding="utf-8")
        except OSError:
            self._broken = True

    def write(self, entry: Mapping[str, float]) -> None:
        """Append one step's metrics, `step` among them; a failing disk ends the spool alone."""
        if not self._broken:
            try:
                self._append(json.dumps(entry) + "\n")
            except OSError:
                self._broken = True

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def read_spool(path: Path, offset: int = 0) -> tuple[dict[str, Any], list[dict[str, float]], int]:
    """Return (header, entries written since byte `offset`, byte after the last whole line).

    The header is empty where the job has not yet written it, or has ended and taken it away.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
            header = json.loads(first) if first.endswith(b"\n") else {}
            file.seek(max(offset, len(first)))
            lines = file.read()
    except (FileNotFoundError, json.JSONDecodeError):
        return {}, [], offset
    whole, _, _ = lines.rpartition(b"\n")
    entries = []
    for line in whole.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    end = max(offset, len(first)) + (len(whole) + 1 if b"\n" in lines else 0)
    return header, entries, end
