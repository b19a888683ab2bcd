"""DFoT told actions instead of cameras."""
