"""Commands of `geomem` that keep the project's own files in order."""

import argparse
from pathlib import Path
from typing import Any

from geomem.canonical import canonical_json
from geomem.errors import InputError
from geomem.formats import atomic_path, read_json, write_json

SCHEMA = Path("workflow/schemas/config.schema.json")
LOCK = Path("versions.lock")


def schema_text() -> str:
    """Return the JSON schema of the configuration, from its pydantic models."""
    from geomem.config import Config

    return canonical_json(Config.model_json_schema())


def write_schema(args: argparse.Namespace) -> None:
    """Write the configuration's schema, or with --check compare it with the models."""
    path = args.root / SCHEMA
    if not args.check:
        with atomic_path(path) as temporary:
            temporary.write_text(schema_text(), encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != schema_text():
        raise InputError(f"{path} differs from the models; run `geomem schema`")


def lock_versions(args: argparse.Namespace) -> None:
    """Refresh the lock of the stages' versions, or with --check compare it with the sources."""
    from geomem.versions import versions

    path, found = args.root / LOCK, versions()
    if not args.check:
        write_json(path, found)
        return
    faults = stale_stages(read_json(path), found)
    if faults:
        raise InputError("\n".join(faults))


def stale_stages(locked: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return one line for every stage that is not as locked."""
    return [
        f"sources of stage {stage} changed: bump VERSION in src/geomem/{stage}/version.py if its "
        "outputs change, then (or else at once) refresh the lock with `geomem versions-lock`"
        for stage in sorted(found.keys() | locked.keys())
        if locked.get(stage) != found.get(stage)
    ]


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `geomem`."""
    for name, run in (("schema", write_schema), ("versions-lock", lock_versions)):
        command = commands.add_parser(name, help=run.__doc__)
        command.add_argument("--root", type=Path, default=Path(), help="root of the project")
        command.add_argument("--check", action="store_true", help="compare, write nothing")
        command.set_defaults(command=run)
