"""A real server of a preference study in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from conftest import ROOT, wait_for
from geomem.study.ballots import Ballot, read_ballots
from geomem.study.plan import Study, read_study

GEOMEM = (sys.executable, "-c", "from geomem.commands.main import main; main()", "study")


class Served:
    """`geomem study serve` of a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.at = f"http://127.0.0.1:{self.port}"
        self.study: Study = read_study(folder)
        self.start()

    def start(self) -> None:
        command = [*GEOMEM, "serve", str(self.folder), "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        wait_for(self.answers, "the server to answer", seconds=60)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.at}/static/style.css", timeout=5).close()
        except OSError:
            assert self.process.poll() is None, "the server ended"
            return False
        return True

    def kill(self) -> None:
        """End it as a failing machine would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def invited(self, raters: int) -> dict[str, str]:
        """Return links by rater."""
        options = ["--raters", str(raters), "--base-url", self.at]
        return dict(line.split("\t") for line in run("invite", str(self.folder), *options))

    def invite(self, raters: int = 1) -> list[str]:
        """Return links."""
        return list(self.invited(raters).values())

    def ballots(self) -> list[Ballot]:
        """Return what is exported."""
        path = self.folder.parent / "votes.csv"
        run("export", str(self.folder), str(path))
        return read_ballots(path)


def run(*arguments: str) -> list[str]:
    """Return the lines that a command of the study prints."""
    result = subprocess.run(
        [*GEOMEM, *arguments], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()
