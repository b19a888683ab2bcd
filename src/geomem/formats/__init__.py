"""The file formats that stages share; every one is defined here and nowhere else."""

from geomem.canonical import canonical_json, digest
from geomem.errors import InputError
from geomem.formats.checkpoints import load_module, read_checkpoint, write_checkpoint
from geomem.formats.clips import ClipInfo, ClipStore, write_clip_shard
from geomem.formats.features import FeatureCache, dequantise, quantise, write_feature_part
from geomem.formats.files import (
    atomic_directory,
    atomic_path,
    check_sha256,
    exclusive,
    read_json,
    read_record,
    read_tensors,
    sha256_file,
    write_json,
    write_tensors,
)
from geomem.formats.plans import Frames, Plan, Window, mirror_cameras, read_frames
from geomem.formats.videos import load_array, read_videos, save_array, write_videos

__all__ = [
    "ClipInfo",
    "ClipStore",
    "FeatureCache",
    "Frames",
    "InputError",
    "Plan",
    "Window",
    "atomic_directory",
    "atomic_path",
    "canonical_json",
    "check_sha256",
    "dequantise",
    "digest",
    "exclusive",
    "load_array",
    "load_module",
    "mirror_cameras",
    "quantise",
    "read_checkpoint",
    "read_frames",
    "read_json",
    "read_record",
    "read_tensors",
    "read_videos",
    "save_array",
    "sha256_file",
    "write_checkpoint",
    "write_clip_shard",
    "write_feature_part",
    "write_json",
    "write_tensors",
    "write_videos",
]
