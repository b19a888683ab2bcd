"""Methods: what the study compares, a folder each with one spec (docs/extend.md)."""
