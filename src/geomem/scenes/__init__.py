"""Deterministic ray-caster of procedural worlds with exact depth and cameras."""
