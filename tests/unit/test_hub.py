"""Models on a hub or in a plain folder: `geomem hub push|pull`, and the cards that they have."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from conftest import ROOT, told
from geomem.commands.main import main
from geomem.formats.hub import CARD, local_path, pull_folder, push_folder
from geomem.pipelines.card import CardData, Score, write_card

SCORE = Score(protocol="spin", dataset="rooms_plain", metric="psnr", value=24.25, clips=10)
DATA: dict[str, Any] = {
    "variant": "memory_4", "seed": 1, "scale": "tiny", "settings": "0123456789abcdef",
    "origin": "Trained here.", "dataset": "rooms_plain", "memory": "It remembers.",
    "resolution": 32, "window": 8, "parameters": 4_700_000,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "backbone").mkdir(parents=True)
    save_file({"w": torch.arange(4.0)}, folder / "backbone/diffusion_pytorch_model.safetensors")
    (folder / "model_index.json").write_text("{}")
    (folder / CARD).write_text(write_card(CardData(**DATA)))
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_plain_folder_takes_a_model_and_gives_it_back(model: Path, tmp_path: Path) -> None:
    store, back = tmp_path / "store/x", tmp_path / "back"
    main(["hub", "push", str(model), str(store)])
    assert bytes_of(store) == bytes_of(model)
    (model / "old.json").write_text("{}")
    push_folder(model, str(store))
    (model / "old.json").unlink()
    push_folder(model, str(store))
    main(["hub", "pull", str(store), str(back)])
    assert bytes_of(back) == bytes_of(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "model", "store"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["x"]


def test_what_is_no_model_is_neither_pushed_nor_pulled_nor_replaced(
    model: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    (model / "backbone/model.bin").write_bytes(b"\x80\x04.")
    told(lambda: push_folder(model, store), "backbone/model.bin", "pickle")
    told(lambda: pull_folder(str(model), tmp_path / "new"), "backbone/model.bin", "pickle")
    (model / "backbone/model.bin").unlink()
    (model / "secret.json").symlink_to("/etc/hostname")
    told(lambda: push_folder(model, store), "secret.json", "link")
    (model / "secret.json").unlink()
    told(lambda: push_folder(model, str(model / "in")), "in", "itself")
    told(lambda: pull_folder(str(model), tmp_path / "new", revision="main"), "no revisions")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    told(lambda: push_folder(model, str(tmp_path / "mine")), "mine", "not replaced", "card")
    told(lambda: pull_folder("owner/name", tmp_path / "mine"), "not replaced")
    (model / CARD).write_text("# no front matter")
    told(lambda: push_folder(model, store), CARD, "front matter")
    (model / CARD).unlink()
    told(lambda: push_folder(model, "owner/name"), CARD, "front matter")
    told(lambda: push_folder(tmp_path / "none", store), "no folder")
    assert not (tmp_path / "store").exists() and not (tmp_path / "new").exists()
    assert (tmp_path / "mine/notes.txt").read_text() == "mine"


def test_repositories_are_told_from_paths() -> None:
    assert local_path("owner/name-1.0") is None
    assert local_path("/a/b") == Path("/a/b") and local_path("./a") == Path("a")
    for place in ("name", "a/b/c", "https://huggingface.co/a/b", "owner/", ".hidden/x"):
        told(lambda place=place: local_path(place), repr(place), "owner/name")


class Refusing(BaseHTTPRequestHandler):
    """A hub that writes down what it is asked and refuses it."""

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        asked = (self.command, self.path, self.headers.get("Authorization"), self.rfile.read(size))
        self.server.asked.append(asked)  # type: ignore[attr-defined]
        body = b'{"error": "not for you"}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_HEAD = answer  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def geomem(*arguments: str, **variables: str) -> str:
    """What `geomem` says when it fails; the hub's settings are read once a process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = "from geomem.commands.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        env=clean | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_repository_is_made_in_private_with_the_user_s_token(
    model: Path, tmp_path: Path, refusing: HTTPServer
) -> None:
    hub = {
        "HF_ENDPOINT": f"http://127.0.0.1:{refusing.server_port}",
        "HF_TOKEN": "a-token",
        "HF_HOME": str(tmp_path / "home"),
    }
    said = geomem("hub", "push", str(model), "owner/name", **hub)
    assert said.startswith("geomem: error: owner/name on the hub: ") and "403" in said
    asked: list[Any] = refusing.asked  # type: ignore[attr-defined]
    [(path, token, body)] = [rest for method, *rest in asked if method == "POST"]
    assert (path, token) == ("/api/repos/create", "Bearer a-token")
    made = json.loads(body)
    assert made["name"] == "name" and made["organization"] == "owner"
    assert made.get("private") is True or made.get("visibility") == "private"
    asked.clear()
    said = geomem("hub", "pull", "owner/name", str(tmp_path / "new"), "--revision", "v1", **hub)
    assert said.startswith("geomem: error: owner/name on the hub: ")
    wanted = [path for _, path, *_ in asked if path.startswith("/api/models/owner/name/")]
    assert wanted and all("v1" in path for path in wanted)
    assert not (tmp_path / "new").exists()


def test_a_machine_without_the_hub_is_told_so(model: Path, tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    for arguments in (["push", str(model), "owner/name"], ["pull", "owner/name", "new"]):
        said = geomem("hub", *arguments, **offline)
        assert said.startswith("geomem: error: owner/name on the hub: ") and "name a path" in said


def matter_of(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(matter)
    return found


def test_an_exported_card_says_what_the_model_is(model: Path) -> None:
    card = (model / CARD).read_text()
    assert not re.search(r"\$\w|\$\{", card)
    for words in ("`memory_4`", "| seed | 1 |", "`0123456789abcdef`", "4.7 M", "It remembers."):
        assert words in card
    assert "No videos of it have been scored" in card and "model-index" not in matter_of(card)
    scored = write_card(CardData(**DATA, scores=[SCORE]))
    assert "| spin | 10 | psnr | 24.25 |" in scored
    [entry] = matter_of(scored)["model-index"]
    assert entry["name"] == "geomem-tiny-memory_4-seed1"
    [result] = entry["results"]
    assert result["metrics"] == [{"type": "psnr", "value": 24.25}]


def row_of(table: str, label: str) -> dict[str, str]:
    with (ROOT / f"results/{table}.csv").open(encoding="utf-8", newline="") as file:
        return next(row for row in csv.DictReader(file) if row["row"] == label)


def test_the_cards_of_tracked_weights_hold_the_tracked_numbers() -> None:
    cards = sorted((ROOT / "weights").glob("*/README.md"))
    assert [path.parent.name for path in cards] == ["uvit_tiny", "vggt_plain", "vggt_tiny"]
    matters = {path.parent.name: matter_of(path.read_text()) for path in cards}
    for path in cards:
        matter = matters[path.parent.name]
        wanted = {"license", "library_name", "tags", "datasets", "metrics", "model-index"}
        assert matter.keys() == wanted
        sections = re.findall(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
        assert sections == ["What it is", "Use", "Training data", "Evaluation", "Limits"]
        listed = {m["type"] for r in results(matter) for m in r["metrics"]}
        assert listed == set(matter["metrics"])
    base = row_of("base_table", "before fine-tuning")
    for part, result in zip(("window", "short"), results(matters["uvit_tiny"]), strict=True):
        for metric in result["metrics"]:
            assert metric["value"] == float(base[f"walk_{part}_{metric['type']}"])
    teacher = row_of("teacher_table", "teacher (vggt_plain)")
    [result] = results(matters["vggt_plain"])
    for metric in result["metrics"]:
        assert metric["value"] == float(teacher[metric["type"]])


def results(matter: dict[str, Any]) -> list[dict[str, Any]]:
    [entry] = matter["model-index"]
    found: list[dict[str, Any]] = entry["results"]
    return found
