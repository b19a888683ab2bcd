"""What the pages for people say: their commands, options, paths and messages are true."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from clones import jobs_in, run
from conftest import ROOT
from doc_commands import (
    PAGES,
    Command,
    commands_of,
    fault_of,
    fault_of_benchmark,
    spans_of,
    split_line,
)

COMMANDS = [command for page in PAGES for command in commands_of(page)]

# Commands that are run as they are, in a clone with the tracked results.
AS_IS = re.compile(
    r"geomem (check( --main-job)?|doctor|doctor --scale small|list \w+|verify --main-job)"
    r"|make help|git status .*|cp config/.*"
    r"|snakemake (-n\b.*|--unlock|results/ablation_table2\.tex|--report .*)"
)
# Those that take long or need more than is here, and what is run in their place; of commands that
# have a parser the words were parsed before.
IN_THEIR_PLACE = {
    r"snakemake .*--executor .*": None,
    r"snakemake( .*)?": "snakemake -n",
    r"make (?!help).*": "make -n",
    r"dvc repro( -f)?": "dvc repro --dry",
    r"mlflow ui .*": "mlflow ui --help",
    r"geomem (check|doctor|plan|site|study|export|times|track|verify|compare)\b.*": "",
    r"python -m geomem\..*": "",
    r"python benchmarks/.*": "",
    r"pytest -m gpu": "",
}
# Those that cannot be run here, and why.
NOT_HERE = {
    r"\. \.venv/bin/activate": "changes the shell that types it",
    r"git clone REPOSITORY geomem": "the address is the reader's",
    r"cd (geomem|'\$KINETICS')": "the folder is the reader's",
    r"(for part in|do find|sort|done).*": "over videos that the reader has",
    r"python -c 'from nuscenes\..*": "the reader's nuScenes and its package",
    r"python src/process\.py .*": "a program of MIND",
    r"rm -rf results/.*": "what the other commands read",
    r"mv results/tiny/calibration\.json .*": "of a calibration that takes minutes",
    r"tmux": "a terminal that stays",
    r"(squeue|sacct|sinfo|scancel|ssh) .*": "asks a cluster",
    r"tail -f logs/.*": "of a job that runs",
    r"apt-get install .*": "changes the machine",
    r"pip install .*": "changes the environment",
    r"(npm|npx) .*": "tools of the browser's scripts, from their registry",
    r"nvidia-smi.*": "needs a GPU",
    r"df -h .*": "is the machine's own",
    r"snakemake --executor .*": "another executor's plugin is not installed",
}
OTHERS_PARSER = re.compile(r"snakemake --executor .*")  # that of a plugin
# Counts of jobs that pages tell, by the end of the dry run that has them.
COUNTS = {
    " -n --profile slurm --config scale=paper -- all": (
        "docs/cluster.md",
        r"`paper` is ([\d,]+) jobs",
    ),
    " -n --config scale=smoke": ("README.md", r"nothing \| ([\d,]+) jobs"),
    " -n --config scale=small": ("docs/scales.md", r"485, ([\d,]+)"),
    " -n --config scale=small only=main": ("docs/scales.md", r"([\d,]+), 2,607"),
}
# Paths that are named before they are there, and who makes them.
MADE = {
    "benchmarks/calibration.json": "geomem plan --calibrate",
    "benchmarks/jobs": "geomem.launch",
    "config/cluster.local.yaml": "the reader",
    "weights/downloads.json": "geomem download",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_those_that_the_programs_know(page: Path) -> None:
    told = {
        command.text: fault
        for command in commands_of(page)
        if not OTHERS_PARSER.match(command.text) and (fault := fault_of(command))
    }
    assert told == {}


@pytest.mark.long  # they import torch
def test_the_usage_that_benchmarks_tell_is_theirs() -> None:
    used = {c.words for c in COMMANDS if c.text.startswith("python benchmarks/")}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        usage = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines = [line for line in usage.splitlines() if line.startswith("    python ")]
        assert lines, f"{path.name} does not tell how it is called"
        used |= {words for line in lines for words in split_line(line)}
    told = {words: fault for words in used if (fault := fault_of_benchmark(words))}
    assert told == {}


def test_a_wrong_command_is_found() -> None:
    wrong = (
        "geomem doktor",
        "geomem plan --scales tiny",
        "geomem list method",
        "geomem plan --scale huge",
        "geomem export mind out --variant memory_4 --protocol none",
        "python -m geomem.clips makes",
        "python benchmarks/render.py --no-such",
        "make tests",
        "snakemake --quiet rules results/main_table.tex",
        "snakemake --config scale=huge",
        "snakemake -n --config scale=tiny all",
        "snakemake --profile cluster",
        "dvc reproduce",
        "pytest -m gpus",
        "pip install -e '.[none]'",
        "pip install geomem",
    )
    passed = [line for line in wrong if not fault_of(Command("", tuple(*split_line(line)), True))]
    assert passed == []


def class_of(command: Command) -> str | None:
    """Return what is run for a command: a line, or nothing; None if no class has it."""
    text = command.text
    if any(re.fullmatch(pattern, text) for pattern in NOT_HERE):
        return ""
    if AS_IS.fullmatch(text):
        return text
    for pattern, instead in IN_THEIR_PLACE.items():
        if re.fullmatch(pattern, text):
            if instead in ("snakemake -n", "make -n"):
                return f"{instead}{text.removeprefix(instead.split()[0])}"
            return instead
    return None


def test_every_command_in_a_block_has_a_class() -> None:
    unknown = {(c.page, c.text) for c in COMMANDS if c.fenced and class_of(c) is None}
    assert unknown == set()


def test_paths_and_links_of_the_pages_are_there() -> None:
    tops = "benchmarks|config|docs|paper|profiles|slurm|src|tests|weights|workflow"
    missing = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = [s for s in spans_of(text) if re.fullmatch(rf"({tops})/[\w./-]+", s)]
        for name in named:
            if not (ROOT / name).exists() and not name.startswith(tuple(MADE)):
                missing.add((page.name, name))
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            if not (page.parent / link).exists():
                missing.add((page.name, link))
    assert missing == set()


@cache
def said_by_the_project() -> str:
    """All strings of the project, a line each, what is filled in left out."""
    found = [text for path in (ROOT / "src").rglob("*.py") for text in strings_of(path)]
    found += (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    for path in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]:
        joined = re.sub(r"\"\s*\n\s*f?\"", "", path.read_text(encoding="utf-8"))
        found += re.sub(r"\{[^{}]*\}", "\0", joined).splitlines()
    return "\n".join(found)


def strings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
            yield " ".join("".join(map(str, parts)).split())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield " ".join(node.value.split())


def said_by(package: str, messages: list[str]) -> str:
    """All strings of those modules of a package that seem to have one of the messages."""
    spec = find_spec(package)
    assert spec and spec.origin, f"{package} is not installed"
    begins = [part[:12] for message in messages for part in message.split("...") if part]
    files = [
        path
        for path in Path(spec.origin).parent.rglob("*.py")
        if any(begin in path.read_text(encoding="utf-8") for begin in begins)
    ]
    return "\n".join(text for path in files for text in strings_of(path))


def is_said(message: str, said: str) -> bool:
    """Whether one string has the constant parts of a message, in their order."""
    parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
    assert parts, message
    return re.search(r"[^\n]*".join(parts), said) is not None


MESSAGES = ROOT / "docs/troubleshooting.md"


def messages_of(text: str) -> dict[str, list[str]]:
    """Return the messages in a page's tables, by the heading they stand below."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        rows = re.findall(r"^\| (`.*?) \| ", body, flags=re.MULTILINE)
        found[heading] = [message for row in rows for message in row.split("`")[1::2]]
    return found


def test_every_message_of_the_page_is_said_by_someone() -> None:
    groups = messages_of(MESSAGES.read_text(encoding="utf-8"))
    assert sum(map(len, groups.values())) > 40
    unknown = []
    for heading, messages in groups.items():
        package = re.search(r"\(`(\w+)`\)$", heading)
        said = said_by(package[1], messages) if package else said_by_the_project()
        unknown += [message for message in messages if not is_said(message, said)]
    assert unknown == []


def test_a_message_that_nobody_says_is_found() -> None:
    said = said_by_the_project()
    assert is_said("... is missing; run the workflow to make it", said)
    assert not is_said("... is missing; run the workflow to mend it", said)
    assert not is_said("... run the workflow to make it ... is missing", said)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the tracked results, and what is not committed yet."""
    target = tmp_path_factory.mktemp("docs") / "geomem"
    run(ROOT, "git", "clone", "-q", str(ROOT), str(target))
    changed = run(ROOT, "git", "ls-files", "-mo", "--exclude-standard").stdout.splitlines()
    for name in (name for name in changed if (ROOT / name).is_file()):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def lines_to_run() -> list[str]:
    """Return what is run, each once; dry runs of files at the default scale are one.

    Options that change no plan are left out, so that no plan is made twice.
    """
    lines = {line for command in COMMANDS if (line := class_of(command))}
    lines = {
        re.sub(r" --quiet rules| --resources devices=1|( --)? all$", "", line) for line in lines
    }
    of_files = {line for line in lines if re.fullmatch(r"snakemake -n (-- )?\S+/\S+", line)}
    together = " ".join(["snakemake -n --", *sorted(line.split()[-1] for line in of_files)])
    return sorted(lines - of_files | {together})


@pytest.mark.long
@pytest.mark.parametrize("line", lines_to_run())
def test_the_command_does_what_the_page_says(clone: Path, line: str) -> None:
    words = next(split_line(line))
    done = run(clone, *words)
    assert "Traceback" not in done.stderr
    for end, (page, pattern) in COUNTS.items():
        if line.endswith(end):
            found = re.search(pattern, (ROOT / page).read_text(encoding="utf-8"))
            jobs = jobs_in(done.stdout + done.stderr)
            assert found and sum(jobs.values()) + 1 == int(found[1].replace(",", ""))


@pytest.mark.long
def test_what_a_newcomer_sees_fits_the_terminal(clone: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(clone.parent)}
    listed = subprocess.run(
        ["make", "help"], cwd=clone, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    helped = run(clone, "env", "COLUMNS=80", "geomem", "--help").stdout.splitlines()
    assert len(listed) > 10 and len(helped) > 40
    assert [line for line in helped if len(line) > 80] == []
    assert [line for line in listed if len(line) > 100] == []
