"""What the registries and the configuration hold: `geomem list`."""

import argparse
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from geomem.config import Config
from geomem.jobs import job_config, job_parser
from geomem.memory.registry import KINDS
from geomem.methods.registry import METHODS
from geomem.metrics.registry import FAMILIES
from geomem.settings.training import Variant
from geomem.sources.registry import SOURCES

WIDTH = 80
Lines = Iterator[tuple[str, str]]


def methods(config: Config) -> Lines:
    """Yield every method: name, and what it is."""
    for method in METHODS:
        reads = f"; reads a memory of {' or '.join(sorted(method.reads))}" if method.reads else ""
        yield method.name, method.summary + reads


def memories(config: Config) -> Lines:
    """Yield every kind of memory."""
    for kind in KINDS:
        yield kind.name, f"{kind.summary} (form: {kind.form})"


def metrics(config: Config) -> Lines:
    """Yield every metric, by family."""
    for family in FAMILIES:
        yield f"[{family.name}]", family.summary
        settings = config.family_settings(family.name)
        missing = family.left_out(settings)
        for metric in family.metrics:
            label = metric.label or "headed by the network that is used"
            unit = f" [{metric.unit}]" if metric.unit else ""
            better = "describes" if metric.better == "neither" else f"{metric.better} is better"
            told = f"; left out here: {missing[metric.name]}" if metric.name in missing else ""
            yield metric.name, f"{label}{unit}, of a {metric.level}, {better}{told}"


def sources(config: Config) -> Lines:
    """Yield every source of clips, with what a split may ask it for."""
    for source in SOURCES:
        options = ", ".join(source.Options.model_fields) or "none"
        gives = ", ".join(sorted(source.conditions)) or "frames alone"
        yield source.name, f"{source.summary}. Gives {gives}. Options of a split: {options}."


def datasets(config: Config) -> Lines:
    """Yield every data set of the configuration."""
    for name, settings in config.datasets.items():
        source = SOURCES[settings.source]
        yield name, f"{source.summary}; {source.terms}"


def variants(config: Config) -> Lines:
    """Yield every variant at this scale."""
    for name, variant in config.variants.items():
        yield name, _told(config, name, variant)


def _told(config: Config, name: str, variant: Variant) -> str:
    if variant.best_of:
        return f"the best of {', '.join(config.candidates_of(name))}"
    if variant.checkpoint:
        return f"{variant.method}, weights of {variant.checkpoint.weights}"
    memory = variant.memory
    told = f", {memory.kind} memory of {memory.frames} frames" if memory else ""
    if variant.checkpoint_of:
        return f"weights of {variant.checkpoint_of}{told}"
    start = f", from {variant.initial}" if variant.initial else ""
    recipe = f", recipe {variant.recipe} on plan {variant.plan}" if variant.trained else ""
    aligned = f", aligned by {variant.alignment.objective}" if variant.alignment else ""
    return f"{variant.method}{start}{recipe}{told}{aligned}"


def tables(config: Config) -> Lines:
    """Yield every table."""
    for name, table in config.tables.items():
        main = " (main job)" if name in config.main else ""
        yield name, f"{table.caption} {len(table.rows)} rows, {len(table.columns)} columns{main}"


LISTS: dict[str, Callable[[Config], Lines]] = {
    listed.__name__: listed
    for listed in (methods, memories, metrics, sources, datasets, variants, tables)
}


def show(args: argparse.Namespace) -> None:
    """Print what can be named in the configuration, with a line on each."""
    lines = list(LISTS[args.what](job_config(args)))
    column = min(28, max(len(name) for name, _ in lines)) + 2
    for name, told in lines:
        print(
            textwrap.fill(
                told,
                WIDTH,
                initial_indent=f"{name:<{column}}",
                subsequent_indent=" " * column,
                break_on_hyphens=False,
            )
        )


def add_commands(commands: Any) -> None:
    """Add `list` to the `geomem` command."""
    command = job_parser(commands.add_parser("list", help=show.__doc__))
    command.add_argument("what", choices=list(LISTS))
    command.set_defaults(command=show)
