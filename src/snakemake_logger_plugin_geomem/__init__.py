"""What Snakemake finds as `logger: geomem` (profiles/default): it looks for this module's name."""

from geomem.console import LogHandler

__all__ = ["LogHandler"]
