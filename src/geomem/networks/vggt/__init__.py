"""VGGT, from its published description: loads the official weights."""
