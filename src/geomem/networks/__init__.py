"""Networks: video diffusion backbones, the memory branch, projectors, VGGT."""
