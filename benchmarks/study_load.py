"""A preference study under load: many raters at once against a real server.

    python benchmarks/study_load.py [--raters 200] [--votes 6] [--pause 2] [--database postgresql://...]

Each rater is a task of one asynchronous client process with a connection of its own: it loads a
page, thinks for `pause` seconds on average (drawn from 0.5 to 1.5 of it) and sends its answers. A
vote is timed from sending it to the answer, which comes after the commit. At the end the votes in
the database are compared with those that were acknowledged. Videos are not loaded.
"""

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2 as httpx
import numpy as np

from geomem.study.build import Clip, build_study
from geomem.study.invitations import Invitations, study_secret
from geomem.study.plan import QUESTIONS, read_study
from geomem.study.votes import Votes

FRAMES = 4
TARGET = 200.0  # milliseconds, 95th percentile of a vote


def make(folder: Path, votes: int) -> None:
    """Build a study of so many comparisons."""
    frames = np.zeros((FRAMES, 32, 32, 3), np.uint8)
    cameras = np.zeros((FRAMES, 16), np.float32)
    cameras[:, [0, 1, 4, 9, 14]] = 1
    clips = [
        Clip(
            clip_id=f"clip-{number}",
            cameras=cameras,
            truth=frames,
            videos={"a": frames + number, "b": frames + number + 100},
            context=1,
        )
        for number in range(votes)
    ]
    build_study(folder, clips, title="Load", rate=8, checks=0, repeats=0, made_of={})


async def rate(link: str, pause: float, took: list[float], seen: list[tuple[str, str]]) -> None:
    """Vote on all comparisons of a rater."""
    drawn = random.Random(link)
    async with httpx.AsyncClient(timeout=60) as client:
        await asyncio.sleep(pause * drawn.random())
        while True:
            page = (await client.get(link)).text
            if "Thank you" in page:
                return
            name = page.split('name="comparison" value="')[1].split('"')[0]
            await asyncio.sleep(pause * (0.5 + drawn.random()))
            data = {"comparison": name, **{key: "left" for key, _ in QUESTIONS}}
            begun = time.perf_counter()
            answer = await client.post(link, data=data)
            took.append(1000 * (time.perf_counter() - begun))
            assert answer.status_code == 303, answer.text
            seen.append((link, name))


async def wait_until_up(at: str) -> None:
    """Return when the server answers."""
    async with httpx.AsyncClient() as client:
        for _ in range(300):
            try:
                await client.get(f"{at}/static/style.css")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise SystemExit("the server does not start")


def main() -> None:
    """Start a server, load it, and print what votes took and whether all are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--votes", type=int, default=6, help="of each rater")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds that a rater thinks")
    parser.add_argument("--database", help="postgresql://... (default: SQLite)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        make(folder, args.votes)
        study = read_study(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        at = f"http://127.0.0.1:{port}"
        address = args.database or f"sqlite:///{folder / 'votes.sqlite'}"
        code = "from geomem.commands.main import main; main()"
        serve = ["study", "serve", str(folder), "--port", str(port), "--database", address]
        server = subprocess.Popen([sys.executable, "-c", code, *serve], stdout=subprocess.DEVNULL)
        try:
            asyncio.run(wait_until_up(at))
            invitations = Invitations(study_secret(folder), study.digest)
            raters = {f"{at}/s/{token}": rater for rater, token in _invite(invitations, args)}
            took: list[float] = []
            seen: list[tuple[str, str]] = []

            async def all_at_once() -> None:
                await asyncio.gather(*(rate(link, args.pause, took, seen) for link in raters))

            begun = time.perf_counter()
            asyncio.run(all_at_once())
            seconds = time.perf_counter() - begun
        finally:
            server.kill()
            server.wait()
        saved = {(vote.rater, vote.comparison) for vote in Votes(address, study.digest).all()}
    lost = {(raters[link], name) for link, name in seen} - saved
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    load = os.getloadavg()[0]
    print(f"{args.raters} raters, {len(took)} votes in {seconds:.1f} s; load average {load:.1f}")
    print(f"a vote: median {p50:.0f} ms, 95 % {p95:.0f} ms, 99 % {p99:.0f} ms, max {max(took):.0f}")
    print(f"votes lost: {len(lost)}; votes twice: {len(saved) - len(seen) + len(lost)}")
    if lost or p95 >= TARGET:
        raise SystemExit(f"more than {TARGET:.0f} ms, or votes were lost")


def _invite(invitations: Invitations, args: argparse.Namespace) -> list[tuple[str, str]]:
    return [invitations.make() for _ in range(args.raters)]


if __name__ == "__main__":
    main()
