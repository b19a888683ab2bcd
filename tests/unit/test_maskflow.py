"""MaskFlow: its tokenizer, its masks, its two samplers, and both through trainer and rollout."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import (
    EXPERIMENTS,
    GONE,
    ROOT,
    Edit,
    edit_yaml,
    run_stage,
    told,
    wait_for,
    write_fake_clips,
)
from geomem.config import JobSettings, load_config
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.formats import ClipStore, read_checkpoint
from geomem.formats.checkpoints import load_module
from geomem.methods.clips import Clips, Sampling
from geomem.methods.maskflow.masking import (
    EARLIEST,
    TokenModel,
    draw_codes,
    kept_share,
    mask_tokens,
    masked_cross_entropy,
    reveal_counts,
    sample_full,
    sample_timestep_free,
    unmasking_rate,
)
from geomem.methods.maskflow.method import MaskFlowModel, Unmasking
from geomem.methods.maskflow.settings import MaskFlowSettings
from geomem.methods.maskflow.tokenizer import TokenizerModel
from geomem.methods.registry import METHODS, Generator, Weights
from geomem.networks.maskflow.model import MaskedUViT
from geomem.networks.maskflow.tokenizer import Codebook, VQTokenizer
from geomem.rollouts.protocols import load_variant, run_protocol, sampling_of
from geomem.training.data import open_dataset
from training_cases import learn, objective_of

CPU = torch.device("cpu")
CODES, SIDE, FRAMES, WINDOW, STEPS = 16, 8, 8, 4, 3
SIZES: dict[str, Any] = {
    "embedding": 8, "channels": (16, 32), "emb_channels": 32, "num_updown_blocks": (1,),
    "num_mid_blocks": 1, "num_heads": 2, "block_types": ("TransformerBlock", "TransformerBlock"),
    "block_dropouts": (0.0, 0.0),
}  # fmt: skip


def small_tokenizer() -> VQTokenizer:
    torch.manual_seed(0)
    return VQTokenizer(width=8, levels=2, blocks=1, code_width=4, codes=CODES)


def small_backbone() -> MaskedUViT:
    """A video model without zeros, as a trained one."""
    torch.manual_seed(1)
    backbone = MaskedUViT(codes=CODES, **SIZES).eval()
    for parameter in backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def cameras(clips: int, frames: int) -> Tensor:
    made = torch.zeros(clips, frames, 16)
    made[..., [0, 1, 4, 9, 14]] = 1
    made[..., 7] = -0.05 * torch.arange(frames)
    return made


def windows_of(model: TokenizerModel | MaskFlowModel, **options: Any) -> dict[str, Tensor]:
    """Four windows of smooth colours, with what the model draws for them."""
    torch.manual_seed(2)
    frames = torch.rand(4, FRAMES, 3, 4, 4).flatten(0, 1)
    frames = torch.nn.functional.interpolate(frames, size=4 * SIDE, mode="bilinear")
    shape = (4, FRAMES, 3, 4 * SIDE, 4 * SIDE)
    told = {"noise": "per_frame", "history": 0.0, "memory_dropout": None, "device": CPU} | options
    drawn = model.draw(shape, **told)
    return {"frames": 2 * frames.view(shape) - 1, "cameras": cameras(4, FRAMES), **drawn}


def masked_model() -> MaskFlowModel:
    return MaskFlowModel(small_backbone(), small_tokenizer())


# --- masks ---


def test_the_schedule_is_that_of_the_paper() -> None:
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    sigmoid = torch.sigmoid
    low, high = sigmoid(torch.tensor([-3.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(kept_share(times), (sigmoid(6 * times - 3) - low) / (high - low))
    assert kept_share(times)[[0, -1]].tolist() == pytest.approx([0, 1], abs=1e-12)
    for time in (0.0, 0.4, 0.9):
        at = torch.tensor(time, dtype=torch.float64, requires_grad=True)
        kept = kept_share(at)
        kept.backward()
        assert at.grad is not None
        assert unmasking_rate(time) == pytest.approx(float(at.grad / (1 - kept.detach())))


def test_every_frame_has_a_ratio_of_its_own_that_follows_the_schedule() -> None:
    model = masked_model()
    shape = (600, FRAMES, 3, 4 * SIDE, 4 * SIDE)
    told = {"history": 0.0, "memory_dropout": None, "device": CPU}
    torch.manual_seed(3)
    drawn = model.draw(shape, noise="per_frame", **told)
    times = drawn["times"]
    assert times.min() >= EARLIEST and times.max() <= 1
    assert times.flatten().histc(10, 0, 1).sub(480).abs().max() < 100  # uniform
    assert torch.corrcoef(times.T).fill_diagonal_(0).abs().max() < 0.2  # independent
    tokens = torch.zeros(600, FRAMES, SIDE, SIDE, dtype=torch.long)
    kept = (mask_tokens(tokens, times, drawn["uniform"], CODES) != CODES).float().mean((2, 3))
    for low in range(10):
        among = (times >= low / 10) & (times < (low + 1) / 10)
        assert kept[among].mean() == pytest.approx(float(kept_share(times)[among].mean()), abs=0.02)
    # the control has one ratio a clip, and a history is clean
    assert (model.draw(shape, noise="per_clip", **told)["times"].diff(dim=1) == 0).all()
    mixed = model.draw(shape, noise="per_frame", **told | {"history": 0.5})["times"]
    assert 0.4 < (mixed == 1).any(1).float().mean() < 0.6


def test_frames_of_a_wrong_size_are_told_in_a_line() -> None:
    options = {"noise": "per_frame", "history": 0.0, "memory_dropout": None, "device": CPU}
    told(lambda: masked_model().draw((1, 2, 3, 20, 20), **options), "5 tokens", "multiple of 2")


def test_kept_tokens_do_not_move_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, SIDE, SIDE, CODES)
    target = torch.randint(CODES, logits.shape[:-1])
    masked = torch.rand(target.shape) < 0.3
    value = masked_cross_entropy(logits, target, masked)
    other = (target + 1) % CODES
    assert masked_cross_entropy(logits, target.where(masked, other), masked).equal(value)
    assert not masked_cross_entropy(logits, other.where(masked, target), masked).equal(value)
    nats = -logits.log_softmax(-1).gather(-1, target[..., None])[..., 0]
    expected = torch.stack([nats[row][masked[row]].mean() for row in range(2)]).mean()
    torch.testing.assert_close(value, expected)
    assert masked_cross_entropy(logits, target, torch.zeros_like(masked)) == 0


def test_parts_of_a_batch_have_the_loss_of_the_whole() -> None:
    model = masked_model()
    windows = windows_of(model)
    whole = model.loss(windows).value
    halves = [{k: v[at : at + 2] for k, v in windows.items()} for at in (0, 2)]
    torch.testing.assert_close(sum(model.loss(half).value for half in halves) / 2, whole)


# --- samplers ---


def untrained(tokens: Tensor, times: Tensor) -> Tensor:
    """Logits that depend on all tokens of a clip."""
    torch.manual_seed(int(tokens.sum()))
    return torch.randn(*tokens.shape, CODES)


def sampled(name: str, model: TokenModel, steps: int) -> tuple[Tensor, Tensor]:
    """The tokens before and after, of two clips whose first two frames are given."""
    torch.manual_seed(4)
    tokens = torch.randint(CODES, (2, WINDOW, SIDE, SIDE))
    tokens[:, 2:] = CODES
    told: dict[str, Any] = {
        "mask": CODES,
        "steps": steps,
        "generators": [torch.Generator().manual_seed(seed) for seed in (0, 1)],
    }
    if name == "full":
        return tokens, sample_full(model, tokens, **told)
    return tokens, sample_timestep_free(model, tokens, time=0.5, **told)


@pytest.mark.parametrize("name", ["full", "timestep_free"])
@pytest.mark.parametrize("steps", [1, 2, 12, 300])
def test_revealed_tokens_stay_and_every_step_sees_them(name: str, steps: int) -> None:
    seen: list[Tensor] = []
    times: list[Tensor] = []

    def model(tokens: Tensor, at: Tensor) -> Tensor:
        seen.append(tokens.clone())
        times.append(at.clone())
        return untrained(tokens, at)

    before, after = sampled(name, model, steps)
    assert len(seen) == steps
    assert seen[0].equal(before) and not (after == CODES).any()
    for earlier, later in zip(seen, [*seen[1:], after], strict=True):
        revealed = earlier != CODES
        assert later[revealed].equal(earlier[revealed])
    left = [int((tokens == CODES).sum()) for tokens in seen]
    assert len(set(left)) > steps // 3 or steps == 300  # the model sees another clip each time
    told = torch.stack(times)
    assert (told[..., :2] == 1).all()
    expected = torch.full((steps,), 0.5) if name == "timestep_free" else torch.arange(steps) / steps
    torch.testing.assert_close(told[:, 0, 2], expected)


def test_the_flow_unmasks_by_its_schedule() -> None:
    left = []

    def model(tokens: Tensor, times: Tensor) -> Tensor:
        left.append(float((tokens == CODES).float().mean()))
        return torch.zeros(*tokens.shape, CODES)

    generators = [torch.Generator().manual_seed(0)]
    tokens = torch.full((1, 16, 16, 16), CODES)
    made = sample_full(model, tokens, mask=CODES, steps=50, generators=generators)
    kept = kept_share(torch.arange(50) / 50)
    torch.testing.assert_close(1 - torch.tensor(left), kept, atol=0.03, rtol=0)
    assert made.flatten().bincount(minlength=CODES).sub(256).abs().max() < 80  # p1 is uniform


def test_the_surest_tokens_come_first_and_given_ones_do_not_count() -> None:
    counts = reveal_counts(128, 8)
    assert counts == sorted(counts) and counts[-1] == 128 and counts[0] >= 1
    added = torch.tensor(counts).diff(prepend=torch.tensor([0])).double()
    expected = torch.arccos(1 - torch.arange(1, 9).double() / 8)
    torch.testing.assert_close(added, expected / expected.sum() * 128, atol=1.01, rtol=0)
    assert reveal_counts(3, 5) == [1, 2, 3, 3, 3] and reveal_counts(9, 1) == [9]
    # a model that chooses among as many codes as it likes, so that all are of one probability
    choices = torch.randint(1, CODES + 1, (1, WINDOW, SIDE, SIDE))
    seen = []

    def model(tokens: Tensor, times: Tensor) -> Tensor:
        seen.append(tokens[0] == CODES)
        open_to = torch.arange(CODES) < choices[..., None]
        return torch.zeros(*tokens.shape, CODES).masked_fill(~open_to, -torch.inf)

    sampled("timestep_free", model, 8)
    for masked, revealed in zip(seen, [0, *counts[:-1]], strict=True):
        assert int(masked.sum()) == 2 * SIDE * SIDE - revealed
        if revealed:
            made = ~masked[2:]
            assert choices[0, 2:][made].max() <= choices[0, 2:][~made].min()


def test_codes_are_drawn_by_their_probability() -> None:
    probability = torch.tensor([0.0, 0.2, 0.0, 0.8]).expand(1, 1, 100, 100, 4)
    uniform = torch.linspace(0, 1, 10_001)[:-1].view(1, 1, 100, 100)
    drawn = draw_codes(probability, uniform).flatten().bincount(minlength=4)
    assert drawn.tolist() == pytest.approx([0, 2000, 0, 8000], abs=2)


# --- tokenizer ---


def test_the_codebook_moves_and_dead_codes_come_back() -> None:
    torch.manual_seed(0)
    book = Codebook(4, 2)
    centres = torch.tensor([[9.0, 0.0], [0.0, 9.0], [-9.0, 0.0], [0.0, -9.0]])
    first = book.codes.clone()
    for _ in range(60):
        features = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2)
        numbers = book.nearest(features)
        sums = torch.zeros(4, 2).index_add_(0, numbers, features)
        used, spare = numbers.bincount(minlength=4), features[torch.randperm(200)[:4]]
        book.update(used, sums, spare, decay=0.8, dead_share=0.1)
    assert not book.codes.isclose(first).any()
    found = torch.cdist(centres, book.codes)
    assert found.min(1).values.max() < 0.1
    assert sorted(found.argmin(1).tolist()) == [0, 1, 2, 3]
    # a code that is far from all features is put on one of them
    book.codes[2], book.counts[2], book.sums[2] = 1e3, 0.0, 0.0
    spare = torch.tensor([[3.0, 3.0]])
    book.update(torch.tensor([50.0, 50, 0, 50]), 50 * centres, spare, decay=0.8, dead_share=0.1)
    torch.testing.assert_close(book.codes[2], spare[0])


def test_micro_batches_leave_the_codebook_of_the_whole() -> None:
    books = []
    for size in (4, 1):
        model = TokenizerModel(small_tokenizer(), decay=0.9, dead_share=0.1, commitment=0.25)
        windows = windows_of(model)
        model.loss(windows)  # a pass that is repeated counts once
        model.begin_step()
        for at in range(0, 4, size):
            model.loss({name: tensor[at : at + size] for name, tensor in windows.items()})
        before = model.tokenizer.codebook.codes.clone()
        model.end_step()
        books.append(model.tokenizer.codebook.codes)
        assert not books[-1].equal(before)
    torch.testing.assert_close(*books)


def test_masks_are_never_decoded() -> None:
    tokenizer = small_tokenizer()
    tokens = torch.randint(CODES, (2, 3, SIDE, SIDE))
    made = tokenizer.decode(tokens)
    assert made.shape == (2, 3, 3, 4 * SIDE, 4 * SIDE) and made.abs().max() <= 1
    assert tokenizer.encode(made).shape == tokens.shape
    tokens[0, 0, 0, 0] = CODES
    with pytest.raises(ValueError, match="are not all codes"):
        tokenizer.decode(tokens)


def test_embeddings_start_as_far_apart_as_the_codes_are() -> None:
    backbone = MaskedUViT(codes=64, **{**SIZES, "embedding": 256})
    mask = backbone.embed_tokens.weight[64].clone()
    codes = 5 + 0.01 * torch.randn(64, 4)
    backbone.start_from(codes)
    made = backbone.embed_tokens.weight.detach()
    assert made[64].equal(mask) and made[:64].std() == pytest.approx(1, abs=0.2)
    pairs = torch.stack([torch.pdist(codes), torch.pdist(made[:64])])
    assert torch.corrcoef(pairs)[0, 1] > 0.9


# --- rollout ---


@pytest.mark.parametrize("name", ["full", "timestep_free"])
def test_windows_fill_every_frame_and_leave_the_given_ones(name: str) -> None:
    sizes = {**SIZES, "sampler": name, "steps": STEPS}
    settings = MaskFlowSettings.model_validate(sizes)
    made = []
    for batch in (slice(0, 2), slice(1, 2)):
        method = Unmasking(
            backbone=small_backbone(), tokenizer=small_tokenizer().eval(), settings=settings
        )
        torch.manual_seed(5)
        video = torch.rand(2, FRAMES, 3, 4 * SIDE, 4 * SIDE) * 2 - 1
        video[:, 2:] = torch.nan
        clips = Clips(ids=["a", "b"][batch], video=video[batch], cameras=cameras(2, FRAMES)[batch])
        before, plan = clips.video.clone(), sliding()
        with torch.no_grad():
            method.generate(clips, plan, progress=lambda stages, **_: stages)
        assert clips.video[:, :2].equal(before[:, :2])
        assert clips.video.isfinite().all() and clips.video.abs().max() <= 1
        assert plan.windows is not None
        assert method.evaluations == STEPS * len(plan.windows.plan.keyframe_windows) == STEPS * 3
        made.append(clips.video)
    torch.testing.assert_close(made[0][1:], made[1])  # a clip does not depend on its batch


def sliding(density: float = 1.0) -> Sampling:
    """Windows in which half the frames are known."""
    config = load_config(ROOT, scale="smoke")
    made = sampling_of(JobSettings(config).rollout("maskflow", "spin"))
    assert made.windows is not None
    plan = plan_rollout(FRAMES, window=WINDOW, keyframe_density=density, context=2)
    return Sampling(context=2, windows=replace(made.windows, plan=plan))


def test_frames_between_keyframes_are_not_left_out_in_silence() -> None:
    settings = MaskFlowSettings.model_validate({**SIZES, "steps": 1})
    method = Unmasking(backbone=small_backbone(), tokenizer=small_tokenizer(), settings=settings)
    video = torch.zeros(1, FRAMES, 3, 4 * SIDE, 4 * SIDE)
    clips = Clips(ids=["a"], video=video, cameras=cameras(1, FRAMES))
    with pytest.raises(ValueError, match="in their order"):
        method.generate(clips, sliding(0.4), progress=lambda stages, **_: stages)


# --- through trainer and stage ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with clips, a plan, and a checkpoint of either method after some steps."""
    folder = tmp_path_factory.mktemp("maskflow")
    shutil.copytree(ROOT / "config", folder / "config")
    edit_yaml(folder / "config/config.yaml", scale="smoke")
    recipe = {"steps": 60, "batch": 4, "learning_rate": 0.004, "checkpoint_steps": 15}
    names = ("maskflow_tokenizer", "maskflow")
    edit_yaml(
        folder / "config/scales/smoke.yaml",
        plans__train__windows=240,
        **{f"recipes__{name}__{key}": value for name in names for key, value in recipe.items()},
    )
    write_fake_clips(folder / "clips", clips=4, frames=16, size=32)
    run_stage(folder, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    for name, initial in zip(names, ([], ["--initial", names[0]]), strict=True):
        run_stage(
            folder,
            *("training", "train", name, "--variant", name, "--seed", "0", "--clips", "clips"),
            *("--plan", "train.json", "--state", f"state-{name}", *initial),
        )
    return folder


def curve(checkpoint: Path, column: str) -> list[float]:
    header, *rows = (checkpoint / "curves.csv").read_text().splitlines()
    at = header.split(",").index(column)
    return [float(row.split(",")[at]) for row in rows]


def test_training_lowers_both_losses(trained: Path) -> None:
    errors = curve(trained / "maskflow_tokenizer", "reconstruction")
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])
    decibels = curve(trained / "maskflow_tokenizer", "reconstruction_psnr")
    assert sum(decibels[-5:]) > sum(decibels[:5]) + 5 * 3
    nats = curve(trained / "maskflow", "cross_entropy")
    assert sum(nats[-5:]) < 0.93 * sum(nats[:5])


def test_one_folder_holds_the_tokenizer_as_it_was_trained(trained: Path) -> None:
    alone, beside = trained / "maskflow_tokenizer", trained / "maskflow"
    assert read_checkpoint(beside)["weights"].keys() == {"backbone", "tokenizer"}
    pair = [load_module(VQTokenizer, folder, "tokenizer") for folder in (alone, beside)]
    mine, other = (module.state_dict() for module in pair)
    assert all(mine[name].equal(other[name]) for name in mine)
    assert mine["codebook.counts"].min() > 0


def test_a_resumed_run_ends_with_the_same_codebook(trained: Path, tmp_path: Path) -> None:
    settings = JobSettings(load_config(trained)).training("maskflow_tokenizer", 0)
    dataset = open_dataset(trained / "clips", trained / "train.json", settings)
    whole = load_module(VQTokenizer, trained / "maskflow_tokenizer", "tokenizer").state_dict()

    def stopped(steps: range, **_: object) -> Any:
        for step in steps:
            if step == 22:
                raise KeyboardInterrupt
            yield step

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        learn(objective_of(settings), dataset, settings, tmp_path / "state", progress=stopped)
    wait_for(lambda: [*(tmp_path / "state").glob("step-*.json")], "the state", seconds=20)
    torch.manual_seed(7)  # another start, which the state replaces
    model = objective_of(settings)
    log = learn(model, dataset, settings, tmp_path / "state")
    assert len(log) == 60
    ended = model.trained_modules()["tokenizer"].state_dict()
    assert all(ended[name].equal(whole[name]) for name in whole)


class Watched(Generator):
    """A generator that keeps the clips it is given."""

    def __init__(self, method: Generator) -> None:
        self.method, self.seen = method, list[Clips]()

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Any) -> None:
        self.seen.append(clips)
        self.method.generate(clips, sampling, progress=progress)


def test_rollouts_show_the_truth_to_the_tokenizer_alone(trained: Path) -> None:
    config = JobSettings(load_config(trained))
    rows = {}
    for name in ("maskflow_tokenizer", "maskflow"):
        job = config.rollout(name, "spin").model_copy(update={"frames": FRAMES})
        assert job.sampling is not None
        sampling = job.sampling.model_copy(update={"keyframe_density": 1.0})
        job = job.model_copy(update={"sampling": sampling})
        folder = trained / name
        loaded = load_variant(
            job, checkpoint=folder, base=folder, weights=None, basis=None, device=CPU
        )
        watched = Watched(loaded.method)
        rows[name], _ = run_protocol(
            replace(loaded, method=watched),
            trained / "clips",
            job,
            batch=4,
            parts=folder / "parts",
            progress=lambda stages, **_: stages,
        )
        assert [clips.truth is not None for clips in watched.seen] == [job.method.spec.sees_truth]
    assert rows["maskflow"].shape == rows["maskflow_tokenizer"].shape == (4, FRAMES, 32, 32, 3)
    store = ClipStore(trained / "clips")
    for made in rows.values():
        for row in range(4):
            assert (made[row, :1] == store.rgb(row, [0])).all()
    # nearer to the truth than its mean colour is, and than a model that does not see it
    true = np.stack([store.rgb(row, range(FRAMES)) for row in range(4)]).astype(float)
    error = {name: ((made - true)[:, 1:] ** 2).mean() for name, made in rows.items()}
    assert error["maskflow_tokenizer"] < 0.5 * true.var()
    assert error["maskflow_tokenizer"] < 0.7 * error["maskflow"]


def test_a_variant_needs_its_tokenizer(edit: Edit, trained: Path) -> None:
    for key, value, words in (
        ("variants.maskflow.initial", GONE, ["maskflow", "needs `initial`", "vq"]),
        ("variants.maskflow.initial", "base", ["base is of method dfot, not vq"]),
        ("variants.tuned.initial", "maskflow_tokenizer", ["of method vq, not dfot"]),
    ):
        told(partial(load_config, edit(EXPERIMENTS, key, value), scale="smoke"), *words)
    method = METHODS["maskflow"]
    settings = load_config(trained).method_settings("maskflow")
    told(lambda: method.build(settings, memory=None, initial=None), "needs `initial`")
    weights = Weights(checkpoint=trained / "maskflow_tokenizer", backbone=trained)
    told(lambda: method.load(settings, weights, memory=None, device=CPU), "backbone", "missing")
