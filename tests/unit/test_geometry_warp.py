"""Backward warping on planes, where the answer is known."""

import torch
from torch import Tensor

from geomem.geometry.points import pixel_grid, unproject
from geomem.geometry.warp import share_seen, warp_frame

FRONTAL = torch.tensor([1.0, 1, 0.5, 0.5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0])


def shifted(x: float) -> Tensor:
    camera = FRONTAL.clone()
    camera[7] = -x  # centre at (x, 0, 0)
    return camera


def coordinates_image(depth: Tensor, camera: Tensor) -> Tensor:
    """Colour every pixel with its own world x and y."""
    return unproject(depth[None], camera[None])[0, ..., :2].permute(2, 0, 1)


def test_identity_gives_the_image_back() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    depth = 1 + pixel_grid(8, 8)[..., 0]
    warped, covisible = warp_frame(image, depth, FRONTAL, depth, FRONTAL)
    assert covisible.all()
    torch.testing.assert_close(warped, image, rtol=0, atol=1e-4)


def test_plane_shifts_by_focal_times_baseline_over_depth() -> None:
    # 0.5 m sideways at 2 m is a quarter of the image: two of eight pixels.
    depth = torch.full((8, 8), 2.0)
    source = coordinates_image(depth, FRONTAL)
    warped, covisible = warp_frame(source, depth, FRONTAL, depth, shifted(0.5))
    assert covisible[:, :6].all()
    assert not covisible[:, 6:].any()
    expected = coordinates_image(depth, shifted(0.5))
    torch.testing.assert_close(warped[:, :, :6], expected[:, :, :6], rtol=0, atol=1e-4)
    assert (warped[:, :, 6:] == 0).all()


def test_slanted_plane_is_wholly_covisible() -> None:
    # 1 / z is affine over the image of a plane: z = 2 / (1 - 0.8 x), x the normalised ray.
    def slanted(camera: Tensor) -> Tensor:
        x = pixel_grid(32, 32)[..., 0] - 0.5
        return (2 - 0.8 * camera[7]) / (1 - 0.8 * x)

    source, target = slanted(FRONTAL), slanted(shifted(0.2))
    image = coordinates_image(source, FRONTAL)
    warped, covisible = warp_frame(image, source, FRONTAL, target, shifted(0.2), tolerance=1e-3)
    assert covisible[:, 6:26].all()
    truth = coordinates_image(target, shifted(0.2))
    torch.testing.assert_close(warped[:, :, 6:26], truth[:, :, 6:26], rtol=0, atol=5e-3)


def test_occluded_and_missing_surfaces_are_not_covisible() -> None:
    near_strip = torch.full((8, 8), 4.0)
    near_strip[:, 3:5] = 1.0
    image = torch.ones(3, 8, 8)
    _, covisible = warp_frame(image, near_strip, FRONTAL, torch.full((8, 8), 4.0), FRONTAL)
    assert not covisible[:, 3:5].any()
    assert covisible[:, :2].all()
    for source, target in (((8, 8), None), (None, (8, 8))):
        empty = torch.full((8, 8), torch.inf)
        full = torch.full((8, 8), 2.0)
        warped, covisible = warp_frame(
            image, empty if source else full, FRONTAL, empty if target else full, FRONTAL
        )
        assert not covisible.any()
        assert (warped == 0).all()


def test_the_share_of_a_view_that_given_views_show_is_that_of_their_union() -> None:
    depth = torch.full((8, 8), 2.0)
    # a quarter of the image each way; outer pixel centres bound what a view shows
    right, left = shifted(0.5), shifted(-0.5)
    one = share_seen(depth[None], right[None], depth[None], FRONTAL[None])
    assert one.tolist() == [0.75]
    both = share_seen(depth[None], FRONTAL[None], depth.expand(2, 8, 8), torch.stack([left, right]))
    assert both.tolist() == [1.0]
    wall = torch.full((8, 8), 1.0)  # before the surface that the target shows
    assert share_seen(depth[None], right[None], wall[None], FRONTAL[None]).tolist() == [0.0]
