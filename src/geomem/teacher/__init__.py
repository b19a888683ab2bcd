"""Stage: the frozen teacher, made or fetched, and measured."""
