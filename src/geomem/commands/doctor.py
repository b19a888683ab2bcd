"""`geomem doctor`: what this machine has, and what cannot be reached from it."""

import argparse
import configparser
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geomem import slurm
from geomem.commands.verification import verify
from geomem.config import Config, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats.files import check_sha256, weights_remedy

PACKAGES = ("snakemake", "torch", "diffusers", "dvc", "mlflow")
PORTS = {"http": 80, "https": 443, "s3": 443, "ssh": 22}
HOSTS = {"s3": "s3.amazonaws.com", "hub": "https://huggingface.co"}
SLURM_CONF = "/etc/slurm/slurm.conf"  # where Slurm looks
PATIENCE = 5.0  # seconds for a connection

PYTHON = (3, 11)  # the oldest, as pyproject.toml says
LEAST_DISK = 5  # GiB; the main job at `tiny` takes about one, an environment three

OK, NONE, FAULT = "ok", "-", "FAULT"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `OK`, `NONE` (nothing there, and nothing is wrong with that), or `FAULT`.
        what: What was looked at.
        found: What was found and, for a fault, what to do.
    """

    state: str
    what: str
    found: str


def unreachable(address: str, *, patience: float = PATIENCE) -> str | None:
    """Return why an address cannot be reached, or None if it can.

    Args:
        address: A URL, of which the host is asked for a connection, or a folder.
        patience: Seconds that a host has to answer.
    """
    parts = urlsplit(address)
    if parts.scheme in ("", "file"):
        folder = Path(parts.path if parts.scheme else address)
        return None if folder.is_dir() else f"{folder} is no folder"
    host = parts.hostname if parts.scheme != "s3" else HOSTS["s3"]
    port = parts.port if parts.scheme != "s3" else None
    if host is None:
        return f"{address} names no host"
    try:
        socket.create_connection((host, port or PORTS.get(parts.scheme, 443)), patience).close()
    except OSError as error:
        return f"{host} does not answer ({error.strerror or error})"
    return None


def python() -> Iterator[Finding]:
    """Look at the interpreter."""
    here, least = platform.python_version(), ".".join(map(str, PYTHON))
    if sys.version_info < PYTHON:
        found = f"{here}: install {least} or newer, then make setup"
        yield Finding(state=FAULT, what="Python", found=found)
    else:
        yield Finding(state=OK, what="Python", found=f"{here} ({sys.executable})")


def packages() -> Iterator[Finding]:
    """Look at the packages of the environment."""
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding(state=FAULT, what="packages", found=f"no {', '.join(missing)}: make setup")
    else:
        yield Finding(state=OK, what="packages", found=", ".join(found))


def machine(root: Path) -> Iterator[Finding]:
    """Look at GPU, Slurm, LaTeX and the disk."""
    import torch

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    alone = "none, so CPUs compute: scales tiny and smoke; others need a GPU (docs/cluster.md)"
    yield Finding(state=OK if cards else NONE, what="GPU", found=", ".join(cards) or alone)
    partitions = ", ".join(sorted(slurm.partitions())) if shutil.which("sbatch") else ""
    if partitions:
        yield Finding(state=OK, what="Slurm", found=f"partitions {partitions}")
    elif shutil.which("sbatch") and Path(os.environ.get("SLURM_CONF", SLURM_CONF)).exists():
        yield Finding(state=FAULT, what="Slurm", found="sinfo does not answer: is it up?")
    else:
        yield Finding(
            state=NONE, what="Slurm", found="none: start on a login node for --profile slurm"
        )
    latex = shutil.which("latexmk")
    yield Finding(
        state=OK if latex else NONE,
        what="LaTeX",
        found=latex or "none: all but the PDF is made (make latex)",
    )
    yield disk(shutil.disk_usage(root).free / 2**30)


def disk(free: float) -> Finding:
    """Judge how many GiB are free."""
    told = f"{free:.0f} GiB free; `geomem plan` says what a scale takes"
    if free < LEAST_DISK:
        told = f"{free:.1f} GiB free, {LEAST_DISK} are wanted: free some, or `geomem plan`"
    return Finding(state=OK if free >= LEAST_DISK else FAULT, what="disk", found=told)


def tracked(config: Config, root: Path) -> Iterator[Finding]:
    """Look at the results that git has, and at the large files that DVC has."""
    dag = Dag(config)
    begun = (root / dag.layout.results).is_dir()
    faults = verify(config, root, main_job=True) if begun else []
    more = f" and {len(faults) - 1} more: geomem verify --main-job" if len(faults) > 1 else ""
    if not begun:
        told = f"not made yet: snakemake --config scale={config.scale} only=main"
        yield Finding(state=NONE, what="main job", found=told)
    elif faults:
        told = f"{faults[0]}{more}; `make reproduce` makes it"
        yield Finding(state=FAULT, what="main job", found=told)
    else:
        yield Finding(state=OK, what="main job", found=f"verified at scale {config.scale}")
    for folder in dag.layout.large:
        jobs = dag.below(folder)
        here = sum((root / job.record).exists() for job in jobs)
        whole = here == len(jobs)
        found = f"{here} of {len(jobs)} are here"
        if not begun:
            found += "; `snakemake` makes them"
        elif not whole:
            found += "; none is needed while the main job verifies, `dvc pull` brings them"
        yield Finding(state=OK if whole else NONE, what=folder.name, found=found)


def remotes(root: Path) -> Iterator[Finding]:
    """Look at DVC's remotes, from which `dvc pull` fetches what is large."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([root / ".dvc/config", root / ".dvc/config.local"])
    sections = [name for name in settings.sections() if "remote" in name]
    if not sections:
        found = "none: `dvc pull` has nowhere to pull from, `dvc repro` needs none"
        yield Finding(state=NONE, what="DVC remote", found=found)
    for section in sections:
        url = settings[section].get("url", "")
        # a folder is told from .dvc on
        local = urlsplit(url).scheme == "" and not Path(url).is_absolute()
        place = settings[section].get("endpointurl", str(root / ".dvc" / url) if local else url)
        reason = unreachable(place)
        yield Finding(
            state=FAULT if reason else OK,
            what="DVC remote",
            found=f"{url}{_why(reason)}" + ("; `dvc remote modify` changes it" if reason else ""),
        )


def tracking(config: Config) -> Iterator[Finding]:
    """Look at the store of MLflow."""
    uri = config.tracking.uri
    served = urlsplit(uri).scheme in ("http", "https")
    reason = unreachable(uri) if served else None
    if reason:
        reason += "; `geomem track upload` brings runs when it is back"
    yield Finding(state=FAULT if reason else OK, what="tracking", found=f"{uri}{_why(reason)}")


def terms(config: Config, root: Path) -> Iterator[Finding]:
    """Look for data sets and weights that this scale downloads, and nobody has accepted yet."""
    dag = Dag(config)
    used = {split.dataset for split in config.settings.splits.values()}
    sets = {name for name in used if getattr(config.datasets[name], "archive", None)}
    bound = {name for name in sets if not (root / dag.layout.unpacked(name)).exists()}
    for path, file in dag.downloads().items():
        if file.terms and not (root / path).exists():
            bound.add(path)
    for name in sorted(bound - {*config.accepted_terms}):
        told = f"{name}: read them in data/README.md, then add it to `accepted_terms`"
        yield Finding(state=FAULT, what="terms", found=told)


def hub(config: Config, root: Path) -> Iterator[Finding]:
    """Look at the weights of this scale, tracked and published, and at what has the first that is
    missing."""
    known = Dag(config).downloads()
    for path, sha256 in Dag(config).pinned().items():
        if str(path) not in known and sha256:
            try:
                check_sha256(root / path, sha256, weights_remedy(path))
            except InputError as error:
                here = (root / path).exists()
                told = str(error) if here else f"{path} is missing; {weights_remedy(path)}"
                yield Finding(state=FAULT, what="weights", found=told)
                return
    missing = [path for path in known if not (root / path).exists()]
    if not missing:
        yield Finding(state=OK, what="weights", found="all of this scale are here")
        return
    reason = unreachable(getattr(known[missing[0]], "url", HOSTS["hub"]))
    yield Finding(
        state=FAULT if reason else NONE,
        what="weights",
        found=f"{missing[0]} will be downloaded{_why(reason)}"
        + ("; bring it here by hand, or run where the hub is" if reason else ""),
    )


def _why(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def findings(config: Config, root: Path) -> Iterator[Finding]:
    """Look at everything, one after the other."""
    yield from python()
    yield from packages()
    yield from machine(root)
    yield from tracked(load_config(root, scale=config.scale, main_job=True), root)
    yield from remotes(root)
    yield from tracking(config)
    yield from terms(config, root)
    yield from hub(config, root)


def run_doctor(args: argparse.Namespace) -> None:
    """Say what this machine has and what cannot be reached; fail if something is wrong."""
    faults = 0
    for finding in findings(load_config(args.root, scale=args.scale), args.root):
        print(f"{finding.state:5s}  {finding.what:12s} {finding.found}", flush=True)
        faults += finding.state == FAULT
    if faults:
        raise InputError(f"{faults} of these are faults")


def add_commands(commands: Any) -> None:
    """Add `doctor` to the `geomem` command."""
    command = commands.add_parser("doctor", help=run_doctor.__doc__)
    command.add_argument("--root", type=Path, default=Path(), help="root of the project")
    command.add_argument("--scale", help="scale (default: the one config/config.yaml names)")
    command.set_defaults(command=run_doctor)
