"""AR-Diffusion: noise that never falls along time, frames that never see later ones."""
