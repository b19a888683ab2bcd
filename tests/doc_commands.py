"""The shell commands that the project's pages show, and whether they can be as they are written."""

import importlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from conftest import ROOT
from geomem.config import load_config
from geomem.errors import InputError

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "weights").glob("*/README.md")),
    ROOT / "src/geomem/site/static/README.md",
]
# What stands for something in a command, and what is put there; any other <...> is a fault.
PLACEHOLDERS = {
    "<this repository>": "REPOSITORY",
    "<scale>": "tiny",
    "<variant>": "memory_4",
    "<video>": "spin_clips",
    "<table>": "main_table",
    "<folder>": "/big/disk",
    "<what you want>": "results/ablation_table2.tex",
    "<stage>": "clips",
    "--scale S": "--scale tiny",
    "scale=S": "scale=single",
    "SECONDS": "540",
    " N": " 4",
}
PROGRAMS = ("geomem", "make", "snakemake", "python", "dvc", "mlflow", "pytest", "pip")
FENCE = re.compile(r"^ *```(\w*)[^\n`]*\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
MESSAGE = re.compile(r"^\| `.*?` \| (?=.* \| .* \|$)", flags=re.MULTILINE)  # of three columns
SHELL = ("", "bash", "sh")  # what blocks of commands are labelled
SEPARATORS = {"&&", "||", ";", "|"}


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: The page, from the root of the project on.
        words: Program and arguments, without variables that are set before it.
        fenced: Whether it stands in a block to be typed, not in the text.
    """

    page: str
    words: tuple[str, ...]
    fenced: bool

    @property
    def text(self) -> str:
        """The command as one line."""
        return shlex.join(self.words)


def commands_of(page: Path) -> list[Command]:
    """Return the commands of a page: of its shell blocks, and of the code in its text."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    found = []
    for block in (block for label, block in FENCE.findall(text) if label in SHELL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [Command(name, words, True) for line in lines for words in split_line(line)]
    for span in spans_of(MESSAGE.sub("| ", text)):
        if span.split(" ")[0] in PROGRAMS and " " in span:
            found += [Command(name, words, False) for words in split_line(span)]
    return found


def spans_of(text: str) -> Iterator[str]:
    """Yield the code in the text of a page, paragraph by paragraph, each in one line."""
    for paragraph in re.split(r"\n\s*\n|\n(?=[|-])", FENCE.sub("", text)):
        for span in paragraph.split("`")[1::2]:
            yield " ".join(span.split())


def split_line(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the simple commands of a line; what is optional is taken, `a|b` is both, `...` none."""
    for mark, value in PLACEHOLDERS.items():
        line = re.sub(re.escape(mark) + r"(?![A-Za-z])", value, line)
    left = re.search(r"<[a-z ]+>", line)
    assert not left, f"{left and left[0]} in {line!r}: name it in PLACEHOLDERS"
    line = re.sub(r"(?<= )\[(?=-)|(?<=\w)\](?= |$)", "", line)
    choices = re.search(r"(?<= )\w+(\|\w+)+", line)
    if choices:
        for choice in choices[0].split("|"):
            yield from split_line(line.replace(choices[0], choice))
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        if ">" in words:
            words = words[: words.index(">")]
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        if words := [word for word in words if word != "..."]:
            yield tuple(words)
        words = []


def fault_of(command: Command) -> str | None:
    """Return what is wrong with a command, by the parser of its own program; None: nothing."""
    program, *words = command.words
    match program, words:
        case "geomem", _:
            return _by_help(_geomem, words) or _unnamed(words)
        case "python", ["-m", module, *rest] if module.startswith("geomem."):
            if module == "geomem.launch":  # has no options: it passes all on
                return None if len(rest) >= 2 else "expected LOG COMMAND"
            return _by_help(_stage(module), rest)
        case "python", [script, *rest] if script.startswith("benchmarks/"):
            if not (ROOT / script).is_file():
                return f"{script} is not there"
            text = (ROOT / script).read_text(encoding="utf-8")
            options = [word for word in rest if word.startswith("-")]
            return next((f"no option {word}" for word in options if f'"{word}"' not in text), None)
        case "make", _:
            return next((f"no target {word}" for word in words if word not in targets()), None)
        case "snakemake", _:
            return _of_snakemake(words)
        case "dvc", _:
            return _by_help(_dvc, words)
        case "pytest", ["-m", marker]:
            return None if marker in markers() else f"no marker {marker}"
        case "pip", ["install", "-e", target]:
            named = re.fullmatch(r"\.\[([\w,]+)\]", target)
            unknown = set(named[1].split(",")) - extras() if named else {target}
            return f"no extra {unknown}" if unknown else None
        case "pip", ["install", *packages]:
            # an index may have another package of this name
            return "not from an index" if any("geomem" in name for name in packages) else None
    return None


def fault_of_benchmark(words: tuple[str, ...]) -> str | None:
    """Return what is wrong with `python benchmarks/...`, by its own parser."""
    script = ROOT / words[1]
    return _by_help(lambda: runpy.run_path(str(script), run_name="__main__"), list(words[2:]))


def _geomem() -> None:
    importlib.import_module("geomem.commands.main").main()


def _unnamed(words: list[str]) -> str | None:
    """Say which scale, variant or protocol of a command is in no configuration."""
    given: dict[str, list[str]] = {}
    option = ""
    for word in words:
        if word.startswith("--"):
            option = word
        else:
            given.setdefault(option, []).append(word)
    if not given.keys() & {"--scale", "--variant", "--variants", "--protocol"}:
        return None
    try:
        config = load_config(ROOT, scale=given.get("--scale", [None])[0])
    except InputError as error:
        return str(error)
    known = {"--variant": config.variants, "--variants": config.variants}
    known["--protocol"] = config.settings.rollouts.protocols
    wrong = [(key, name) for key in known for name in given.get(key, []) if name not in known[key]]
    return f"{wrong} at scale {config.scale}" if wrong else None


def _dvc() -> None:
    from dvc.cli import DvcParserError
    from dvc.cli.parser import get_main_parser

    try:
        get_main_parser().parse_args(sys.argv[1:])
    except DvcParserError:  # why is in its log
        print("error: dvc does not know it")


def _stage(module: str) -> Callable[[], None]:
    return lambda: importlib.import_module(f"{module}.__main__").main()


def _by_help(main: Callable[[], object], words: list[str]) -> str | None:
    """Parse what is written with --help behind it, and look for its options in the help."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["program", *words, "--help"])
        patch.setenv("COLUMNS", "200")
        said = _said(main)
    if "error:" in said or not said.startswith("usage:"):
        return (said.splitlines() or ["no help"])[-1]
    options = [word.split("=")[0] for word in words if word.startswith("-")]
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", said))
    return next((f"no option {option}" for option in options if option not in known), None)


def _said(action: Callable[[], object]) -> str:
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output), suppress(SystemExit):
        action()
    return output.getvalue()


def _refused(parse: Callable[[], object]) -> str | None:
    said = _said(parse)
    return said.splitlines()[-1] if "error:" in said.lower() else None


def _of_snakemake(words: list[str]) -> str | None:
    from snakemake.cli import get_argument_parser

    parsed = []
    told = _refused(lambda: parsed.append(get_argument_parser().parse_args(words)))
    if told or not parsed:
        return told or f"refused: {words}"
    for setting in parsed[0].config or ():
        key, _, value = setting.partition("=")
        if key == "scale" and not (ROOT / f"config/scales/{value}.yaml").is_file():
            return f"no scale {value}"
        if key not in ("scale", "only"):
            return f"no --config {key}"
    profiles = parsed[0].profile or ()
    return next((f"no profile {name}" for name in profiles if not (ROOT / name).is_dir()), None)


@cache
def targets() -> frozenset[str]:
    """The targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE))


@cache
def extras() -> frozenset[str]:
    """The extras of the package."""
    return frozenset(_pyproject()["project"]["optional-dependencies"])


@cache
def markers() -> frozenset[str]:
    """The markers of tests."""
    found: Iterable[str] = _pyproject()["tool"]["pytest"]["ini_options"]["markers"]
    return frozenset(line.split(":")[0] for line in found)


@cache
def _pyproject() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
