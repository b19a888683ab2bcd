"""The U-ViT under diffusion forcing, with an optional memory branch: its loss, and its sampling.

Shape suffixes: B clips, T frames, M memory channels, S pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from geomem.diffusion.samplers import VelocityModel
from geomem.diffusion.schedule import CosineSchedule
from geomem.errors import InputError
from geomem.formats.checkpoints import load_module, read_checkpoint
from geomem.geometry.rays import encode_cameras, encode_cameras_apart
from geomem.methods.clips import WindowSampling
from geomem.methods.dfot.draws import draw_conditions, draw_times
from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.registry import MemoryFace, StateReader, Weights
from geomem.methods.training import MEMORY, Loss, TrainedMethod, memory_of, pixels_last
from geomem.methods.windows import WindowedGenerator
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.gate import CopyGate
from geomem.networks.uvit.implicit import ImplicitControl, ImplicitMemory
from geomem.networks.uvit.layers import ResBlock, TransformerBlock, seed_dropout
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.uvit.weights import load_modules, load_public_uvit, load_safetensors

BASE_RESOLUTION = 32  # of the schedule's shift
M = TypeVar("M", bound=nn.Module)


@lru_cache(maxsize=4)
def schedule_for(size: int) -> CosineSchedule:
    """Return the noise schedule for frames of so many pixels."""
    return CosineSchedule(shift=BASE_RESOLUTION / size)


class VideoModel(TrainedMethod):
    """Backbone with an optional memory branch.

    Attributes:
        backbone: The U-ViT.
        control: The memory branch or None.
        gate: The copy gate or None.
        memory: What compresses histories for the branch, where its memory is one of tokens.
        names: Names of what the memory reads, in the order the branch takes it; none where there
            is no branch.
    """

    def __init__(
        self,
        backbone: UViT3DPose,
        *,
        control: MemoryControl | None = None,
        gate: CopyGate | None = None,
        memory: ImplicitMemory | None = None,
        names: tuple[str, ...] = (),
        frozen: bool = False,
    ) -> None:
        """Put the networks together; a `frozen` backbone is not trained."""
        super().__init__()
        self.backbone = backbone
        self.control = control
        self.gate = gate
        self.memory = memory
        self.names = names
        self.frozen = frozen
        if frozen:
            backbone.requires_grad_(False)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the modules with trainable parameters by their name in a checkpoint."""
        named = {
            "backbone": None if self.frozen else self.backbone,
            "control": self.control,
            "gate": self.gate,
            "memory": self.memory,
        }
        return {name: module for name, module in named.items() if module is not None}

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of all levels."""
        return [m for m in self.modules() if isinstance(m, ResBlock | TransformerBlock)]

    def ends(self) -> list[nn.Parameter]:
        """Return the parameters that start at zero, of what reads the memory."""
        ends = [] if self.control is None else self.control.zero_initialised_parameters()
        return ends + ([] if self.gate is None else [*self.gate.end.parameters()])

    def parameter_groups(self, learning_rate: float, *, zero_init_rate: float) -> list[Any]:
        """Return the optimizer's groups: the branch's zero-initialised ends may learn faster."""
        ends = self.ends()
        fast = {id(parameter) for parameter in ends}
        [everything] = super().parameter_groups(learning_rate, zero_init_rate=zero_init_rate)
        others = [p for p in everything["params"] if id(p) not in fast]
        groups = [{"params": others, "rate": learning_rate}]
        return groups + ([{"params": ends, "rate": learning_rate * zero_init_rate}] if ends else [])

    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw `times` (B, T) in [0, 1], `noise` (B, T, C, S, S), and `camera_mask` and, with a
        memory, `memory_mask` (B,), True where they are dropped; then what `draw_conditions` says of
        frames that are not to be made."""
        windows, frames = shape_BTCSS[:2]
        drawn = {
            "times": draw_times((windows, frames), noise, device),
            "noise": pixels_last(torch.empty(shape_BTCSS, device=device)).normal_(),
        }
        if memory_dropout is not None:
            drawn["memory_mask"] = torch.rand(windows, device=device) < memory_dropout
        dropout = float(self.backbone.config["camera_dropout"])
        drawn["camera_mask"] = torch.rand(windows, device=device) < dropout
        drawn["dropout_seeds"] = torch.randint(2**62, (windows,))
        return drawn | draw_conditions(drawn["times"], noise, history)

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the weighted squared error of v on frames that are noised one by one."""
        x, t, eps = windows["frames"], windows["times"], windows["noise"]
        given = windows.get("given")
        schedule = schedule_for(x.shape[-1])
        seed_dropout(self, windows["dropout_seeds"])
        x_t = schedule.add_noise(x, t, eps)
        if given is not None:  # as the sampler shows a history; what is dropped stays noise
            x_t = torch.where((given & (t == 0))[..., None, None, None], x, x_t)
        levels, cameras = schedule.training_noise_levels(t), windows["cameras"]
        raw = windows.get(MEMORY + "frames")
        if raw is not None:
            clean_level = schedule.training_noise_levels(torch.zeros_like(t[:, :1]))
            x_t, levels = beside(x_t, levels, raw, clean_level)
            cameras = torch.cat([cameras, windows[MEMORY + "cameras"]], dim=1)
        v, states = self.predict(
            x_t,
            levels,
            cameras,
            windows["camera_mask"],
            self.remembered(windows),
            windows.get("memory_mask"),
        )
        if raw is not None:
            v, x_t, *states = (y[:, : x.shape[1]] for y in (v, x_t, *states))
        error = schedule.loss(v.float(), x_t, eps, t)
        if given is not None:
            error = error.masked_fill(given[..., None, None, None], 0.0)
        if "weights" in windows:
            error = error * windows["weights"][:, None, None, None, None]
        diffusion = error.mean()
        return Loss(value=diffusion, parts={"diffusion": diffusion.detach()}, states=states)

    def remembered(self, windows: dict[str, Tensor]) -> Any:
        """Return what `predict` is given of the windows' memory."""
        return memory_of(windows, self.names)

    def predict(
        self,
        x_t: Tensor,
        noise_levels: Tensor,
        cameras: Tensor,
        camera_mask: Tensor,
        memory: Any,
        memory_mask: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return v (B, T, 3, S, S) and the backbone's hidden states.

        Args:
            x_t: Noisy frames (B, T, 3, S, S).
            noise_levels: (B, T).
            cameras: (B, T, 16).
            camera_mask: Clips whose cameras are dropped (B,), bool.
            memory: Memory maps (B, T, M, S, S), histories (B, K, M, h, w) for a memory of tokens,
                or None.
            memory_mask: Clips whose memory is dropped (B,), bool, or None.
        """
        rays = encode_cameras_apart(cameras, x_t.shape[-1])
        residuals, maps = None, memory
        if self.control is not None:
            assert memory is not None
            if self.memory is not None:
                memory = self.memory(memory)
            residuals = self.control(
                x_t,
                noise_levels,
                None,
                memory,
                camera_mask,
                memory_mask,
                camera_embedding=self.control.embed_cameras(*rays),
            )
        v, states = self.backbone(
            x_t,
            noise_levels,
            None,
            camera_mask,
            camera_embedding=self.backbone.embed_cameras(*rays),
            control=residuals,
            return_states=True,
        )
        if self.gate is not None:
            assert maps is not None
            v = self.gate(v, x_t, log_snr(noise_levels, x_t), maps, memory_mask)
        return v, states


def beside(
    x: Tensor, levels: Tensor, remembered: Tensor, clean_level: Tensor
) -> tuple[Tensor, Tensor]:
    """Put clean remembered frames (B, K, 3, S, S) after those of a window (B, T, 3, S, S).

    After, since positions of cameras are relative to the first frame's.
    """
    clean = clean_level.expand(-1, remembered.shape[1])
    return torch.cat([x, remembered.to(x)], dim=1), torch.cat([levels, clean], dim=1)


def log_snr(noise_levels: Tensor, frames: Tensor) -> Tensor:
    """Return the log-SNR behind what a network is told of frames' noise."""
    return noise_levels / schedule_for(frames.shape[-1]).precond_scale


def build(settings: UViTSettings, *, memory: MemoryFace | None, initial: Path | None) -> VideoModel:
    """Return the untrained model; see `Method.build`."""
    if initial is None:
        backbone = UViT3DPose(**settings.model_dump())
    else:
        backbone = load_module(UViT3DPose, initial, "backbone")
    if memory is None or memory.form == "frames":
        return VideoModel(backbone)
    names, frozen = tuple(memory.channels), not memory.trains_backbone
    if memory.form == "maps":
        control = MemoryControl.from_base(backbone, memory.width)
        gate = make_gate(memory) if memory.gate else None
        initial = None if memory.new_branch else initial
        return VideoModel(
            backbone,
            control=_from(initial, "control", control),
            gate=gate and _from(initial, "gate", gate),
            names=names,
            frozen=frozen,
        )
    sizes = memory.settings
    compress = ImplicitMemory(
        memory.width,
        queries=sizes.queries,
        width=sizes.width,
        heads=sizes.heads,
        layers=sizes.layers,
    )
    control = ImplicitControl.from_base(backbone, sizes.width)
    control.memory_stem.ask_as(compress)
    start = None if memory.new_branch else initial
    known = read_checkpoint(start)["weights"] if start else {}
    if start and "memory" in known:
        control, compress = _from(start, "control", control), _from(start, "memory", compress)
    elif start and "control" in known:
        _copy_all_but_the_reader(load_module(MemoryControl, start, "control"), control)
    return VideoModel(backbone, control=control, memory=compress, names=names, frozen=frozen)


def _copy_all_but_the_reader(branch: MemoryControl, made: ImplicitControl) -> None:
    """Give a branch the weights of one that reads maps, but for how a memory enters it.

    What replaces the stem ends in zeros: the branch begins as that one does without what its stem
    adds, and the reader is trained through blocks that know what a memory is for.
    """
    kept = {k: v for k, v in branch.state_dict().items() if not k.startswith("memory_stem.")}
    made.load_state_dict(made.state_dict() | kept)


def _from(initial: Path | None, name: str, made: M) -> M:
    """Return a module of the checkpoint that a run starts from, or the one just made where that has
    none.

    Raises:
        InputError: If it is of other sizes.
    """
    if initial is None or name not in read_checkpoint(initial)["weights"]:
        return made
    found: M = load_module(type(made), initial, name)
    if [p.shape for p in found.parameters()] != [p.shape for p in made.parameters()]:
        raise InputError(f"{initial} has a {name} of other sizes than this memory needs")
    return found


def make_gate(memory: MemoryFace) -> CopyGate:
    """Return an untrained gate for a memory's maps."""
    names = list(memory.channels)
    first = dict(zip(names, accumulate(memory.channels.values(), initial=0), strict=False))
    return CopyGate(memory.width, rgb_at=first["rgb"], coverage_at=first["coverage"])


@dataclass(frozen=True, kw_only=True)
class Sampler(WindowedGenerator):
    """The trained networks at work.

    Attributes:
        backbone: The U-ViT.
        control: The memory branch or None.
        gate: The copy gate or None.
        memory: What compresses a memory of tokens for the branch, or None.
        names: Names of what the memory reads, in the order the branch takes it.
    """

    backbone: UViT3DPose
    control: MemoryControl | None = None
    gate: CopyGate | None = None
    memory: ImplicitMemory | None = None
    names: tuple[str, ...] = ()

    def bind(
        self, cameras_BL16: Tensor, size: int, memory: dict[str, Tensor], sampling: WindowSampling
    ) -> VelocityModel:
        """Return the network with a window's cameras and memory bound.

        Guidance on the memory is v_without + s (v_with - v_without), the network with and without
        its memory on the same rows: the composition of the history's branches is linear, so it goes
        through. What has no weight is not run: R evaluations a step with memory at s = 1, R without
        at s = 0, both at every other scale.
        """
        raw = memory.get("frames")
        start = torch.zeros(1, 1, dtype=torch.long, device=cameras_BL16.device)
        clean_level = sampling.schedule.sampling_noise_levels(start)
        if raw is not None:
            cameras_BL16 = torch.cat([cameras_BL16, memory["cameras"]], dim=1)
        rays = encode_cameras_apart(cameras_BL16, size)
        autocast = torch.autocast(
            cameras_BL16.device.type, torch.bfloat16, enabled=sampling.precision == "bf16"
        )
        scale = sampling.memory_guidance if memory else 0.0
        told = maps = torch.empty(0)
        if memory and self.control is not None:
            maps = torch.cat([memory[name] for name in self.names], dim=-3)
            told = maps if self.memory is None else self.memory(maps)
        with autocast:
            own = self.backbone.embed_cameras(*rays)
            branch = None if self.control is None else self.control.embed_cameras(*rays)

        @autocast
        def run(
            x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor, with_memory: bool
        ) -> Tensor:
            length, residuals = x.shape[1], None
            if raw is not None:
                x, levels = beside(x, levels, raw[clip], clean_level.expand(len(x), 1))
            if with_memory and self.control is not None and branch is not None:
                residuals = self.control(
                    x, levels, None, told[clip], unconditional, camera_embedding=branch[clip]
                )
            out: Tensor = self.backbone(
                x, levels, None, unconditional, camera_embedding=own[clip], control=residuals
            )
            if with_memory and self.gate is not None:
                out = self.gate(out, x, log_snr(levels, x), maps[clip])
            return out[:, :length]

        def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
            if scale in (0, 1):
                return run(x, levels, unconditional, clip, scale == 1).float()
            without = run(x, levels, unconditional, clip, False).float()
            return without + scale * (run(x, levels, unconditional, clip, True).float() - without)

        return predict_v


def load(weights: Weights, *, memory: MemoryFace | None, device: torch.device) -> Sampler:
    """Return the trained networks on a device; see `Method.load`."""

    def module(cls: Any, folder: Path, name: str) -> Any:
        return load_module(cls, folder, name).eval().to(device)

    backbone = module(UViT3DPose, weights.backbone, "backbone")
    if memory is None or memory.form == "frames":
        return Sampler(backbone=backbone)
    names, tokens = tuple(memory.channels), memory.form == "tokens"
    kind = ImplicitControl if tokens else MemoryControl
    return Sampler(
        backbone=backbone,
        control=module(kind, weights.checkpoint, "control"),
        gate=module(CopyGate, weights.checkpoint, "gate") if memory.gate else None,
        memory=module(ImplicitMemory, weights.checkpoint, "memory") if tokens else None,
        names=names,
    )


def open_states(checkpoint: Path, *, device: torch.device) -> StateReader:
    """Return what reads the backbone's hidden states; see `Method.open_states`."""
    backbone = load_module(UViT3DPose, checkpoint, "backbone").eval().to(device)

    def read(
        frames: Tensor, times: Tensor, noise: Tensor, cameras: Tensor, told: bool
    ) -> list[Tensor]:
        schedule = schedule_for(frames.shape[-1])
        noisy = schedule.add_noise(frames, times, noise)
        rays = encode_cameras(cameras, frames.shape[-1])
        dropped = torch.full((len(frames),), not told, device=frames.device)
        levels = schedule.training_noise_levels(times)
        _, states = backbone(noisy, levels, rays, dropped, return_states=True)
        return list(states)

    return read


def read_public(settings: UViTSettings, path: Path) -> dict[str, nn.Module]:
    """Return the backbone of a file of weights, and the branch where it has one; see
    `Method.read_public`."""
    backbone = UViT3DPose(**settings.model_dump())
    try:
        if path.suffix != ".safetensors":
            load_public_uvit(path, backbone)
            return {"backbone": backbone}
        modules = load_modules(path)
        if not modules:
            load_safetensors(path, backbone)
            return {"backbone": backbone}
    except ValueError as error:
        raise InputError(str(error)) from None
    sizes = {name: modules["backbone"].config[name] for name in settings.model_dump()}
    if UViTSettings.model_validate(sizes) != settings:
        raise InputError(f"{path} has a backbone of other sizes than methods.dfot says")
    return modules
