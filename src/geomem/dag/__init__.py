"""Every job of a study: what it makes, of what, with which settings.

Said once: the rules take their inputs, options and parameters from here, and verification compares
every record on disk with it. Paths are relative to the project's root.
"""
