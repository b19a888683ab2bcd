"""Raised when a change makes the stage's outputs different."""

VERSION = 8
