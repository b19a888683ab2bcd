"""DFoT: diffusion forcing on the U-ViT, with history guidance and memory branches."""
