"""The U-ViT of DFoT, its memory branches, and the loader of its public weights."""
