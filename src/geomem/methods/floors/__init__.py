"""Floors: what needs no model."""
