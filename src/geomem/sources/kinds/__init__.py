"""The sources; each module registers one (docs/extend.md)."""
