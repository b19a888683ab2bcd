"""Write generated videos for the code of other benchmarks, and models: `geomem export`.

Legend: T frames, H rows, W columns. Frames are uint8 (T, H, W, 3), as stored.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.commands import export_pipeline
from geomem.config import Config
from geomem.errors import InputError
from geomem.formats import ClipStore, atomic_directory, read_videos, sha256_file, write_json
from geomem.formats import mind as files
from geomem.formats.mind_results import MIRROR_TEST
from geomem.formats.mp4 import enlarged, write_mp4
from geomem.formats.records import read_provenance
from geomem.jobs import job_config, job_parser
from geomem.layout import Layout

RECORD = "export.json"  # says of a folder that it is an export, and of what
PERSPECTIVE, MEMORY_TEST = files.PERSPECTIVES[0], files.TRUE_TESTS[0]
LEAST_MOVE = 0.01  # world units a frame
LEAST_TURN = 0.25  # degrees a frame
# Closer than that, two poses are one; as of revisits
SAME_PLACE = 0.02  # world units
SAME_VIEW = 1.0  # degrees


@dataclass(frozen=True, kw_only=True)
class Videos:
    """Generated videos of a protocol, and the clips that they go on from.

    Attributes:
        store: The clips of its split.
        rgb: uint8 (N, T, H, W, 3).
        context: Given frames, the first ones.
        sha256: Of their record.
    """

    store: ClipStore
    rgb: np.ndarray
    context: int
    sha256: str


def export_mind(args: argparse.Namespace) -> None:
    """Write videos for MIND's code: a replay as mem_test, a way out and back as mirror_test."""
    config = job_config(args)
    if not (args.least_move > 0 and args.least_turn > 0):
        raise InputError("--least-move and --least-turn must be above 0")
    _check_folder(args.folder, args.replace)
    if args.seed is None:
        args.seed = config.seeds_of(args.variant)[0]
    protocol = config.settings.rollouts.protocols[args.protocol]
    chosen = {"variant": args.variant, "protocol": args.protocol, "seed": args.seed}
    videos = read_rollout(Path(args.root), config, **chosen)
    test = MIRROR_TEST if protocol.replay is None else MEMORY_TEST
    with atomic_directory(args.folder) as folder:
        # its code lists them all
        for perspective in files.PERSPECTIVES:
            for name in files.TRUE_TESTS:
                (folder / files.TRUTH / perspective / "test" / name).mkdir(parents=True)
        if test == MIRROR_TEST:
            clips, lines = _mirror_test(folder, videos, args)
        else:
            clips, lines = _memory_test(folder, videos, args)
        record = {name: getattr(args, name) for name in ("variant", "protocol", "seed")}
        content = {"scale": config.scale, "test": test, "rollout": videos.sha256, "clips": clips}
        write_json(folder / RECORD, {**record, **content})
    print(f"{args.folder}: {len(clips)} videos of {args.variant} for {test}")
    for line in [*_crop(*videos.rgb.shape[2:4]), *lines]:
        print(f"warning: {line}")


def _check_folder(folder: Path, replace: bool) -> None:
    if not folder.exists():
        return
    if not replace:
        raise InputError(f"{folder} exists; name another folder, or --replace it")
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder} is no export (it has no {RECORD}), so it is not replaced")


def read_rollout(root: Path, config: Config, *, variant: str, protocol: str, seed: int) -> Videos:
    """Return the generated videos of a variant.

    Args:
        root: Of the project.
        config: Its configuration.
        variant: Whose videos.
        protocol: Which of them.
        seed: Of the training.

    Raises:
        InputError: If they are missing, damaged, or of other clips than the split holds.
    """
    layout = Layout(config.scale)
    split = config.settings.rollouts.protocols[protocol].split
    store = ClipStore(root / layout.clips(config.settings.splits[split].dataset, split))
    rollout = root / layout.rollout(variant, seed, protocol)
    rgb, record = read_videos(rollout)
    if record.get("clips") != [clip.clip_id for clip in store.clips]:
        raise InputError(f"{rollout} was generated for other clips than {store.directory} holds")
    path = rollout / "rollout.json"
    context = read_provenance(path)["settings"].get("context")
    if not isinstance(context, int) or not 0 < context < rgb.shape[1]:
        raise InputError(f"{path} does not tell how many frames were given; run the workflow again")
    return Videos(store=store, rgb=rgb, context=context, sha256=sha256_file(path))


def _memory_test(
    folder: Path, videos: Videos, args: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """Write truth and results; return which clip each folder is of, and warnings."""
    model = folder / args.variant / PERSPECTIVE / MEMORY_TEST
    truth = folder / files.TRUTH / PERSPECTIVE / "test" / MEMORY_TEST
    length, context = videos.rgb.shape[1], videos.context
    names = _file_names([clip.clip_id for clip in videos.store.clips])
    for row, name in enumerate(names):
        clip = videos.store.clips[row]
        cameras = videos.store.cameras(row)[:length]
        action = mind_action(
            cameras,
            mark_time=context,
            caption=f"{clip.trajectory} in {clip.scene}",
            least_move=args.least_move,
            least_turn=args.least_turn,
        )
        _write_mp4(truth / name / "video.mp4", videos.store.rgb(row)[:length])
        files.write_action(truth / name / "action.json", action)
        files.write_images(truth / name / "images.txt", _poses(cameras[context:]), first=context)
        _write_mp4(model / name / "video.mp4", videos.rgb[row, context:])
    made = length - context
    scored = max(made - 1, 0) // files.BATCH * files.BATCH
    lines = [
        f"MIND leaves out the last batch of up to {files.BATCH} frames: of {made} generated ones "
        f"it compares {scored or 'none'}"
    ]
    return {name: videos.store.clips[row].clip_id for row, name in enumerate(names)}, lines


def _mirror_test(
    folder: Path, videos: Videos, args: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """Write results, ten to a folder; return which clip each file is of, and warnings."""
    tests = folder / args.variant / PERSPECTIVE / MIRROR_TEST
    [protocol] = _file_names([args.protocol])
    clips, trimmed = {}, 0
    for row, clip in enumerate(videos.store.clips):
        frames = mirrored_frames(videos.store.cameras(row)[: videos.rgb.shape[1]])
        if not frames:
            raise InputError(
                f"--protocol {args.protocol}: clip {clip.clip_id} does not come back on its way "
                "out, and its protocol is no replay; MIND has no test of it"
            )
        trimmed += len(frames) < videos.rgb.shape[1]
        sample, number = divmod(row, files.PATHS)
        name = f"{protocol}-{sample:03d}/path-{number + 1}.mp4"
        _write_mp4(tests / name, videos.rgb[row][frames])
        clips[name] = clip.clip_id
    lines = []
    if trimmed:
        lines.append(f"{trimmed} of {len(clips)} videos lose frames that have no mirrored one")
    if len(clips) % files.PATHS:
        last = len(clips) % files.PATHS
        lines.append(f"the last folder has {last} of the {files.PATHS} paths that MIND's have")
    return clips, lines


def mind_action(
    cameras: np.ndarray, *, mark_time: int, caption: str, least_move: float, least_turn: float
) -> files.Action:
    """Return the action file of a true clip.

    Args:
        cameras: (T, 16).
        mark_time: First frame to be generated.
        caption: Text on the clip.
        least_move: See `geomem.geometry.actors.motion_codes`, like the next.
        least_turn: Of a turn.
    """
    import torch

    from geomem.geometry.actors import actor_poses, motion_codes

    tensor = torch.from_numpy(np.array(cameras))
    positions, angles = (values.tolist() for values in actor_poses(tensor))
    keys = motion_codes(tensor, least_move=least_move, least_turn=least_turn).tolist()
    moments = [
        files.Moment(
            time=time,
            **dict(zip(("ws", "ad", "ud", "lr"), pressed, strict=True)),
            actor_pos=files.Vector(**dict(zip("xyz", position, strict=True))),
            actor_rpy=files.Vector(**dict(zip("xyz", angle, strict=True))),
        )
        for time, (pressed, position, angle) in enumerate(zip(keys, positions, angles, strict=True))
    ]
    return files.Action(
        mark_time=mark_time, total_time=len(moments), caption=caption, data=tuple(moments)
    )


def mirrored_frames(cameras: np.ndarray) -> list[int]:
    """Return 2N frames from the first on, of which i has the pose of 2N - 1 - i; none if no way
    leads back.

    The way back ends where the clip does, or earlier in its second half. Where a single frame is
    the turning point, it has no partner and is left out.

    Args:
        cameras: (T, 16).
    """
    import torch

    from geomem.metrics.revisits import pose_gaps

    distance, angle = pose_gaps(torch.from_numpy(np.array(cameras)))
    same = (distance <= SAME_PLACE) & (angle <= SAME_VIEW)
    for last in range(len(cameras) - 1, len(cameras) // 2, -1):
        out = torch.arange((last + 1) // 2)
        # a clip that stands still comes back nowhere
        if same[out, last - out].all() and not same[0, out].all():
            return [*out.tolist(), *(last - out).flip(0).tolist()]
    return []


def _poses(cameras: np.ndarray) -> np.ndarray:
    """Return (T, 7) quaternions w, x, y, z and translations of cameras (T, 16)."""
    import torch

    from geomem.geometry.cameras import split_cameras
    from geomem.networks.vggt.model import rotation_to_quaternion

    _, w2c = split_cameras(torch.from_numpy(np.array(cameras)).double())
    x, y, z, w = rotation_to_quaternion(w2c[..., :3]).unbind(-1)
    return torch.cat([torch.stack([w, x, y, z], -1), w2c[..., 3]], dim=-1).numpy()


def _write_mp4(path: Path, frames: np.ndarray) -> None:
    write_mp4(path, enlarged(frames), rate=files.RATE)


def _crop(height: int, width: int) -> list[str]:
    """Return what is lost of frames of this size; nothing is said of what is whole."""
    scale = max(files.WIDTH / width, files.HEIGHT / height)
    lost = {
        "height": 1 - files.HEIGHT / (scale * height),
        "width": 1 - files.WIDTH / (scale * width),
    }
    size = f"{files.WIDTH}x{files.HEIGHT}"
    return [
        f"MIND fills {size} pixels, so that frames of {width}x{height} lose {share:.0%} of their "
        f"{side}"
        for side, share in lost.items()
        if share > 0.005
    ]


def _file_names(names: Sequence[str]) -> list[str]:
    """Return names that are safe as those of folders."""
    safe = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".") for name in names]
    if len(set(safe)) < len(safe) or not all(safe):
        raise InputError("clips cannot be told apart by names that are safe for folders")
    return safe


def add_commands(commands: Any) -> None:
    """Add `export` to the `geomem` command."""
    export = commands.add_parser("export", help="Write videos or models for the code of others.")
    formats = export.add_subparsers(required=True, metavar="format")
    mind = formats.add_parser("mind", help=export_mind.__doc__, description=export_mind.__doc__)
    job_parser(mind)
    mind.add_argument("folder", type=Path, help="folder to make")
    mind.add_argument("--variant", required=True, help="whose videos")
    mind.add_argument("--protocol", required=True, help="which of them")
    mind.add_argument("--seed", type=int, help="of the training (default: the first)")
    mind.add_argument("--replace", action="store_true", help="replace an export that is there")
    mind.add_argument(
        "--least-move",
        type=float,
        default=LEAST_MOVE,
        help=f"step that is an action, in world units a frame (default: {LEAST_MOVE})",
    )
    mind.add_argument(
        "--least-turn",
        type=float,
        default=LEAST_TURN,
        help=f"turn that is an action, in degrees a frame (default: {LEAST_TURN})",
    )
    mind.set_defaults(command=export_mind)
    export_pipeline.add_command(formats)
