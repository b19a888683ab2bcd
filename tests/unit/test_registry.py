"""Registries, the fields whose models they know, and what `geomem list` prints of them."""

from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from conftest import ROOT
from geomem.commands.listing import LISTS
from geomem.commands.main import main
from geomem.config import load_config
from geomem.memory.registry import KINDS
from geomem.methods.registry import METHODS
from geomem.metrics.registry import FAMILIES, metrics
from geomem.registry.core import Registry
from geomem.registry.fields import ByKey, ByName, Named
from geomem.registry.strict import Strict
from geomem.sources.registry import SOURCES


class Size(Strict):
    kind: str = ""
    size: int = 1


class Thing:
    def __init__(self, name: str) -> None:
        self.name, self.summary = name, f"a {name}"


@pytest.fixture
def things() -> Registry[Thing]:
    registry = Registry[Thing]("thing", "geomem.probes")  # a package that registers nothing
    for name in ("table", "chair"):
        registry.add(Thing(name))
    return registry


def test_names_are_told_and_cannot_be_taken_twice(things: Registry[Thing]) -> None:
    assert things.names() == [thing.name for thing in things] == ["chair", "table"]
    assert "table" in things and "lamp" not in things
    with pytest.raises(ValueError, match=r"thing 'lamp' is none of \['chair', 'table'\]"):
        things["lamp"]
    with pytest.raises(ValueError, match="thing 'chair' is there already"):
        things.add(Thing("chair"))


def test_every_fault_below_a_name_is_placed_there(things: Registry[Thing]) -> None:
    class Room(Strict):
        sizes: Annotated[dict[str, Any], ByName(things, lambda thing: Size)]

    assert Room.model_validate({"sizes": {"chair": {"size": 2}}}).sizes == {"chair": Size(size=2)}
    with pytest.raises(ValidationError) as caught:
        Room.model_validate({"sizes": {"chair": {"size": "x", "legs": 4}, "lamp": {}}})
    places = {fault["loc"]: fault["msg"] for fault in caught.value.errors()}
    assert places.keys() == {
        ("sizes", "chair", "size"),
        ("sizes", "chair", "legs"),
        ("sizes", "lamp"),
    }
    assert places["sizes", "lamp"] == "the thing is none of ['chair', 'table']"


def test_a_value_is_checked_by_the_model_that_it_names(things: Registry[Thing]) -> None:
    class Room(Strict):
        first: Annotated[Any, ByKey(things, lambda thing: Size, "kind")]
        other: Annotated[str, Named("thing", things.names)] = "table"

    made = Room.model_validate({"first": {"kind": "chair", "size": 3}})
    assert made.recorded() == {"first": {"kind": "chair", "size": 3}, "other": "table"}
    for content, place in (
        ({"first": {"kind": "lamp"}}, ("first", "kind")),
        ({"first": {"size": 3}}, ("first",)),
        ({"first": {"kind": "chair"}, "other": "lamp"}, ("other",)),
    ):
        with pytest.raises(ValidationError) as caught:
            Room.model_validate(content)
        assert [fault["loc"] for fault in caught.value.errors()] == [place]
    schema = Room.model_json_schema()
    kinds = [choice["properties"]["kind"] for choice in schema["properties"]["first"]["oneOf"]]
    assert kinds == [{"const": "chair"}, {"const": "table"}]
    assert schema["properties"]["other"]["enum"] == ["chair", "table"]


def test_the_digest_leaves_out_what_changes_nothing() -> None:
    recipe = load_config(ROOT, scale="smoke").settings.recipes["base"]
    assert recipe.model_copy(update={"workers": 9, "states": 5}).digest == recipe.digest
    assert recipe.model_copy(update={"batch": 9}).digest != recipe.digest


def test_what_is_built_in_is_found() -> None:
    assert METHODS.names() == [
        "ar_diffusion",
        "dfot",
        "dfot_actions",
        "dfot_frames",
        "maskflow",
        "mean_colour",
        "recurrent",
        "repeat",
        "splat",
        "vq",
        "worldmem",
    ]
    assert KINDS.names() == ["bank", "explicit", "implicit", "raw"]
    assert FAMILIES.names() == [
        "frames",
        "jedi",
        "matches",
        "perceptual",
        "places",
        "regimes",
        "reprojection",
        "sets",
        "vbench",
        "vggt_score",
        "video_sets",
        "videomae",
    ]
    assert SOURCES.names() == [
        "kinetics600",
        "minecraft",
        "miniworld",
        "nuscenes",
        "realestate10k",
        "rooms",
        "rooms_moving",
        "rooms_ood",
        "rooms_plain",
        "rooms_without_cameras",
        "street",
        "vizdoom",
        "voxels",
    ]
    named = [metric.name for family in FAMILIES for metric in family.metrics]
    assert len(named) == len(set(named)) == len(metrics())


@pytest.mark.parametrize("what", LISTS)
def test_lists_fit_a_terminal_and_have_a_line_on_each(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["list", what, "--root", str(ROOT)])
    lines = capsys.readouterr().out.splitlines()
    assert lines and max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if not line.startswith(" ")]
    config = load_config(ROOT)
    expected = {
        "methods": METHODS.names(),
        "memories": KINDS.names(),
        "sources": SOURCES.names(),
        "metrics": [f"[{family.name}]" for family in FAMILIES] + list(metrics()),
        "datasets": list(config.datasets),
        "variants": list(config.variants),
        "tables": list(config.tables),
    }
    assert sorted(first) == sorted(expected[what])
