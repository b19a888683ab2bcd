"""Train the tracked weights of `tiny`, teacher and video model, in a given time; both at once.

    python benchmarks/weights.py render WORK                    # their clips, side by side
    python benchmarks/weights.py train WORK OUT SECONDS [--device cuda]
    python benchmarks/weights.py memory WORK OUT SECONDS --basis FILE [--device cuda]

`memory` goes on from the tracked model, now with a branch. The commands are those of the rules
`train_teacher`, `cache_features` and `train_variant`; only the numbers of steps are other, as many
as the time allows. They are written to OUT/steps.json: copy them to the configuration with the
weights. `--clips N` makes a small trial of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

SCALE, SPLIT, VARIANT, RECIPE = "tiny", "pretrain", "pretraining", "pretrain"
HELD_OUT = "validation"
WITH_MEMORY, KIND, SHARDS = "pretraining_memory", "memory1to8", 12
MEMORY = "pretrain_memory"  # plan and recipe
TEACHER, TRACKED = "weights/vggt_plain/model.safetensors", "weights/uvit_tiny/model.safetensors"
SPARE = 20.0  # seconds for starting, saving and measuring
PROBE = 10.0  # seconds over which steps are counted
COOLDOWN = 0.3  # share of the teacher's steps


class Weights:
    """A copy of the configuration, clips and the two trainings below a folder."""

    def __init__(self, work: Path, *, device: str = "auto") -> None:
        """Bind the folder; nothing is made yet."""
        self.work, self.device = work, device
        self.clips = work / SPLIT
        self.scale = work / f"config/scales/{SCALE}.yaml"

    def settings(self) -> dict[str, Any]:
        """Return the copied scale."""
        content: dict[str, Any] = yaml.safe_load(self.scale.read_text(encoding="utf-8"))
        return content

    def start(self, stage: str, *arguments: Any) -> subprocess.Popen[str]:
        """Start a command of a stage."""
        module, *rest = f"geomem.{stage}", *map(str, arguments)
        command = [sys.executable, "-m", module, *rest, "--root", str(self.work), "--scale", SCALE]
        return subprocess.Popen(command, text=True)

    def render(self, clips: int | None, *, splits: Sequence[str] = (SPLIT, HELD_OUT)) -> None:
        """Make all shards of splits at once."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree("config", self.work / "config")
        content = self.settings()
        if clips:
            content["splits"][SPLIT] |= {"clips": clips, "shards": min(SHARDS, clips // 10)}
            content["recipes"][RECIPE]["batch"] = content["teacher"]["training"]["max_frames"]
            content["teacher"]["training"]["batch_frames"] = clips // 4
        self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        running = []
        for split in splits:
            for number in range(content["splits"][split].get("shards", 1)):
                shard = self.work / split / f"shard-{number:03d}"
                job = ("--split", split, "--number", f"{number:03d}")
                running.append(self.start("clips", "make", shard, *job))
        finish(running)

    def recipe(self, *, teacher: int, model: int) -> None:
        """Write the numbers of steps into the copied configuration."""
        content = self.settings()
        training = {"steps": teacher, "cooldown_steps": max(1, int(COOLDOWN * teacher))}
        content["teacher"]["training"] |= training
        content["teacher"]["sha256"] = ""  # of the tracked weights
        content["recipes"][RECIPE] |= {"steps": model, "checkpoint_steps": model, "workers": 4}
        self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def teach(self, output: Path) -> subprocess.Popen[str]:
        """Start to train the teacher."""
        state = self.work / "state" / output.stem
        options = ("--clips", self.clips, "--state", state, "--device", self.device)
        return self.start("teacher", "train", output, *options)

    def pretrain(self, output: Path) -> subprocess.Popen[str]:
        """Start to train the video model."""
        options = ("--plan", self.work / "plan.json", "--state", self.state(output))
        given = ("--variant", VARIANT, "--seed", 0, "--clips", self.clips, "--device", self.device)
        return self.start("training", "train", output, *given, *options)

    def state(self, output: Path) -> Path:
        """Return the folder of a model's states."""
        return self.work / "state" / output.name

    def steps_done(self, output: Path) -> int:
        """Return how many steps a model has learned."""
        spool = self.state(output) / "metrics.jsonl"
        return len(spool.read_bytes().splitlines()) if spool.exists() else 0

    def seconds_a_step(self, most: int) -> tuple[float, float]:
        """Return what a step of the teacher and of the model takes while both train.

        The model's steps are counted; the teacher's time is the difference of two runs, so that its
        start does not count.
        """
        output, times, steps = self.work / "probe", list[float](), (20, 120)
        self.recipe(teacher=1, model=most)
        model = self.pretrain(output)
        while not self.steps_done(output) and model.poll() is None:
            time.sleep(0.2)
        begun, before = time.monotonic(), self.steps_done(output)
        for count in steps:
            start = time.monotonic()
            self.recipe(teacher=count, model=most)
            finish([self.teach(self.work / f"probe-{count}.safetensors")])
            times.append(time.monotonic() - start)
        learned = self.steps_done(output) - before
        each = (time.monotonic() - begun) / max(1, learned)
        model.kill()
        model.wait()
        return max(0.001, (times[1] - times[0]) / (steps[1] - steps[0])), each

    def remember(self, out: Path, seconds: float, basis: Path, *, windows: int) -> None:
        """Train the tracked model with a branch until the time is over."""
        end, plan = time.monotonic() + seconds, self.work / f"{MEMORY}.json"
        content = self.settings()
        batch = content["recipes"][MEMORY]["batch"]
        content["features"]["shards"], content["plans"][MEMORY]["windows"] = SHARDS, windows
        content["recipes"][MEMORY]["steps"] = windows // batch
        self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        initial = self.work / "initial"
        given = ("--variant", "uvit_tiny", "--seed", 0, "--weights", Path(TRACKED).absolute())
        drawn = ("--plan", MEMORY, "--clips", self.clips)
        finish(
            [
                self.start("clips", "plan", plan, *drawn),
                self.start("training", "import", initial, *given),
            ]
        )
        seen = ("--plan", plan, "--clips", self.clips, "--basis", basis.absolute())
        teacher = ("--weights", Path(TEACHER).absolute(), "--device", self.device, "--kind", KIND)
        parts = [self.work / KIND / f"part-{number:03d}.json" for number in range(SHARDS)]
        begun = time.monotonic()
        finish(
            [
                self.start("features", "cache", part, "--number", number, *seen, *teacher)
                for number, part in enumerate(parts)
            ]
        )
        print(f"{windows} windows cached in {time.monotonic() - begun:.0f} s", flush=True)
        options: tuple[Any, ...] = ("--variant", WITH_MEMORY, "--seed", 0, "--clips", self.clips)
        options += ("--plan", plan, "--initial", initial, "--memory-features", parts[0].parent)
        options += ("--device", self.device)

        def learn(output: Path, steps: int) -> subprocess.Popen[str]:
            content["recipes"][MEMORY] |= {"steps": steps, "workers": 12, "checkpoint_steps": 200}
            self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            return self.start("training", "train", output, *options, "--state", self.state(output))

        most, probe = windows // batch, self.work / "probe"
        each = self.seconds_of(learn(probe, most), probe)
        steps = int(min(most, max(1, 0.92 * (end - time.monotonic() - SPARE) / each)))
        print(json.dumps({"seconds_a_step": each, "steps": steps}), flush=True)
        (out / "steps.json").write_text(json.dumps({"seconds_a_step": each, "steps": steps}))
        self.keep(out, learn(self.work / "memory", steps), self.work / "memory", end)

    def seconds_of(self, model: subprocess.Popen[str], output: Path) -> float:
        """Return what a step of a model in training takes, counted over some seconds; stop it."""
        while not self.steps_done(output) and model.poll() is None:
            time.sleep(0.2)
        time.sleep(5)  # the first steps are slow
        begun, before = time.monotonic(), self.steps_done(output)
        time.sleep(PROBE)
        each = (time.monotonic() - begun) / max(1, self.steps_done(output) - before)
        model.kill()
        model.wait()
        return each

    def keep(self, out: Path, model: subprocess.Popen[str], output: Path, end: float) -> None:
        """Wait for a model and copy it, its record and its curves."""
        if wait(model, end) == 0:
            for name in ("checkpoint.json", "curves.csv"):
                shutil.copy(output / name, out / f"{output.name}-{name}")
            exported = out / f"{output.name}.safetensors"
            command = [sys.executable, "-m", "geomem.training", "export", str(exported)]
            subprocess.run([*command, "--checkpoint", str(output)], check=True)

    def train(self, out: Path, seconds: float) -> None:
        """Train both until the time is over, and measure the teacher."""
        end = time.monotonic() + seconds
        options = ("--plan", SPLIT, "--clips", self.clips)
        finish([self.start("clips", "plan", self.work / "plan.json", *options)])
        content = self.settings()
        most = content["plans"][SPLIT]["windows"] // content["recipes"][RECIPE]["batch"]
        each = dict(zip(("teacher", "model"), self.seconds_a_step(most), strict=True))
        left = 0.92 * (end - time.monotonic() - SPARE)
        steps = {name: int(min(most, max(1, left / each[name]))) for name in each}
        print(json.dumps({"seconds_a_step": each, "steps": steps}), flush=True)
        (out / "steps.json").write_text(json.dumps({"seconds_a_step": each, "steps": steps}))
        self.recipe(**steps)
        weights, output = self.work / "teacher.safetensors", self.work / "model"
        model, teacher = self.pretrain(output), self.teach(weights)
        if wait(teacher, end) == 0:
            shutil.copy(weights, out)
            options = ("--clips", self.work / HELD_OUT, "--weights", weights)
            measured = out / "teacher.json"
            wait(
                self.start("teacher", "evaluate", measured, *options, "--device", self.device), end
            )
        self.keep(out, model, output, end)


def finish(running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for processes; the first that failed ends this one."""
    failed = [process.args for process in running if process.wait()]
    if failed:
        raise SystemExit(f"failed: {failed[0]!r}")


def wait(process: subprocess.Popen[str], end: float) -> int:
    """Return a process's exit status; it is stopped at the end of the time."""
    try:
        return process.wait(max(1.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        print(f"stopped, no time left: {process.args!r}", flush=True)
        return process.wait()


def main() -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    render = commands.add_parser("render")
    render.add_argument("work", type=Path)
    render.add_argument("--clips", type=int, help="fewer than the scale's, for a trial")
    train = commands.add_parser("train")
    train.add_argument("work", type=Path)
    train.add_argument("out", type=Path)
    train.add_argument("seconds", type=float)
    train.add_argument("--device", default="auto")
    memory = commands.add_parser("memory")
    memory.add_argument("work", type=Path)
    memory.add_argument("out", type=Path)
    memory.add_argument("seconds", type=float)
    memory.add_argument("--basis", type=Path, required=True, help="of the features, of `tiny`")
    memory.add_argument("--windows", type=int, default=12000)
    memory.add_argument("--device", default="auto")
    args = parser.parse_args()
    os.chdir(Path(__file__).parent.parent)
    if args.command == "render":
        Weights(args.work).render(args.clips)
    elif args.command == "memory":
        args.out.mkdir(parents=True, exist_ok=True)
        device = args.device
        Weights(args.work, device=device).remember(
            args.out, args.seconds, args.basis, windows=args.windows
        )
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        Weights(args.work, device=args.device).train(args.out, args.seconds)


if __name__ == "__main__":
    main()
