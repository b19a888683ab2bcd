"""Registries, and settings whose model a registry knows."""
