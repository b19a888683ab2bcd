"""Compile the paper; equal sources give equal bytes."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from geomem.errors import InputError
from geomem.formats import atomic_path

PACKAGES = "latexmk texlive-latex-base texlive-latex-recommended texlive-fonts-recommended"
# Without a date of its own the file would carry the time of the run.
FIXED_TIME = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
UNRESOLVED = re.compile(r"LaTeX Warning: ((?:Reference|Citation) `[^']*')")


def compile_paper(source: Path, output: Path, *, results: Path) -> None:
    """Compile `source` with latexmk and put the PDF at `output` when it is complete.

    Args:
        source: The document; it reads tables and figures below its macro `\\results`.
        output: PDF to write.
        results: What that macro stands for, `results/<scale>`.

    Raises:
        InputError: If LaTeX is not installed, or naming the first error of its log, or a reference
            or citation that leads nowhere.
    """
    if not (shutil.which("latexmk") and shutil.which("pdflatex")):
        raise InputError(f"no LaTeX here: apt-get install {PACKAGES}")
    if not source.is_file():
        raise InputError(f"{source} is missing")
    place = os.path.relpath(results, source.parent)
    before = rf"-usepretex=\newcommand{{\results}}{{{Path(place).as_posix()}}}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["latexmk", "-pdf", "-norc", "-interaction=nonstopmode", "-halt-on-error"]
        finished = subprocess.run(
            [*command, "-file-line-error", f"-outdir={folder}", before, source.name],
            cwd=source.parent,
            env={**os.environ, **FIXED_TIME, "max_print_line": "1000"},
            capture_output=True,
            text=True,
            errors="replace",
        )
        log = Path(folder) / f"{source.stem}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        fault = first_fault(text)
        if finished.returncode or fault:
            raise InputError(f"{source}: {fault or _last_line(finished.stdout + finished.stderr)}")
        with atomic_path(output) as temporary:
            shutil.copyfile(log.with_suffix(".pdf"), temporary)


def first_fault(log: str) -> str:
    """Return the first error of a LaTeX log, else its first unresolved reference, else nothing."""
    for line in log.splitlines():
        if re.match(r"\S+:\d+: |! ", line):
            return line.removeprefix("! ")
    unresolved = UNRESOLVED.search(log)
    return f"{unresolved[1]} is undefined" if unresolved else ""


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "latexmk failed without a word"
