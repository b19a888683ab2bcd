"""The kinds of memory; each module registers one (docs/extend.md)."""
