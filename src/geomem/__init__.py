"""Geometry as memory for long video generation."""
