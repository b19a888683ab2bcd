"""The families of metrics; each module registers one (docs/extend.md)."""
