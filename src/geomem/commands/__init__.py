"""The `geomem` command."""
