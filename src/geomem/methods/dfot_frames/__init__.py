"""DFoT told nothing of its frames."""
