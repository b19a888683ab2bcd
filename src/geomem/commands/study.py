"""A preference study with people: `geomem study`."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.config import Config
from geomem.errors import InputError
from geomem.jobs import job_config, job_parser
from geomem.layout import Layout

if TYPE_CHECKING:
    from geomem.study.build import Clip
    from geomem.study.invitations import Invitations
    from geomem.study.plan import Study
    from geomem.study.votes import Votes

ADMIN = "GEOMEM_STUDY_ADMIN"
HOST, PORT = "127.0.0.1", 8321
RATE = 8  # frames a second


def build(args: argparse.Namespace) -> None:
    """Make the folder of a study from generated videos."""
    config, root = job_config(args), Path(args.root)
    if len(set(args.variants)) < max(2, len(args.variants)):
        raise InputError("--variants: name at least two, each once")
    seeds = {variant: _seed(config, variant) for variant in args.variants}
    _check_there(config, root, args.protocol, seeds)
    clips, sources = _clips(config, root, args.protocol, seeds, args.clips)
    from geomem.study.build import build_study

    study = build_study(
        args.folder,
        clips,
        title=args.title,
        rate=args.rate,
        checks=args.checks,
        repeats=args.repeats,
        made_of={"scale": config.scale, "protocol": args.protocol, "rollouts": sources},
    )
    print(
        f"{args.folder}: {len(study.comparisons)} comparisons of {len(args.variants)} variants on "
        f"{len(clips)} clips; next: geomem study serve {args.folder}"
    )


def _seed(config: Config, variant: str) -> int:
    if variant not in config.variants:
        raise InputError(f"--variants {variant}: the study has none of that name")
    return config.seeds_of(variant)[0]


def _check_there(config: Config, root: Path, protocol: str, seeds: dict[str, int]) -> None:
    """Raise InputError that names all rollouts which are missing."""
    layout = Layout(config.scale)
    records = [layout.rollout_record(variant, seed, protocol) for variant, seed in seeds.items()]
    missing = [record.as_posix() for record in records if not (root / record).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(records)} rollouts are missing; make them with "
            f"`snakemake --config scale={config.scale} -- {' '.join(missing)}`"
        )


def _clips(
    config: Config, root: Path, protocol: str, seeds: dict[str, int], number: int
) -> "tuple[list[Clip], dict[str, str]]":
    """Return clips, spread over the split, and the checksum of each variant's videos."""
    import numpy as np

    from geomem.commands.export import read_rollout
    from geomem.study.build import Clip

    made = {
        variant: read_rollout(root, config, variant=variant, protocol=protocol, seed=seed)
        for variant, seed in seeds.items()
    }
    one = next(iter(made.values()))
    if not 0 < number <= len(one.store):
        raise InputError(f"--clips {number}: the split of {protocol} has {len(one.store)}")
    length = min(videos.rgb.shape[1] for videos in made.values())
    clips = [
        Clip(
            clip_id=one.store.clips[row].clip_id,
            cameras=one.store.cameras(row)[:length],
            truth=one.store.rgb(row)[:length],
            videos={variant: videos.rgb[row, :length] for variant, videos in made.items()},
            context=one.context,
        )
        for row in np.linspace(0, len(one.store) - 1, number).round().astype(int).tolist()
    ]
    return clips, {variant: videos.sha256 for variant, videos in made.items()}


def _open(args: argparse.Namespace) -> "tuple[Study, Votes]":
    from geomem.study.plan import read_study
    from geomem.study.votes import Votes

    study = read_study(args.folder)
    address = args.database or f"sqlite:///{args.folder.resolve() / 'votes.sqlite'}"
    return study, Votes(address, study.digest)


def _invitations(folder: Path, study: "Study", days: float) -> "Invitations":
    from geomem.study.invitations import Invitations, study_secret

    return Invitations(study_secret(folder), study.digest, days=days)


def serve(args: argparse.Namespace) -> None:
    """Serve the pages of a study until stopped."""
    study, votes = _open(args)
    import uvicorn

    from geomem.study.server import NO_ADMIN, make_app

    admin = os.environ.get(ADMIN) or None
    invitations = _invitations(args.folder, study, args.days)
    app = make_app(args.folder, study, votes, invitations, admin=admin)
    at = f"http://{args.host}:{args.port}"
    print(f"study at {at}; stop with Ctrl-C", flush=True)
    print(f"progress at {at}/admin" if admin else NO_ADMIN, flush=True)
    # Addresses have invitations, so they are not logged; headers of proxies are not believed.
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )


def invite(args: argparse.Namespace) -> None:
    """Print links for new raters: pseudonym and address."""
    from geomem.study.plan import read_study

    if args.raters < 1:
        raise InputError("--raters must be at least 1")
    study = read_study(args.folder)
    invitations = _invitations(args.folder, study, days=1)
    for _ in range(args.raters):
        rater, token = invitations.make()
        print(f"{rater}\t{args.base_url.rstrip('/')}/s/{token}")


def export(args: argparse.Namespace) -> None:
    """Write all votes as CSV, one line for each rater, comparison and question."""
    from geomem.study.ballots import write_ballots
    from geomem.study.votes import ballots_of

    study, votes = _open(args)
    ballots = ballots_of(study, votes.all())
    votes.close()
    write_ballots(args.csv, ballots)
    raters = len({ballot.rater for ballot in ballots})
    print(f"{args.csv}: {len(ballots)} answers of {raters} raters" if ballots else "no votes yet")


def report(args: argparse.Namespace) -> None:
    """Print what exported votes say."""
    from geomem.study.analysis import analyse
    from geomem.study.ballots import read_ballots
    from geomem.study.report import lines_of

    if not args.csv.is_file():
        raise InputError(f"{args.csv} is missing; write it with `geomem study export`")
    print("\n".join(lines_of(analyse(read_ballots(args.csv)))))


def add_commands(commands: Any) -> None:
    """Add `study` to the `geomem` command."""
    study = commands.add_parser("study", help="Ask people which of two videos is better.")
    parts = study.add_subparsers(required=True, metavar="command")

    command = job_parser(parts.add_parser("build", help=build.__doc__, description=build.__doc__))
    command.add_argument("folder", type=Path, help="folder to make")
    command.add_argument("--protocol", required=True, help="which videos")
    command.add_argument("--variants", required=True, nargs="+", help="whose videos, two or more")
    command.add_argument("--clips", type=int, default=8, help="clips, spread over the split (8)")
    command.add_argument("--checks", type=int, default=2, help="attention checks (2)")
    command.add_argument("--repeats", type=int, default=2, help="pairs shown again (2)")
    command.add_argument("--rate", type=int, default=RATE, help=f"frames a second ({RATE})")
    command.add_argument("--title", default="Comparing videos", help="heading of the pages")
    command.set_defaults(command=build)

    command = _on_folder(parts, "serve", serve)
    _with_database(command)
    command.add_argument("--host", default=HOST, help=f"address to listen at ({HOST})")
    command.add_argument("--port", type=int, default=PORT, help=f"port to listen at ({PORT})")
    command.add_argument("--days", type=float, default=60, help="life of invitations (60 days)")

    command = _on_folder(parts, "invite", invite)
    command.add_argument("--raters", type=int, required=True, help="number of links")
    command.add_argument(
        "--base-url", default=f"http://{HOST}:{PORT}", help="where raters reach the server"
    )

    command = _on_folder(parts, "export", export)
    command.add_argument("csv", type=Path, help="file to write")
    _with_database(command)

    command = parts.add_parser("report", help=report.__doc__, description=report.__doc__)
    command.add_argument("csv", type=Path, help="what `geomem study export` wrote")
    command.set_defaults(command=report)


def _on_folder(parts: Any, name: str, action: Any) -> Any:
    command = parts.add_parser(name, help=action.__doc__, description=action.__doc__)
    command.add_argument("folder", type=Path, help="what `geomem study build` made")
    command.set_defaults(command=action)
    return command


def _with_database(command: Any) -> None:
    command.add_argument(
        "--database", help="postgresql://... (default: votes.sqlite in the folder)"
    )
