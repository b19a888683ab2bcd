"""Clips of Freedoom's maps by ViZDoom, a game engine that nobody here wrote.

The game is told where to stand and to look, and its own word on both is what is stored. Its depth
has 8 bits; exact depth is of the map (`geomem.scenes.doom_maps`), which is static here and so
all that there is to see.

Shape suffixes: T frames, H = W = resolution.
"""

import contextlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce

from geomem.errors import InputError
from geomem.scenes.doom_maps import STAND_SCRIPT, UNIT, DoomMap, depth_at, map_names, read_map
from geomem.scenes.doom_paths import EYE, draw_path
from geomem.scenes.trajectories import look
from geomem.sources.embedded import Clip, Film, path_frames
from geomem.sources.registry import ClipsOfSplit, Role

REMEDY = "pip install -e '.[renderers]'"
WADS = ("freedoom1.wad", "freedoom2.wad")
HEIGHTS = (384, 480, 600, 768, 960, 1200)  # of the screens of 4:3 that the engine has
STRETCH = 1.2  # the game shows heights so much greater than widths
_FIXED = 2**16  # of a map's unit, and of a full turn
_FINENESS = 6  # of the screen's pixels in one of a frame: the game does not smooth its pictures
_SETTLE = 40  # tics until the eyes are at their height and the field of view is set


def maps(split: ClipsOfSplit) -> Film:
    """Return what films the maps of a split."""
    player = Player(
        resolution=split.resolution, fov=split.settings.fov, supersample=split.supersample
    )
    listed = maps_of_role(player.folder, split.role)

    def film(scene: int, kind: Any) -> Clip:
        plan = read_map(*listed[scene % len(listed)])
        flat, yaw, height = draw_path(plan, kind, frames=path_frames(split), seed=scene)
        stride = split.options.stride
        return player.film(plan, flat[::stride], yaw[::stride], height)

    return film


def maps_of_role(folder: Path, role: Role) -> list[tuple[Path, str]]:
    """Return files and names of the maps of a role; no map is in two of them."""
    listed = [(folder / wad, name) for wad in WADS for name in map_names(folder / wad)]
    turns: tuple[Role, ...] = ("train", "test", "train", "validation")
    return [entry for i, entry in enumerate(listed) if turns[i % len(turns)] == role]


class Player:
    """A game in which a player stands where it is told to."""

    def __init__(self, *, resolution: int, fov: int, supersample: int = 1) -> None:
        """Find the engine.

        Args:
            resolution: Pixels per side of the square frames, cut from the middle of the screen.
            fov: Horizontal field of view of the whole screen, of 4:3, degrees.
            supersample: Least number of the screen's pixels a side of each of a frame's.

        Raises:
            InputError: If the package is missing, or if the engine has no fitting screen.
        """
        try:
            import vizdoom
        except (ImportError, SystemError) as error:  # the latter of another Python's wheel
            raise InputError(f"vizdoom cannot be loaded ({error}); {REMEDY}") from error
        self._engine, self._fov, self._resolution = vizdoom, fov, resolution
        self.folder = Path(vizdoom.__file__).parent
        fitting = [h for h in HEIGHTS if h % resolution == 0 and h >= supersample * resolution]
        if not fitting:
            raise InputError(
                f"ViZDoom has no screen for frames of {resolution} pixels with {supersample} "
                f"samples a side; choose a resolution that divides one of {HEIGHTS}"
            )
        self._screen = next((h for h in fitting if h >= _FINENESS * resolution), fitting[-1])

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """Normalised fx, fy, cx, cy of the square frames."""
        focal = 4 / 3 / 2 / math.tan(math.radians(self._fov) / 2)
        return focal, STRETCH * focal, 0.5, 0.5

    def film(self, plan: DoomMap, flat: np.ndarray, yaw: np.ndarray, height: float) -> Clip:
        """Film a map.

        Args:
            plan: The map.
            flat: (T, 2) places, x and z in metres.
            yaw: (T,) radians.
            height: Of the eyes above the map's zero, metres.

        Returns:
            cameras: (T, 16) where the game says that it was.
            rgb: (T, H, W, 3) uint8.
            depth: (T, H, W) float32 planar depth at the pixels' centres in metres, infinite in
                the sky.

        Raises:
            InputError: If the game stands elsewhere than it was told to.
        """
        feet = np.c_[flat, np.full(len(flat), height - EYE)]
        frames, told = self._play(plan, feet / UNIT, math.pi / 2 - yaw)
        eyes, angles = told[:, :3], np.radians(told[:, 3])
        off = np.abs(eyes * UNIT - feet - (0, 0, EYE)).max()
        if off > 0.001 or (told[:, 4:] != (0, 0, self._fov)).any():
            raise InputError(
                f"ViZDoom stood {off:.3f} m off in map {plan.name} of {plan.game}, or with another "
                f"pitch, roll and field of view than 0, 0 and {self._fov} degrees"
            )
        fx, fy, cx, cy = self.intrinsics
        grid = (np.arange(self._resolution) + 0.5) / self._resolution
        depth = np.stack(
            [
                depth_at(plan, eye, angle, (grid - cx) / fx, (cy - grid) / fy)
                for eye, angle in zip(eyes, angles, strict=True)
            ]
        )
        places = np.stack([eyes[:, 0], -eyes[:, 2], eyes[:, 1]], axis=1) * UNIT
        poses = look(places, math.pi / 2 - angles).reshape(-1, 12)
        cameras = np.c_[np.tile((fx, fy, cx, cy), (len(poses), 1)), poses]
        return (
            torch.from_numpy(cameras).float(),
            torch.from_numpy(frames),
            torch.from_numpy(np.where(np.isnan(depth), np.inf, depth * UNIT).astype(np.float32)),
        )

    def _play(
        self, plan: DoomMap, places: np.ndarray, angles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return frames (T, H, W, 3) and what the game says of its camera (T, 7): x, y, z in map
        units, angle, pitch, roll and field of view in degrees."""
        engine = self._engine
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / "map.wad"
            own.write_bytes(plan.wad())
            game = engine.DoomGame()
            self._set_up(game, own, plan)
            try:
                with contextlib.chdir(folder):  # the engine makes a folder where it starts
                    game.init()
            except Exception as error:  # of the engine's own kinds
                told = " ".join(str(error).split())
                raise InputError(f"ViZDoom does not start map {plan.name} ({told})") from error
            try:
                return self._stand(game, places, angles)
            finally:
                game.close()

    def _set_up(self, game: Any, own: Path, plan: DoomMap) -> None:
        engine = self._engine
        game.set_doom_game_path(str(self.folder / plan.game))
        game.set_doom_scenario_path(str(own))
        game.set_doom_config_path(str(own.with_name("engine.ini")))  # else it is written here
        game.set_doom_map(plan.name)
        game.set_seed(1)
        game.set_mode(engine.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_format(engine.ScreenFormat.RGB24)
        screen = f"RES_{self._screen * 4 // 3}X{self._screen}"
        game.set_screen_resolution(getattr(engine.ScreenResolution, screen))
        for part in (
            *("hud", "weapon", "crosshair", "decals", "particles", "messages", "corpses"),
            *("screen_flashes", "effects_sprites"),
        ):
            getattr(game, f"set_render_{part}")(False)
        game.set_available_buttons([])
        names = ("POSITION_X", "POSITION_Y", "POSITION_Z", "ANGLE", "PITCH", "ROLL", "FOV")
        game.set_available_game_variables(
            [getattr(engine.GameVariable, f"CAMERA_{name}") for name in names]
        )
        game.set_episode_timeout(0)
        game.add_game_args("+sv_cheats 1 -nomonsters +cl_capfps 1 +r_visibility 32")

    def _stand(
        self, game: Any, places: np.ndarray, angles: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        game.send_game_command(f"fov {self._fov}")
        fixed = np.rint(places * _FIXED).astype(int)
        turns = np.rint(angles / (2 * np.pi) * _FIXED).astype(int) % _FIXED
        frames: list[np.ndarray] = []
        told: list[np.ndarray] = []
        for x, y, z, turn in np.c_[fixed, turns]:
            for _ in range(1 if frames else _SETTLE):
                game.send_game_command(f"puke {STAND_SCRIPT} {x} {y} {z} {turn}")
                game.make_action([])
            state = game.get_state()
            frames.append(self._cut(state.screen_buffer))
            told.append(state.game_variables)
        return np.stack(frames), np.array(told, dtype=np.float64)

    def _cut(self, screen: np.ndarray) -> np.ndarray:
        """Return the square in the middle of a screen, made smaller to a frame."""
        side = self._screen // self._resolution
        edge = (self._screen * 4 // 3 - self._screen) // 2
        square = screen[:, edge : edge + self._screen].astype(np.float32)
        mean = reduce(square, "(h a) (w b) c -> h w c", "mean", a=side, b=side)
        return (mean + 0.5).astype(np.uint8)
