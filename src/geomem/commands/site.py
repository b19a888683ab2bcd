"""The results as a folder of pages: `geomem site`."""

import argparse
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.config.load import configured_scale
from geomem.jobs import job_config, job_parser
from geomem.layout import Layout

if TYPE_CHECKING:
    from geomem.site.build import Made


def site(args: argparse.Namespace) -> None:
    """Write tables, claims, figures and videos as pages that a browser shows from the disk."""
    config, root = job_config(args), Path(args.root)
    # jinja2 is needed where pages are made
    from geomem.site.build import build_site

    tracked = config.scale == configured_scale(root)
    made = made_by_git(root, Layout(config.scale).results)
    notes = build_site(config, root, args.output, made=made, tracked=tracked)
    for line in notes:
        print(f"not shown: {line}")
    print(f"{args.output / 'index.html'}: open it in a browser")


def made_by_git(root: Path, results: Path) -> "Made":
    """Return the last commit that changed the results of a scale, and whether they differ from it.

    Args:
        root: Of the project.
        results: Folder of the scale, relative to the root.
    """
    from geomem.site.build import Made

    told = _git(root, "log", "-1", "--format=%H %cs", "--", results.as_posix())
    if not told:
        return Made()
    commit, date = told.split()
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", results.as_posix())
    return Made(commit=commit, date=date, changed=bool(changed))


def _git(root: Path, *arguments: str) -> str:
    """Return what git says, empty where there is none or it is no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def add_commands(commands: Any) -> None:
    """Add `site` to the `geomem` command."""
    command = job_parser(commands.add_parser("site", help=site.__doc__, description=site.__doc__))
    command.add_argument(
        "--output", type=Path, default=Path("site"), help="folder to make (default: site)"
    )
    command.set_defaults(command=site)
