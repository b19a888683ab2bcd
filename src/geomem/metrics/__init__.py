"""Metrics: what is measured on generated videos, by families that share a network and a file."""
