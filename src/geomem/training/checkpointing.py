"""Gradient checkpointing: what is in a block is computed again in the backward pass, not kept."""

from diffusers import ModelMixin
from torch import nn


def checkpoint_blocks(model: nn.Module) -> None:
    """Let every network of a model that can keep no more of its blocks than their inputs."""
    for module in model.modules():
        if isinstance(module, ModelMixin) and module._supports_gradient_checkpointing:
            module.enable_gradient_checkpointing()
