"""Gradient checkpointing: what is in a block is computed again in the backward pass, not kept."""

from typing import Any

from torch import nn


def checkpoint_blocks(model: nn.Module) -> None:
    """Let every network of a model that can keep no more of its blocks than their inputs."""
    for module in model.modules():
        network: Any = module
        if getattr(network, "_supports_gradient_checkpointing", False):
            network.enable_gradient_checkpointing()
