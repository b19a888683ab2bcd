"""`snakemake --report`, and what the workflow catalog reads."""

import base64
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from clones import copy_project, run
from conftest import ROOT
from geomem.config import load_config

RULES = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))


def reported() -> list[str]:
    """What stands between the brackets of every `report(...)` of the rules."""
    found = []
    for start in re.finditer(r"=report\(", RULES):
        depth, end = 1, start.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(RULES[end], 0)
            end += 1
        found.append(RULES[start.end() : end - 1])
    return found


def test_everything_in_the_report_has_a_caption_a_category_and_one_label() -> None:
    captions = set()
    for told in reported():
        [caption] = re.findall(r'caption="\.\./report/(\w+)\.rst"', told)
        [category] = re.findall(r'[^b]category="(\w+)"', told)
        assert category in ("Tables", "Figures", "Videos", "Paper")
        # of two labels the report makes a switch where their values pair up, and then fails to open
        labels = re.findall(r'labels=(\w+_labels|\{"\w+": "[^"]+"\}),', told)
        assert len(labels) == 1, told
        captions.add(caption)
    there = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    assert captions | {"workflow"} == there
    tables = re.findall(r'LAYOUT\.table\("[^"]+", "csv"\)', RULES)
    assert len(tables) == sum("LAYOUT.table(" in told for told in reported()) > 7
    assert any("LAYOUT.video(" in told for told in reported())


def test_the_report_of_the_tracked_results_is_one_file(tmp_path: Path) -> None:
    project = copy_project(tmp_path, scale="tiny")
    tracked = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, project / name)
    run(project, "snakemake", "--config", "only=main", "--report", "report.html")
    report = (project / "report.html").read_text()
    loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\" >]+)", report)
    assert not loaded, "it loads what is not in it"
    study = load_config(project, main_job=True)
    for name, table in study.tables.items():
        made = project / f"results/tiny/tables/{name}.csv"
        assert base64.b64encode(made.read_bytes()).decode() in report
        assert f"{name}: {table.caption}" in report
        assert f"tables.{name}</tt>" in report  # of its caption, which has the name filled in
    for name in study.figures:
        made = project / f"results/tiny/figures/{name}.png"
        assert base64.b64encode(made.read_bytes()).decode() in report


def test_what_the_workflow_catalog_reads() -> None:
    catalog = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalog.keys() == {"usage"}
    usage = catalog["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment"}
    deployed = usage["software-stack-deployment"]
    assert deployed["report"] and deployed["conda"] == (ROOT / "environment.yml").is_file()
    assert "conda:\n" in RULES
    told = (ROOT / "config/README.md").read_text()
    for path in (ROOT / "config").glob("*.*"):
        assert path.name == "README.md" or f"`{path.name}`" in told, path
    for path in (ROOT / "config/scales").iterdir():
        assert f"| `{path.stem}` |" in told
    (schema,) = re.findall(r"`(workflow/schemas/[^`]+)`", told)
    assert (ROOT / schema).is_file()
