"""Train the tracked weights of `tiny`, teacher and video model, in a given time; both at once.

    python benchmarks/weights.py render WORK                    # their clips, side by side
    python benchmarks/weights.py train WORK OUT SECONDS [--device cuda]

The commands are those of the rules `train_teacher` and `train_variant`; only the numbers of steps
are other, as many as the time allows. They are written to OUT/steps.json: copy them to the
configuration with the weights. `--clips N` makes a small trial of it.
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
SPARE = 30.0  # seconds for starting, saving and measuring
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

    def render(self, clips: int | None) -> None:
        """Make all shards of the two splits at once."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree("config", self.work / "config")
        content = self.settings()
        if clips:
            content["splits"][SPLIT] |= {"clips": clips, "shards": 2}
            content["recipes"][RECIPE]["batch"] = content["teacher"]["training"]["max_frames"]
            content["teacher"]["training"]["batch_frames"] = clips // 4
        content["teacher"]["sha256"] = ""  # of the tracked weights
        self.scale.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        running = []
        for split in (SPLIT, HELD_OUT):
            for number in range(content["splits"][split].get("shards", 1)):
                shard = self.work / split / f"shard-{number:03d}"
                job = ("--split", split, "--number", f"{number:03d}")
                running.append(self.start("clips", "make", shard, *job))
        finish(running)
        options = ("--plan", SPLIT, "--clips", self.clips)
        finish([self.start("clips", "plan", self.work / "plan.json", *options)])

    def recipe(self, *, teacher: int, model: int) -> None:
        """Write the numbers of steps into the copied configuration."""
        content = self.settings()
        training = {"steps": teacher, "cooldown_steps": max(1, int(COOLDOWN * teacher))}
        content["teacher"]["training"] |= training
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

    def train(self, out: Path, seconds: float) -> None:
        """Train both until the time is over, and measure the teacher."""
        end = time.monotonic() + seconds
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
        if wait(model, end) == 0:
            for name in ("checkpoint.json", "curves.csv"):
                shutil.copy(output / name, out / f"model-{name}")
            [file] = (output / "model/backbone").glob("*.safetensors")
            shutil.copy(file, out / "model.safetensors")


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
    args = parser.parse_args()
    os.chdir(Path(__file__).parent.parent)
    if args.command == "render":
        Weights(args.work).render(args.clips)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        Weights(args.work, device=args.device).train(args.out, args.seconds)


if __name__ == "__main__":
    main()
