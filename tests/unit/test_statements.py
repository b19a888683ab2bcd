"""What the paper's text says of a table follows from the table's scores, whatever they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from conftest import ROOT, Edit
from geomem.config import load_config
from geomem.errors import InputError
from geomem.formats import read_json, write_json
from geomem.paper.collect import Scores
from geomem.paper.results import score_table
from geomem.paper.statements import (
    Difference,
    differences,
    enumeration,
    overall,
    table_statements,
)
from geomem.paper.tables import table_latex
from geomem.statistics import Interval
from paper_cases import column_of, psnr_of, settings, write_scores


def said(files: list[Path], **statement: Any) -> tuple[str, list[dict[str, Any]]]:
    columns = [column_of("psnr"), column_of("perceptual"), column_of("kernel_distance")]
    job = settings(columns=columns, statements={"it": statement})
    texts, records = table_statements(job, Scores(files))
    assert texts["verdict:it"] == overall(
        differences(job.table.statements["it"], job, Scores(files))
    )
    return texts["statement:it"], records["it"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_scores(tmp_path)


def give(files: list[Path], variant: str, psnr: np.ndarray) -> None:
    """Write another PSNR of each clip, the same of every seed."""
    for path in files:
        record = read_json(path)
        if record["variant"] == variant and record["family"] == "frames":
            record["per_clip"]["psnr"] = psnr.tolist()
            write_json(path, record)


def test_a_row_that_is_ahead_is_better_and_the_other_worse_by_as_much(files: list[Path]) -> None:
    text, [psnr, distance] = said(files, row="memory", against="base")
    assert text.startswith(r"better in PSNR on spin (") and r"\,dB [" in text
    assert "EfficientNet-Lite0" in text and "worse" not in text
    assert psnr["verdict"] == distance["verdict"] == "better"
    expected = np.mean([psnr_of("memory", s) - psnr_of("base", s) for s in (0, 1)])
    assert psnr["gain"]["value"] == pytest.approx(expected, abs=1e-4)
    assert distance["gain"]["value"] > 0  # a distance that is smaller

    turned, [lost, _] = said(files, row="base", against="memory")
    assert turned.startswith("worse in PSNR on spin (") and "$-$" not in turned
    assert text.removeprefix("better").startswith(turned.removeprefix("worse").split(" and ")[0])
    # a loss is told by its size, a gain that has a unit as well
    assert text.endswith(" on spin") and turned.endswith("])")
    assert lost["gain"]["value"] == pytest.approx(-psnr["gain"]["value"])


def test_an_interval_that_holds_zero_is_not_distinguishable(files: list[Path]) -> None:
    text, [one] = said(files, row="weak", against="base", metrics=["psnr"])
    assert one["gain"]["low"] < 0 < one["gain"]["high"]
    assert text.startswith("not distinguishable in PSNR on spin (")
    assert "[$-$" in text


def test_the_verdict_follows_the_numbers(files: list[Path]) -> None:
    for shift, verdict in ((3, "better"), (-3, "worse")):
        give(files, "weak", psnr_of("base", 0) + shift)
        text, [one] = said(files, row="weak", against="base", metrics=["psnr"])
        assert one["verdict"] == verdict and text.startswith(verdict)


def test_where_a_copy_is_exact_there_is_no_contest(files: list[Path]) -> None:
    give(files, "still", np.full(8, 100.0))
    text, [one] = said(files, row="memory", against="still", metrics=["psnr"])
    assert one["verdict"] == "no contest"
    assert text == "no contest in PSNR on spin, where a copy is exact"


def test_other_clips_are_not_compared_and_sets_are_no_pairs(files: list[Path]) -> None:
    job = settings(
        columns=[column_of("kernel_distance")],
        statements={"it": {"row": "memory", "against": "base"}},
    )
    assert table_statements(job, Scores(files)) == ({}, {})


def compared(low: float, high: float, *, exact: bool = False) -> Difference:
    gain = Interval(value=(low + high) / 2, low=low, high=high, clips=8, seeds=1)
    told = {"key": "k", "metric": "PSNR", "protocol": "spin", "unit": "", "precision": 2}
    return Difference(**told, gain=gain, exact=exact)


def test_all_columns_that_are_a_contest_decide() -> None:
    better, worse, open_, exact = (
        compared(1, 2),
        compared(-2, -1),
        compared(-1, 1),
        compared(-9, -8, exact=True),
    )
    assert overall([better, better, exact]) == "better"
    assert overall([worse, exact]) == "worse"
    assert overall([better, worse]) == overall([better, open_]) == "mixed"
    assert overall([open_, open_]) == "not distinguishable"
    assert overall([exact]) == "mixed"


def test_latex_knows_a_table_s_statements_and_shows_none(files: list[Path]) -> None:
    job = settings(statements={"it": {"row": "memory", "against": "base"}})
    table, _ = score_table("memory", job, Scores(files))
    texts, _ = table_statements(job, Scores(files))
    before, after = (table_latex(made) for made in (table, replace(table, statements=texts)))
    assert after.endswith(before.split("\n", 1)[1])
    assert rf"\expandafter\gdef\csname statement:it\endcsname{{{texts['statement:it']}}}" in after


def test_names_are_listed_as_in_a_sentence() -> None:
    assert enumeration(["a"]) == "a"
    assert enumeration(["a", "b", "c"]) == "a, b and c"


def test_a_statement_about_another_row_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"statements\.it: no row is of nobody"):
        settings(statements={"it": {"row": "memory", "against": "nobody"}})


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_every_statement_is_about_something_that_its_table_shows(scale: str) -> None:
    for name, table in load_config(ROOT, scale=scale).tables.items():
        for said, given in table.statements.items():
            columns = [
                column
                for column in table.columns
                if column.metric in (given.metrics or {column.metric})
                and column.protocol in (given.protocols or {column.protocol})
            ]
            assert columns or "miniworld" in given.protocols, (name, said)


def test_two_tables_may_not_say_the_same_name(edit: Edit) -> None:
    pair = {"row": "memory_4", "against": "memory_empty"}
    root = edit("config/experiments.yaml", "tables.ablation_table2.statements.base_and_still", pair)
    with pytest.raises(InputError, match=r"statements\.base_and_still is in two tables"):
        load_config(root)


def test_statements_of_variants_that_a_scale_leaves_out_are_gone(edit: Edit) -> None:
    smoke = "config/scales/smoke.yaml"
    left_out = yaml.safe_load((ROOT / smoke).read_text(encoding="utf-8"))["leave_out"]
    root = edit(smoke, "leave_out", [*left_out, "memory_4_frozen"])
    before, after = (
        load_config(of, scale="smoke").tables["ablation_table2_kinds"].statements
        for of in (ROOT, root)
    )
    assert before.keys() - after.keys() == {"frozen_backbone"}


def test_protocols_that_a_scale_leaves_out_take_their_columns_from_statements(
    files: list[Path],
) -> None:
    job = settings(
        columns=[column_of("psnr")],
        statements={
            "gone": {"row": "memory", "against": "base", "protocols": ["orbit"]},
            "left": {"row": "memory", "against": "base", "metrics": ["psnr", "ssim"]},
        },
    )
    texts, records = table_statements(job, Scores(files))
    assert set(records) == {"left"} and set(texts) == {"statement:left", "verdict:left"}
