"""Clips of houses by miniworld's renderer (OpenGL), which nobody here wrote.

miniworld's world has y up and z to the viewer, ours y down and z ahead: (x, y, z) there is
(x, -y, -z) here. Its depth buffer has 16 bits and the place of one of a pixel's samples; ours
beside it has 32-bit floats at the pixels' centres.

Shape suffixes: T frames, H = W = resolution.
"""

import contextlib
import io
import math
from ctypes import POINTER, byref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from geomem.errors import InputError
from geomem.geometry.cameras import check_cameras
from geomem.scenes.houses import CEILINGS, House, make_house
from geomem.scenes.interiors import DOOR_HEIGHT
from geomem.scenes.trajectories import make_trajectory
from geomem.sources.embedded import Clip, Film, path_frames, pinhole
from geomem.sources.registry import ClipsOfSplit

REMEDY = (
    "pip install -e '.[renderers]'; on Debian apt-get install libegl1 libgl1 libglu1-mesa, "
    "which draw in software where there is no GPU"
)
NEAR, FAR = 0.04, 100.0  # of miniworld's projection, metres
_SAMPLES = 8  # a pixel, where the driver can
_FOCAL_TOLERANCE = 1e-5


def houses(split: ClipsOfSplit) -> Film:
    """Return what films the houses of a split."""
    studio = Studio(resolution=split.resolution, supersample=split.supersample)
    lens = pinhole(split.settings.horizontal_fov)

    def film(scene: int, kind: Any) -> Clip:
        house, stride = make_house(scene), split.options.stride
        cameras = make_trajectory(
            house, kind, frames=path_frames(split), seed=scene, intrinsics=lens
        )[::stride]
        rgb, depth = studio.film(house, cameras)
        return cameras, rgb, depth

    return film


class Studio:
    """An OpenGL context that films houses.

    There is one at a time in a process: miniworld keeps what it draws in one display list.
    """

    def __init__(self, *, resolution: int, supersample: int = 1) -> None:
        """Open the context.

        Args:
            resolution: Pixels per side.
            supersample: Times as many pixels a side are drawn and averaged, each of several
                samples by itself.

        Raises:
            InputError: If the package or an OpenGL driver is missing; the remedy is named.
        """
        self._resolution, self._supersample = resolution, supersample
        stage = _stage()
        try:
            # miniworld prints how many samples the driver has
            with contextlib.redirect_stdout(io.StringIO()):
                self._env = stage(resolution * supersample)
        except Exception as error:  # of whatever library the driver's absence is noticed in
            raise InputError(f"miniworld cannot draw ({_line(error)}); {REMEDY}") from error
        self._depth = _depth_buffer(resolution)

    def film(self, house: House, cameras: Tensor) -> tuple[Tensor, Tensor]:
        """Film a house.

        Args:
            house: The house.
            cameras: (T, 16) normalised intrinsics and world-to-camera matrices (OpenCV axes);
                square pixels, the middle of the image on the axis, no roll.

        Returns:
            rgb: (T, H, W, 3) uint8.
            depth: (T, H, W) float32 planar depth at the pixels' centres in metres, infinite in
                the sky.

        Raises:
            ValueError: If a camera is none that miniworld has.
        """
        check_cameras(cameras)
        self._env.enter(house)
        size, frames, depths = self._supersample, [], []
        for camera in cameras.double().numpy():
            self._env.aim(camera)
            drawn = reduce(
                self._env.render_obs().astype(np.float32),
                "(h a) (w b) c -> h w c",
                "mean",
                a=size,
                b=size,
            )
            frames.append((drawn + 0.5).astype(np.uint8))
            depths.append(self._env.render_obs(self._depth))
        return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(depths))

    def view(self) -> tuple[np.ndarray, np.ndarray]:
        """Return miniworld's own word on the last camera, in our axes: its place (3,) and the
        direction (3,) it looks in."""
        flip = np.array([1, -1, -1])
        return self._env.agent.cam_pos * flip, self._env.agent.cam_dir * flip

    def mesh_extents(self, name: str) -> np.ndarray:
        """Return the corners (2, 3) of a mesh that is one metre high, in miniworld's axes."""
        mesh = self._env.mesh(name)
        return np.stack([mesh.min_coords, mesh.max_coords]) / mesh.max_coords[1]


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _load_with_alpha(load: Any) -> Any:
    """Return a loader of pictures that have alpha, which pyglet would add by a regular expression
    that takes a second a picture."""

    def loaded(path: str) -> Any:
        picture = load(path).get_image_data()
        if picture.format != "RGB":
            return picture
        rgb = np.frombuffer(picture.get_data("RGB", 3 * picture.width), np.uint8).reshape(-1, 3)
        rgba = np.full((len(rgb), 4), 255, np.uint8)
        rgba[:, :3] = rgb
        size = (picture.width, picture.height)
        return type(picture)(*size, "RGBA", rgba.tobytes(), pitch=4 * picture.width)

    return loaded


@cache
def _stage() -> Any:
    """Return miniworld's environment as a house with a free camera.

    Raises:
        InputError: If the package is missing, or a library that it loads.
    """
    try:
        import pyglet

        # without a display, by EGL; it reads this when its windows are imported
        pyglet.options["headless"] = True
        import miniworld
        from miniworld.entity import ImageFrame, MeshEnt
        from miniworld.miniworld import MiniWorldEnv
        from miniworld.objmesh import ObjMesh
        from miniworld.opengl import Texture
        from miniworld.params import DEFAULT_PARAMS
        from pyglet import image
        from pyglet.gl import GL_NORMALIZE, glEnable
    except Exception as error:  # pyglet opens a window when it is imported
        raise InputError(f"miniworld cannot be loaded ({_line(error)}); {REMEDY}") from error

    image.load = _load_with_alpha(image.load)
    folder = Path(miniworld.__file__).parent / "textures"
    portraits = sorted((folder / "portraits").glob("*.png"))
    # by their files' names, where miniworld would take the first of several variants
    for path in (*folder.glob("*.png"), *portraits):
        Texture.tex_paths[path.stem] = [str(path)]

    class Stage(MiniWorldEnv):
        """A house; it is empty until one is entered."""

        def __init__(self, size: int) -> None:
            self._house = make_house(0)
            params = DEFAULT_PARAMS.no_random()
            super().__init__(
                obs_width=size, obs_height=size, window_width=8, window_height=8, params=params
            )
            self.shadow_window.switch_to()
            glEnable(GL_NORMALIZE)  # else light on a mesh is as strong as the mesh is small

        def enter(self, house: House) -> None:
            self._house = house
            towards = np.array(house.sun.direction) * (1, -1, -1)
            # miniworld adds 1 to each number and takes the sum for a direction
            self.params.set("light_pos", [float(v) for v in 100 * towards - 1])
            self.params.set("light_color", list(house.sun.colour))
            self.params.set("light_ambient", list(house.sun.ambient))
            self.params.set("sky_color", list(house.sky))
            self.reset(seed=0)

        def _gen_world(self) -> None:
            house, plan = self._house, self._house.plan
            rooms = []
            for number, looks in enumerate(house.looks):
                x0, x1, z0, z1 = plan.room_bounds(number)
                rooms.append(
                    self.add_rect_room(
                        min_x=x0,
                        max_x=x1,
                        min_z=-z1,
                        max_z=-z0,
                        wall_height=plan.height,
                        wall_tex=looks.wall,
                        floor_tex=looks.floor,
                        ceil_tex=looks.ceiling or CEILINGS[0],
                        no_ceiling=looks.ceiling is None,
                    )
                )
            for door in plan.doors:
                middle, half = door.centre[1 - door.axis], door.width / 2
                low, high = middle - half, middle + half
                span = (
                    {"min_z": -high, "max_z": -low}
                    if door.axis == 0
                    else {"min_x": low, "max_x": high}
                )
                first, second = (rooms[number] for number in door.rooms)
                self.connect_rooms(first, second, max_y=DOOR_HEIGHT, **span)
                self.rooms[-1].no_ceiling = False  # a lintel, also where a yard begins
            for thing in house.things:
                entity = MeshEnt(mesh_name=thing.model, height=thing.height)
                self.place_entity(entity, pos=np.array([thing.x, 0, -thing.z]), dir=-thing.yaw)
            for picture in house.pictures:
                self.entities.append(
                    ImageFrame(
                        pos=[picture.x, -picture.y, -picture.z],
                        dir=math.pi / 2 - picture.yaw,
                        tex_name=portraits[picture.number].stem,
                        width=picture.width,
                    )
                )
            self.place_entity(self.agent, pos=np.zeros(3), dir=0.0)

        def aim(self, camera: np.ndarray) -> None:
            place, yaw, pitch, fov = angles_of(camera)
            self.agent.pos = np.array([place[0], 0.0, -place[2]])
            self.agent.cam_height, self.agent.cam_fwd_disp = -place[1], 0.0
            self.agent.dir, self.agent.cam_pitch = math.pi / 2 - yaw, math.degrees(pitch)
            self.agent.cam_fov_y = math.degrees(fov)

        @staticmethod
        def mesh(name: str) -> Any:
            return ObjMesh.get(name)

    return Stage


def angles_of(camera: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Return place (3,), yaw, pitch (up) and field of view of a camera (16,), radians.

    Raises:
        ValueError: If the camera is rolled, its pixels are not square or the middle of its image
            lies off its axis.
    """
    fx, fy, cx, cy = camera[:4]
    pose = camera[4:].reshape(3, 4)
    rotation = pose[:, :3]
    off = np.abs([fx - fy, cx - 0.5, cy - 0.5, rotation[0, 1]]).max()
    if off > _FOCAL_TOLERANCE:
        raise ValueError(
            f"miniworld has no camera with intrinsics {camera[:4]} and roll; off {off}"
        )
    ahead = rotation[2]
    pitch = math.atan2(-ahead[1], math.hypot(ahead[0], ahead[2]))
    yaw = math.atan2(ahead[0], ahead[2])
    return -rotation.T @ pose[:, 3], yaw, pitch, 2 * math.atan(0.5 / fy)


def _depth_buffer(size: int) -> Any:
    """Return a frame buffer for miniworld that gives depth in place of an image."""
    from pyglet import gl

    class DepthBuffer:
        """One sample a pixel, 32-bit floats."""

        def __init__(self) -> None:
            self.width = self.height = size
            self.buffer = gl.GLuint()
            gl.glGenFramebuffers(1, byref(self.buffer))
            gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self.buffer)
            for part, form in (
                (gl.GL_COLOR_ATTACHMENT0, gl.GL_RGBA8),
                (gl.GL_DEPTH_ATTACHMENT, gl.GL_DEPTH_COMPONENT32F),
            ):
                store = gl.GLuint()
                gl.glGenRenderbuffers(1, byref(store))
                gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, store)
                gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, form, size, size)
                gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, part, gl.GL_RENDERBUFFER, store)
            state = gl.glCheckFramebufferStatus(gl.GL_FRAMEBUFFER)
            if state != gl.GL_FRAMEBUFFER_COMPLETE:
                raise InputError(f"the driver has no depth of 32 bits ({state:#x}); {REMEDY}")

        def bind(self) -> None:
            gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, self.buffer)
            gl.glViewport(0, 0, size, size)

        def resolve(self) -> np.ndarray:
            values = np.empty((size, size), np.float32)
            gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
            pointer = values.ctypes.data_as(POINTER(gl.GLfloat))
            gl.glReadPixels(0, 0, size, size, gl.GL_DEPTH_COMPONENT, gl.GL_FLOAT, pointer)
            gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, 0)
            return metres_of(values[::-1])

    return DepthBuffer()


def metres_of(depth: np.ndarray) -> np.ndarray:
    """Return planar depth in metres of OpenGL's in [0, 1], float32; the far plane is infinite."""
    ahead = FAR * NEAR / (FAR - depth.astype(np.float64) * (FAR - NEAR))
    return np.where(depth < 1, ahead, np.inf).astype(np.float32)
