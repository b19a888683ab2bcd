"""AMT-S (Li et al. 2023): the frame half way between two, from correlations of all pairs.

Parameter names are those of the published `amt-s.pth`.
Shape suffixes: B pairs, C channels, H, W pixels, h, w the grid of 1/8 of them.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_tensors

WIDTHS = (20, 32, 44, 56)  # channels at 1/2, 1/4, 1/8, 1/16
SIDE_WIDTH = 20
FLOWS = 3  # guesses that are blended
LEVELS, RADIUS = 4, 3  # of the correlations
MULTIPLE = 16  # of the sides
# Below this a level of the correlations has a single cell and no scale.
SMALLEST = 128
SLOPE = 0.1


def resized(x: Tensor, scale: float) -> Tensor:
    """Return (B, C, H, W) with sides times `scale`."""
    return F.interpolate(x, scale_factor=scale, mode="bilinear")


def sampled(image: Tensor, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """Return an image (B, C, H, W) at positions (B, h, w), in pixels from the first's centre."""
    height, width = image.shape[-2:]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1)
    return F.grid_sample(image, grid, align_corners=True, **options)


def cells(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns and rows (1, H, W) of the grid of an image (B, C, H, W)."""
    rows, columns = (torch.arange(n).to(image) for n in image.shape[-2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x[None], y[None]


def warped(image: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Return an image (B, C, H, W) as seen through a flow in pixels, its border repeated."""
    x, y = cells(image)
    return sampled(image, x + flow_B2HW[:, 0], y + flow_B2HW[:, 1], padding_mode="border")


def convolution(width: int, out: int, stride: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution with a PReLU for each channel."""
    return nn.Sequential(nn.Conv2d(width, out, 3, stride, 1), nn.PReLU(out))


class Bottleneck(nn.Module):
    """A residual of three convolutions, each normalised in its picture."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        inner = out // 4
        self.conv1, self.conv3 = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, out, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1)
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(width, out, 1, stride), nn.InstanceNorm2d(out)
            )
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in (self.conv1, self.conv2, self.conv3):
            y = F.relu(F.instance_norm(layer(y)))
        return F.relu(self.downsample(x) + y)


class CorrelationEncoder(nn.Module):
    """Features (B, 84, h, w) of which correlations are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1), Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(F.instance_norm(self.conv1(images)))
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(x))))
        return features


class Pyramid(nn.Module):
    """Features at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        for level, (width, out) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), start=1):
            layers = nn.Sequential(convolution(width, out, 2), convolution(out, out))
            self.register_module(f"pyramid{level}", layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for layers in self.children():
            levels.append(x := layers(x))
        return levels


class SideBlock(nn.Module):
    """A residual whose last channels go through convolutions of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = convolution(width, width), convolution(width, width)
        self.conv2, self.conv4 = (convolution(SIDE_WIDTH, SIDE_WIDTH) for _ in range(2))
        self.conv5, self.prelu = nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            y = whole(y)
            y = torch.cat([y[:, :-SIDE_WIDTH], side(y[:, -SIDE_WIDTH:])], dim=1)
        return self.prelu(x + self.conv5(y))


class Decoder(nn.Module):
    """What is known at one level, at the next finer."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(inner, out, 4, 2, 1)
        self.convblock = nn.Sequential(convolution(width, inner), SideBlock(inner), up)

    def forward(self, *parts: Tensor) -> Tensor:
        decoded: Tensor = self.convblock(torch.cat(parts, dim=1))
        return decoded


class Update(nn.Module):
    """Corrects flows and features of a level by the correlations where the flows lead."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1, self.convf2 = nn.Conv2d(4, 40, 7, 1, 3), nn.Conv2d(40, 20, 3, 1, 1)
        self.conv = nn.Conv2d(84, 68, 3, 1, 1)
        self.gru = self._pair(72 + width, 76)
        self.feat_head, self.flow_head = self._pair(76, width), self._pair(76, 4)

    @staticmethod
    def _pair(width: int, out: int) -> nn.Sequential:
        first, second = nn.Conv2d(width, 76, 3, 1, 1), nn.Conv2d(76, out, 3, 1, 1)
        return nn.Sequential(first, nn.LeakyReLU(SLOPE), second)

    def forward(self, features: Tensor, flows: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add to features and flows (B, 4, ...) of the level.

        Args:
            features: Of the level.
            flows: Both, on the grid of the correlations and in its cells.
            found: Correlations.
        """
        flow = F.leaky_relu(self.convf1(flows), SLOPE)
        flow = F.leaky_relu(self.convf2(flow), SLOPE)
        known = torch.cat([F.leaky_relu(self.convc1(found), SLOPE), flow], dim=1)
        known = F.leaky_relu(self.conv(known), SLOPE)
        seen = features if self.scale == 1 else resized(features, 1 / self.scale)
        out = self.gru(torch.cat([known, flows, seen], dim=1))
        more, moved = self.feat_head(out), self.flow_head(out)
        if self.scale == 1:
            return more, moved
        return resized(more, self.scale), self.scale * resized(moved, self.scale)


class Correlations:
    """Products of all pairs of features of two frames, both ways, at four sizes."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        pairs = torch.einsum("bchw,bcij->bhwij", first, second) / first.shape[1] ** 0.5
        ways = (pairs, rearrange(pairs, "b h w i j -> b i j h w"))
        self.levels = [[rearrange(way, "b h w i j -> (b h w) 1 i j") for way in ways]]
        for _ in range(LEVELS - 1):
            self.levels.append([F.avg_pool2d(way, 2) for way in self.levels[-1]])
        steps = torch.arange(-RADIUS, RADIUS + 1, device=first.device, dtype=first.dtype)
        # The first of the window's axes counts columns, as published.
        self.across, self.down = torch.meshgrid(steps, steps, indexing="ij")

    def around(self, flows: tuple[Tensor, Tensor]) -> Tensor:
        """Return (B, 2*4*49, h, w): of each way in windows around where its flow (B, 2, h, w)
        leads."""
        found = []
        for way, flow in enumerate(flows):
            x, y = cells(flow)
            centres = [
                rearrange(at, "b h w -> (b h w) 1 1") for at in (x + flow[:, 0], y + flow[:, 1])
            ]
            for level, maps in enumerate(self.levels):
                columns, rows = (centre / 2**level for centre in centres)
                window = sampled(maps[way], columns + self.across, rows + self.down)
                found.append(window.flatten(1).unflatten(0, x.shape[-2:]).movedim(-1, 0)[None])
        return torch.cat(found, dim=1)


class Amt(nn.Module):
    """The network, for the middle of two frames."""

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four = WIDTHS
        self.feat_encoder, self.encoder = CorrelationEncoder(), Pyramid()
        self.decoder4 = Decoder(2 * four + 1, 2 * four, three + 4)
        self.decoder3 = Decoder(3 * three + 4, 3 * three, two + 4)
        self.decoder2 = Decoder(3 * two + 4, 3 * two, one + 4)
        self.decoder1 = Decoder(3 * one + 4, 3 * one, 8 * FLOWS)
        self.update4, self.update3, self.update2 = Update(three, 1), Update(two, 2), Update(one, 4)
        last = nn.Conv2d(6 * FLOWS, 3, 3, 1, 1)
        self.comb_block = nn.Sequential(*convolution(3 * FLOWS, 6 * FLOWS), last)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the frame half way between frames (1, 3, H, W) in [0, 1], in [0, 1].

        Sides are multiples of 16, at least 128.
        """
        mean = torch.cat([first, second], dim=2).mean((1, 2, 3), keepdim=True)
        first, second = first - mean, second - mean
        correlations = Correlations(self.feat_encoder(first), self.feat_encoder(second))
        *finer, (last, other) = zip(self.encoder(first), self.encoder(second), strict=True)
        time = first.new_full((1, 1, *last.shape[-2:]), 0.5)
        decoded = self.decoder4(last, other, time)
        flows, features = self._updated(decoded[:, :4], decoded[:, 4:], self.update4, correlations)
        steps = ((self.decoder3, self.update3), (self.decoder2, self.update2))
        for (decoder, update), pair in zip(steps, finer[:0:-1], strict=True):
            decoded = decoder(features, *self._warped(pair, flows), flows)
            flows = decoded[:, :4] + 2 * resized(flows, 2)
            flows, features = self._updated(flows, decoded[:, 4:], update, correlations)
        decoded = self.decoder1(features, *self._warped(finer[0], flows), flows)
        return self._blended(decoded, 2 * resized(flows, 2), first, second, mean).clamp(0, 1)

    @staticmethod
    def _updated(
        flows: Tensor, features: Tensor, update: Update, correlations: Correlations
    ) -> tuple[Tensor, Tensor]:
        """Return flows (to the first and the second frame) and features of a level, corrected."""
        shown = flows if update.scale == 1 else resized(flows, 1 / update.scale) / update.scale
        to_first, to_second = shown.chunk(2, dim=1)
        # From frame to frame it is twice as far as from the middle.
        found = correlations.around((2 * to_second, 2 * to_first))
        more, moved = update(features, shown, found)
        return flows + moved, features + more

    @staticmethod
    def _warped(pair: tuple[Tensor, Tensor], flows: Tensor) -> tuple[Tensor, Tensor]:
        return warped(pair[0], flows[:, :2]), warped(pair[1], flows[:, 2:])

    def _blended(
        self, decoded: Tensor, flows: Tensor, first: Tensor, second: Tensor, mean: Tensor
    ) -> Tensor:
        """Return the frame from three guesses, each with flows, a mask and what to add."""
        sizes = [2 * FLOWS, 2 * FLOWS, FLOWS, 3 * FLOWS]
        to_first, to_second, masks, added = (
            rearrange(part, "1 (n c) h w -> n c h w", n=FLOWS) for part in decoded.split(sizes, 1)
        )
        start, end = (image.expand(FLOWS, -1, -1, -1) for image in (first, second))
        start, end = warped(start, to_first + flows[:, :2]), warped(end, to_second + flows[:, 2:])
        masks = masks.sigmoid()
        guesses = masks * start + (1 - masks) * end + mean + added
        joined = self.comb_block(rearrange(guesses, "n c h w -> 1 (n c) h w"))
        return guesses.mean(0, keepdim=True) + joined


def load_amt(path: Path) -> Amt:
    """Load AMT-S, frozen; every parameter comes from the file.

    Raises:
        ValueError: If the file cannot be read, or differs in any name or shape.
    """
    with torch.device("meta"):
        network = Amt()
    found: Any = read_tensors(path)
    if not isinstance(found.get("state_dict"), dict):
        raise ValueError(f"{path} has no `state_dict`, as the published amt-s.pth has")
    fill(network, found["state_dict"], path=path, name="AMT-S")
    return network.eval().requires_grad_(False)
