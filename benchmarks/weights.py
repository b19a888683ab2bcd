"""Train the tracked weights of `tiny` in a given time, on a GPU and the cores beside it.

    python benchmarks/weights.py render WORK                    # clips, all shards side by side
    python benchmarks/weights.py teacher WORK OUT SECONDS       # the small VGGT, and its measures
    python benchmarks/weights.py cache WORK                     # its features, on the cores
    python benchmarks/weights.py base WORK OUT SECONDS          # the video model without memory
    python benchmarks/weights.py memory WORK OUT SECONDS        # goes on from it with the branch

The commands are those of the rules; only the numbers of steps are other, as many as the time
allows. `--steps N` says how many instead of measuring what a step takes. They are written to
OUT/<command>-steps.json: copy them to the configuration with the weights. `cache` can run beside
`base`. A new teacher needs a new basis, so fit one and track it before `cache`. `--clips N` and
`--windows N` make a small trial of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

SCALE, SPLIT, HELD_OUT = "tiny", "pretrain", "validation"
BASE, MEMORY = "pretraining", "pretraining_memory"  # variants
RECIPES = {BASE: "pretrain", MEMORY: "pretrain_memory"}  # plans are called like their recipes
KIND = "memory1to8"
TEACHER, BASIS = "weights/vggt_plain/model.safetensors", "weights/uvit_tiny/basis.safetensors"
TRACKED = "weights/uvit_tiny/model.safetensors"
SPARE = 20.0  # seconds for starting, saving and measuring
PROBE = 10.0  # seconds over which steps are counted
SHARE = 0.92  # of the time that is left is planned with
TRIAL = 8  # windows a step where there are few clips
COOLDOWN = 0.3  # share of the teacher's steps


class Weights:
    """A copy of the configuration, clips and trainings below a folder."""

    def __init__(self, work: Path, *, device: str = "auto") -> None:
        """Bind the folder; nothing is made yet."""
        self.work, self.device = work, device
        self.clips = work / SPLIT
        self.scale = work / f"config/scales/{SCALE}.yaml"

    def change(self, **sections: dict[str, Any]) -> None:
        """Change the copied scale: `section={key: value}` or `section={name: {key: value}}`."""
        content = yaml.safe_load(self.scale.read_text(encoding="utf-8"))
        for section, changes in sections.items():
            for key, value in changes.items():
                if isinstance(value, dict):
                    content[section][key] |= value
                else:
                    content[section][key] = value
        self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def setting(self, *keys: str) -> Any:
        """Return a setting of the copied scale."""
        value = yaml.safe_load(self.scale.read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
        return value

    def start(self, stage: str, *arguments: Any) -> subprocess.Popen[str]:
        """Start a command of a stage."""
        module, *rest = f"geomem.{stage}", *map(str, arguments)
        command = [sys.executable, "-m", module, *rest, "--root", str(self.work), "--scale", SCALE]
        return subprocess.Popen(command, text=True)

    def render(self, *, clips: int | None, windows: int | None) -> None:
        """Make all shards of the clips at once."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree("config", self.work / "config")
        if clips:
            shards = min(clips // 10, self.setting("splits", SPLIT, "shards"))
            self.change(splits={SPLIT: {"clips": clips, "shards": shards}})
            self.change(teacher={"training": {"batch_frames": clips // 4}})
            self.change(recipes={recipe: {"batch": TRIAL} for recipe in RECIPES.values()})
        if windows:
            self.change(plans={RECIPES[MEMORY]: {"windows": windows}})
            self.change(recipes={RECIPES[MEMORY]: {"steps": 1}})
        running = []
        for split in (SPLIT, HELD_OUT):
            for number in range(self.setting("splits", split).get("shards", 1)):
                shard = self.work / split / f"shard-{number:03d}"
                job = ("--split", split, "--number", f"{number:03d}")
                running.append(self.start("clips", "make", shard, *job))
        finish(running)
        plans = [self.work / f"{recipe}.json" for recipe in RECIPES.values()]
        given = ("--clips", self.clips)
        finish([self.start("clips", "plan", path, "--plan", path.stem, *given) for path in plans])

    def cache(self, *, processes: int) -> None:
        """Cache what the teacher says of the memory frames, in so many processes on the CPU."""
        begun, plan = time.monotonic(), self.work / f"{RECIPES[MEMORY]}.json"
        self.change(features={"shards": processes})
        seen = ("--plan", plan, "--clips", self.clips, "--basis", Path(BASIS).absolute())
        teacher = ("--weights", Path(TEACHER).absolute(), "--device", "cpu", "--kind", KIND)
        parts = [self.work / KIND / f"part-{number:03d}.json" for number in range(processes)]
        finish(
            [
                self.start("features", "cache", part, "--number", number, *seen, *teacher)
                for number, part in enumerate(parts)
            ]
        )
        print(f"cached in {time.monotonic() - begun:.0f} s", flush=True)

    def teacher(self, out: Path, seconds: float, *, steps: int | None) -> None:
        """Train the teacher until the time is over, and measure it."""
        end = time.monotonic() + seconds

        def learn(count: int) -> Path:
            schedule = {"steps": count, "cooldown_steps": max(1, int(COOLDOWN * count))}
            self.change(teacher={"training": schedule, "sha256": ""})
            path = self.work / f"teacher-{count}.safetensors"
            options = ("--clips", self.clips, "--state", self.work / "state" / path.stem)
            self.wait(self.start("teacher", "train", path, *options, "--device", self.device), end)
            return path

        if steps is None:
            begun = time.monotonic()
            learn(20)
            between = time.monotonic()
            learn(120)  # the difference, so that its start does not count
            each = max(0.001, (time.monotonic() - between - (between - begun)) / 100)
            steps = planned(end, each)
        write(out / "teacher-steps.json", {"steps": steps})
        weights = learn(steps)
        shutil.copy(weights, out / "teacher.safetensors")
        options = ("--clips", self.work / HELD_OUT, "--weights", weights, "--device", self.device)
        self.wait(self.start("teacher", "evaluate", out / "teacher.json", *options), end)

    def model(self, variant: str, out: Path, seconds: float, *, steps: int | None) -> None:
        """Train a variant until the time is over; copy its weights and its curves."""
        end, recipe = time.monotonic() + seconds, RECIPES[variant]
        given = ("--variant", variant, "--seed", 0, "--clips", self.clips)
        given += ("--plan", self.work / f"{recipe}.json", "--device", self.device)
        if variant == MEMORY:
            given += ("--initial", self.initial(), "--memory-features", self.work / KIND)
        most = self.setting("plans", recipe, "windows") // self.setting("recipes", recipe, "batch")
        most *= self.setting("recipes", recipe).get("passes", 1)

        def learn(output: Path, count: int) -> subprocess.Popen[str]:
            workers = min(14, os.cpu_count() or 1)
            seldom = {"steps": count, "checkpoint_steps": 1000, "workers": workers}
            self.change(recipes={recipe: seldom})
            state = self.work / "state" / output.name
            return self.start("training", "train", output, *given, "--state", state)

        each = None
        if steps is None:
            each = self.seconds_a_step(learn, most)
            steps = min(most, planned(end, each))
        write(out / f"{variant}-steps.json", {"steps": steps, "seconds_a_step": each})
        output = self.work / variant
        for folder in (output, self.work / "state" / output.name):
            shutil.rmtree(folder, ignore_errors=True)
        if self.wait(learn(output, steps), end):
            return
        shutil.copy(output / "curves.csv", out / f"{variant}-curves.csv")  # few files may come back
        exported = ("export", out / f"{variant}.safetensors", "--checkpoint", output)
        command = [sys.executable, "-m", "geomem.training", *map(str, exported)]
        subprocess.run(command, check=True)

    def initial(self) -> Path:
        """Return the checkpoint of the base, or else of the tracked weights."""
        if (self.work / BASE).exists():
            return self.work / BASE
        output = self.work / "initial"
        given = ("--variant", "uvit_tiny", "--seed", 0, "--weights", Path(TRACKED).absolute())
        finish([self.start("training", "import", output, *given)])
        return output

    def seconds_a_step(
        self, learn: Callable[[Path, int], subprocess.Popen[str]], most: int
    ) -> float:
        """Return what a step takes, counted over some seconds of a training that is stopped."""
        output = self.work / "probe"
        shutil.rmtree(self.work / "state" / output.name, ignore_errors=True)
        spool = self.work / "state" / output.name / "metrics.jsonl"
        model = learn(output, most)

        def done() -> int:
            return len(spool.read_bytes().splitlines()) if spool.exists() else 0

        while done() < 20 and model.poll() is None:  # the first steps are slow
            time.sleep(0.2)
        begun, before = time.monotonic(), done()
        time.sleep(PROBE)
        each = (time.monotonic() - begun) / max(1, done() - before)
        model.kill()
        model.wait()
        return each

    @staticmethod
    def wait(process: subprocess.Popen[str], end: float) -> int:
        """Return a process's exit status; it is stopped at the end of the time."""
        try:
            return process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            print(f"stopped, no time left: {process.args!r}", flush=True)
            return process.wait()


def planned(end: float, each: float) -> int:
    """Return how many steps fit into the time that is left."""
    return max(1, int(SHARE * (end - time.monotonic() - SPARE) / each))


def write(path: Path, content: dict[str, Any]) -> None:
    """Write and print a JSON file."""
    text = json.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path.name, text, flush=True)


def finish(running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for processes; the first that failed ends this one."""
    failed = [process.args for process in running if process.wait()]
    if failed:
        raise SystemExit(f"failed: {failed[0]!r}")


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    render = commands.add_parser("render")
    render.add_argument("work", type=Path)
    render.add_argument("--clips", type=int, help="fewer than the scale's, for a trial")
    render.add_argument("--windows", type=int, help="with a memory; fewer, for a trial")
    cache = commands.add_parser("cache")
    cache.add_argument("work", type=Path)
    cache.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    for name in ("teacher", "base", "memory"):
        command = commands.add_parser(name)
        command.add_argument("work", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("seconds", type=float)
        command.add_argument("--steps", type=int)
        command.add_argument("--device", default="auto")
    args = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    weights = Weights(args.work, device=getattr(args, "device", "auto"))
    if args.command == "render":
        weights.render(clips=args.clips, windows=args.windows)
    elif args.command == "cache":
        weights.cache(processes=args.processes)
    elif args.command == "teacher":
        weights.teacher(args.out, args.seconds, steps=args.steps)
    else:
        variant = BASE if args.command == "base" else MEMORY
        weights.model(variant, args.out, args.seconds, steps=args.steps)


if __name__ == "__main__":
    main()
