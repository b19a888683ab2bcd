"""What a network costs: FLOPs and bytes of a pass, counted without computing anything.

The true networks are built of fake tensors at the true shapes, a forward and a backward pass run on
them, and PyTorch's own formulas add up the FLOPs (2 a multiply-add) of matrix products, attention
and convolutions. What autograd keeps for the backward pass is seen by its own hooks, so that
gradient checkpointing, frozen parts and bf16 show as they are.
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from geomem.alignment.projection import align
from geomem.canonical import digest
from geomem.config.study import Scale
from geomem.formats.teacher_sizes import teacher_config
from geomem.methods.training import MEMORY
from geomem.networks.unread import unread_tensors
from geomem.networks.vggt.layers import PatchEmbedder
from geomem.networks.vggt.model import VGGT
from geomem.settings.jobs import ImageTeacherModel, MemoryJob, MethodJob, TrainingJob
from geomem.training.build import build_projector, image_teacher_sizes
from geomem.training.checkpointing import checkpoint_blocks

CPU = torch.device("cpu")
aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What one window costs.

    Attributes:
        forward: FLOPs of the forward pass.
        backward: FLOPs of the backward pass, what is computed again included; 0 without one.
        parameters: All, trained or not.
        trained: Those that are trained.
        kept: Bytes that autograd keeps of the window until the backward pass.
        casts: Bytes of weights in half precision that it keeps, whatever the number of windows.
        peak: Bytes at the height of both passes: what is kept, the gradients, and what is there for
            a moment, such as a block that is computed again.
    """

    forward: float
    backward: float = 0.0
    parameters: int = 0
    trained: int = 0
    kept: int = 0
    casts: int = 0
    peak: int = 0

    def __add__(self, other: "Pass") -> "Pass":
        """Return what both cost together."""
        return Pass(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def times(self, count: int) -> "Pass":
        """Return the FLOPs of several of them."""
        return replace(self, forward=count * self.forward, backward=count * self.backward)


class Flops(TorchDispatchMode):
    """Adds up FLOPs by the formulas of `torch.utils.flop_counter`.

    Its `FlopCounterMode` has none for attention on the CPU, and takes twice as long over the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0
        self.live = self.peak = 0
        self._known = WeakSet[Any]()

    def _made(self, tensor: Any) -> None:
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size

    def ignore(self, tensors: list[Tensor]) -> None:
        """Count none of what is there anyway."""
        self._known |= {tensor.untyped_storage() for tensor in tensors}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tree_map_only(Tensor, self._made, out)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=out)
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu:
            self.total += sdpa_flop_count(*(x.shape for x in args[:3]))
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.total += sdpa_backward_flop_count(*(x.shape for x in args[:4]))
        return out


class Kept:
    """The storages that autograd keeps, each once, but for those that are there anyway."""

    def __init__(self, known: list[Tensor], parameters: list[nn.Parameter]) -> None:
        """Know what is there anyway.

        Args:
            known: Inputs, parameters and buffers.
            parameters: Those whose copies in half precision are told apart.
        """
        self.bytes = self.casts = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}
        self._weights = {tuple(sorted(p.shape)) for p in parameters if p.ndim > 1}
        # a storage that is freed may give its address to another
        self._alive: list[Any] = []

    def hooks(self) -> Any:
        """Return the context in which a forward pass is watched."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._alive.append(storage)
            half = tensor.dtype == torch.bfloat16
            if half and tuple(sorted(tensor.shape)) in self._weights:
                self.casts += storage.nbytes()
            else:
                self.bytes += storage.nbytes()
        return tensor


def windows_of(
    frames: int, resolution: int, memory: MemoryJob | None, grid: int
) -> dict[str, Tensor]:
    """Return an empty window as `WindowDataset` gives it, batched; call it among fake tensors.

    Args:
        frames: Of a window.
        resolution: Side S, pixels.
        memory: What is read beside them, or None.
        grid: Cells along a side of the teacher's features.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "frames": (frames, 3, resolution, resolution),
        "cameras": (frames, 16),
    }
    if memory:
        most, form = max(1, memory.most), memory.spec.form
        told: dict[str, tuple[int, ...]]
        if form in ("maps", "tokens"):
            places = {"maps": (frames, resolution), "tokens": (most, grid)}[form]
            told = {
                name: (places[0], width, places[1], places[1])
                for name, width in memory.spec.channels(memory.channels).items()
            }
        elif form == "frames":
            told = {"frames": (most, 3, resolution, resolution), "cameras": (most, 16)}
        else:
            told = {
                "images": (most, 3, resolution, resolution),
                "cameras": (most, 16),
                "elapsed": (most, frames),
                "present": (most,),
            }
        shapes |= {MEMORY + name: shape for name, shape in told.items()}
    return {name: torch.zeros(1, *shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Counter:
    """Counts passes at a scale, each kind of them once."""

    scale: Scale
    say: Callable[[str], None] = lambda line: None
    _found: dict[str, Pass] = field(default_factory=dict)

    @property
    def grid(self) -> int:
        """Cells along a side of what is kept of the teacher's features."""
        return self.scale.features.grid or self.scale.teacher.grid

    def evaluation(self, method: MethodJob, memory: MemoryJob | None, frames: int) -> Pass:
        """Return what one run of a method's networks on a clip's window costs."""
        key = _shape(method, memory, frames)
        known = (made for name, made in self._found.items() if name.startswith(key))
        if found := next(known, None):
            return found

        def count() -> Pass:
            return self._method(method, memory, frames, recipe=None, training=None)

        return self._once(f"{key}/forward", f"{method.name}, a window of {frames}", count)

    def training(self, settings: TrainingJob) -> Pass:
        """Return what a window of a training costs, the frozen teacher's run included."""
        method, memory, recipe = settings.method, settings.memory, settings.recipe
        key = _shape(method, memory, settings.plan.frames)
        key += f"/{recipe.precision}/{recipe.checkpointing}"
        trains = memory is None or memory.backbone == "trained"

        def count() -> Pass:
            frames = settings.plan.frames
            return self._method(method, memory, frames, recipe=recipe, training=settings)

        told = f"training {method.name}" + (f" with {memory.kind} memory" if memory else "")
        return self._once(f"{key}/{trains}", told, count) + self._alignment(settings)

    def teacher(self, frames: int, *, heads: bool = True) -> Pass:
        """Return what the 3D teacher costs on a set of frames, with its heads or without."""
        architecture = self.scale.teacher.architecture

        def count() -> Pass:
            config = teacher_config(architecture)
            with unread_tensors(), torch.no_grad():
                model = VGGT(config).eval()
                images = torch.zeros(1, frames, 3, config.image_size, config.image_size)
                with Flops() as counter:
                    tokens = model.aggregate(images)
                    if heads:
                        model.decode(tokens, height=config.image_size, width=config.image_size)
            return Pass(forward=counter.total, parameters=_count(model))

        return self._once(f"teacher/{frames}/{heads}", f"the teacher, {frames} frames", count)

    def _once(self, key: str, told: str, count: Callable[[], Pass]) -> Pass:
        if key not in self._found:
            self.say(f"counting {told}")
            self._found[key] = count()
        return self._found[key]

    def _method(
        self,
        method: MethodJob,
        memory: MemoryJob | None,
        frames: int,
        *,
        recipe: Any,
        training: Any,
    ) -> Pass:
        """Return what a window costs; without a recipe of its forward pass alone."""
        with unread_tensors():
            model = method.shell(memory, self.scale.methods)
            for module in model.modules():  # its seeds are numbers, which fake tensors do not have
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            if recipe and recipe.checkpointing:
                checkpoint_blocks(model)
            model.train(recipe is not None)
            batch = windows_of(frames, self.scale.resolution, memory, self.grid)
            batch |= model.draw(
                tuple(batch["frames"].shape),
                noise=training.noise if training else "per_frame",
                history=0.0,
                memory_dropout=training.memory_dropout if training else None,
                device=CPU,
            )
            parameters = list(model.parameters())
            trained = [p for p in parameters if p.requires_grad]
            if recipe is None:
                with Flops() as counter, torch.no_grad():
                    model.loss(batch)
                return Pass(forward=counter.total, parameters=_count(model))
            there = [*parameters, *model.buffers(), *batch.values()]
            kept = Kept(there, parameters)
            counter = Flops()
            counter.ignore(there)
            with counter:
                with kept.hooks(), _autocast(recipe.precision):
                    loss = model.loss(batch).value
                forward = counter.total
                loss.backward()
        return Pass(
            forward=forward,
            backward=counter.total - forward,
            parameters=sum(p.numel() for p in parameters),
            trained=sum(p.numel() for p in trained),
            kept=kept.bytes,
            casts=kept.casts,
            peak=counter.peak,
        )

    def _alignment(self, settings: TrainingJob) -> Pass:
        """Return what the projector of a window costs, and the teacher that runs beside it."""
        alignment, frames = settings.alignment, settings.plan.frames
        if alignment is None:
            return Pass(forward=0)
        state, grid = settings.hidden_states[alignment.level], self.grid
        if alignment.image_teacher:
            width, size = image_teacher_sizes(alignment.image_teacher)
            dinov2 = alignment.image_teacher.dinov2
            grid = size // dinov2.patch_size if dinov2 else self.scale.teacher.grid
        elif alignment.layer is not None:
            width = self.scale.teacher.width
        else:
            width = self.scale.features.aligned_channels
        with unread_tensors():
            projector = build_projector(settings)
            assert projector is not None
            states = torch.zeros(1, frames, state.width, state.side, state.side, requires_grad=True)
            target = torch.zeros(1, frames, grid * grid, width)
            kept = Kept([states, target, *projector.parameters()], [])
            with Flops() as counter, kept.hooks():
                terms = align(
                    projector, states, target, grid=(grid, grid), objective=alignment.objective
                )
                forward = counter.total
                sum(terms.losses.values()).backward()  # type: ignore[union-attr]
        trained = sum(p.numel() for p in projector.parameters() if p.requires_grad)
        made = Pass(
            forward=forward,
            backward=counter.total - forward,
            parameters=_count(projector),
            trained=trained,
            kept=kept.bytes,
        )
        if alignment.online:
            all_seen = alignment.teacher_sees == "window"
            made += self.teacher(frames if all_seen else alignment.frames or frames, heads=False)
        elif alignment.image_teacher:
            made += self._image_teacher(alignment.image_teacher).times(frames)
        return made

    def _image_teacher(self, model: ImageTeacherModel) -> Pass:
        """Return what the 2D teacher costs on a frame."""
        if model.dinov2:
            told = model.dinov2.model_dump(exclude={"sha256"})
            width, sizes = told.pop("embed_dim"), told
        else:
            assert model.encoder_of is not None
            config = teacher_config(model.encoder_of.architecture)
            width = config.embed_dim
            sizes = {
                "depth": config.patch_embed_depth,
                "num_heads": config.patch_embed_heads,
                "image_size": config.image_size,
                "patch_size": config.patch_size,
            }

        def count() -> Pass:
            with unread_tensors(), torch.no_grad():
                encoder = PatchEmbedder(width, **sizes)
                with Flops() as counter:
                    encoder(torch.zeros(1, 3, sizes["image_size"], sizes["image_size"]))
            return Pass(forward=counter.total, parameters=_count(encoder))

        return self._once(digest([width, sizes]), "the 2D teacher", count)


def _shape(method: MethodJob, memory: MemoryJob | None, frames: int) -> str:
    """Return what tells passes of other costs apart."""
    told: list[Any] = [method.name, method.settings.model_dump(mode="json"), frames]
    if memory:
        # maps are as wide whatever they were made of
        most = 0 if memory.spec.form == "maps" else memory.most
        told += [memory.kind, memory.settings.model_dump(mode="json"), memory.channels, most]
        told += [memory.gate]
    return digest(told)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
