"""The table model: ranks, escapes, CSV that keeps every digit, LaTeX that compiles."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from geomem.paper.tables import (
    Cell,
    Column,
    Latex,
    Row,
    Table,
    column_ranks,
    escape_latex,
    format_number,
    table_csv,
    table_latex,
)

PSNR = Column(key="psnr", label="PSNR", direction="up", precision=1, unit="dB", group="16 frames")
FVD = Column(key="fvd", label="FVD", direction="down", precision=0)
SHIFT = Column(key="shift", label=Latex(r"$\Delta$"), precision=2)


def _table(values: list[float], column: Column = PSNR, *, bound: float | None = None) -> Table:
    rows = [Row(label=f"row {i}", cells={column.key: Cell(value=v)}) for i, v in enumerate(values)]
    if bound is not None:
        rows.append(Row(label="bound", cells={column.key: Cell(value=bound)}, bound=True))
    return Table(label="t", caption="c", columns=[column], rows=rows)


def _full_table() -> Table:
    rows = [
        Row(
            label="without",
            cells={
                "psnr": Cell(value=18.04, low=17.5, high=18.6),
                "fvd": Cell(value=300.4),
                "shift": Cell(value=-0.5, low=-0.9, high=-0.1),
            },
        ),
        Row(
            label="4_frames & 50%",
            cells={
                "psnr": Cell(value=19.21, low=18.9, high=19.6, dagger=True),
                "fvd": Cell(value=1 / 3),
            },
            rule_above=True,
        ),
        Row(label="[truth]", cells={"psnr": Cell(value=40.0)}, bound=True, rule_above=True),
    ]
    return Table(
        label="memory",
        caption="Memory, 95% intervals.",
        columns=[PSNR, FVD, SHIFT],
        rows=rows,
        notes=["Dagger: p < 0.05.", Latex(r"$n = 100$ clips.")],
    )


def _body_lines(latex: str) -> list[str]:
    return [line for line in latex.splitlines() if " & " in line]


def test_ranks_follow_the_direction() -> None:
    assert column_ranks(_table([1.0, 3.0, 2.0, 0.5]), PSNR) == [None, 0, 1, None]
    assert column_ranks(_table([10.0, 30.0, 20.0], FVD), FVD) == [0, None, 1]
    assert column_ranks(_table([1.0, 2.0], SHIFT), SHIFT) == [None, None]


def test_numbers_that_print_alike_share_a_rank() -> None:
    assert column_ranks(_table([1.04, 2.06, 2.09, 1.01, 0.3]), PSNR) == [1, 0, 0, 1, None]
    # 2.04 and 2.06 differ by less than two values that print alike, and still print apart.
    assert column_ranks(_table([2.04, 2.06]), PSNR) == [1, 0]


def test_bounds_missing_cells_and_lone_rows_have_no_rank() -> None:
    assert column_ranks(_table([1.0, 2.0], bound=9.0), PSNR) == [1, 0, None]
    assert column_ranks(_table([1.0, float("nan")]), PSNR) == [None, None]
    assert column_ranks(_table([1.0, float("nan"), 0.0]), PSNR) == [0, None, 1]
    assert column_ranks(_table([1.0], bound=9.0), PSNR) == [None, None]


def test_numbers_are_fixed_point_without_negative_zero() -> None:
    assert format_number(2.345678, 2) == "2.35"
    assert format_number(-0.004, 2) == "0.00"
    assert format_number(-0.006, 2) == "-0.01"
    assert format_number(1234.5678, 0) == "1235"
    assert format_number(float("inf"), 1) == "--"


def test_text_is_escaped_and_latex_is_not() -> None:
    assert escape_latex(r"a_b & 5% of $x #1 {c} ~ ^ \ ") == (
        r"a\_b \& 5\% of \$x \#1 \{c\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
    )
    assert escape_latex(Latex(r"$\Delta_x$")) == r"$\Delta_x$"
    assert escape_latex("[1] < *2*") == "{[}1] $<$ {*}2{*}"
    with pytest.raises(ValueError, match="not ASCII"):
        escape_latex("\u00e9")


def test_csv_keeps_every_digit() -> None:
    first, second, bound = csv.DictReader(io.StringIO(table_csv(_full_table())))
    assert [r["row"] for r in (first, second, bound)] == ["without", "4_frames & 50%", "[truth]"]
    assert float(first["fvd"]) == 300.4 and float(second["fvd"]) == 1 / 3
    numbers = [float(second[key]) for key in ("psnr", "psnr_low", "psnr_high")]
    assert numbers == [19.21, 18.9, 19.6]
    assert (first["psnr_significant"], second["psnr_significant"]) == ("False", "True")
    assert (first["bound"], bound["bound"]) == ("False", "True")
    assert bound["fvd"] == first["fvd_low"] == ""


def test_latex_marks_best_second_bound_and_dagger() -> None:
    lines = _body_lines(table_latex(_full_table()))
    assert lines[0] == r" & \multicolumn{1}{c}{16 frames} & \multicolumn{2}{c}{} \\"
    heading = r"Method & PSNR [dB]\,$\uparrow$ & FVD\,$\downarrow$ & $\Delta$ \\"
    assert lines[1] == heading
    assert lines[2] == r"without & \underline{18.0} & \underline{300} & $-$0.50 \\*[-2pt]"
    assert lines[3].startswith(
        r" & {\scriptsize [17.5, 18.6]} &  & {\scriptsize [$-$0.90, $-$0.10]}"
    )
    assert lines[4] == (
        r"4\_frames \& 50\% & \textbf{19.2}\rlap{$^{\dagger}$} & \textbf{0} & -- \\*[-2pt]"
    )
    assert lines[-1] == r"\textit{{[}truth]} & 40.0 & -- & -- \\"


def test_latex_is_deterministic_and_its_environments_close() -> None:
    latex = table_latex(_full_table())
    assert latex == table_latex(_full_table()) and latex.isascii()
    opened, closed = (re.findall(rf"\\{word}{{([a-z*]+)}}", latex) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed) == ["minipage", "table", "tabular"]
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert r"\label{tab:memory}" in latex and "95\\% intervals" in latex
    assert "p $<$ 0.05.\\\\\n$n = 100$ clips.\n" in latex


def test_cells_of_no_column_and_repeated_keys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['ssim'\]"):
        Table(
            label="t",
            caption="c",
            columns=[PSNR],
            rows=[Row(label="r", cells={"ssim": Cell(value=1)})],
        )
    with pytest.raises(ValueError, match="repeat"):
        Table(label="t", caption="c", columns=[PSNR, PSNR], rows=[])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles_within_the_text_width(tmp_path: Path) -> None:
    columns = [Column(key=f"m{i}", label=f"Metric {i}", group="all") for i in range(14)]
    cells = {column.key: Cell(value=-12.345, low=-13.0, high=-12.0) for column in columns}
    wide = Table(
        label="w", caption='<"wide"> ~^|', columns=columns, rows=[Row(label="*a", cells=cells)]
    )
    (tmp_path / "wide.tex").write_text(table_latex(wide))
    (tmp_path / "full.tex").write_text(table_latex(_full_table()))
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}"
        "\\begin{document}\\input{wide}\\input{full}\\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_groups_that_are_too_many_for_a_line_stand_below_each_other() -> None:
    columns = [
        Column(key=f"{group}{metric}", label=f"m{metric}", group=group)
        for group in "abc"
        for metric in range(3)
    ]
    cells = {column.key: Cell(value=index) for index, column in enumerate(columns)}
    table = Table(label="t", caption="c", columns=columns, rows=[Row(label="one", cells=cells)])
    first, second = table_latex(table).split(r"\medskip")
    assert first.count(r"\multicolumn{3}") == 2 and second.count(r"\multicolumn{3}") == 1
    assert "one & 0.00 & 1.00 & 2.00 & 3.00 & 4.00 & 5.00" in first
    assert "one & 6.00 & 7.00 & 8.00" in second
    few = replace(table, columns=columns[:6], rows=[Row(label="one", cells={})])
    assert r"\medskip" not in table_latex(few)
