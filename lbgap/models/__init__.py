"""Networks built by name; which there are, and where, says :mod:`lbgap.networks`."""

import importlib

import torch
from torch import nn

from lbgap.networks import NETWORKS


def build(name: str, shape: tuple[int, ...], n_classes: int, **options) -> nn.Module:
    """Build a network for inputs of ``shape`` (without the batch axis).

    Initialisation draws from torch's global generator: seed it first.

    Raises:
        ValueError: unknown network.
    """
    if name not in NETWORKS:
        raise ValueError(f"model is '{name}'; accepted are {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    builder = network.builder
    if isinstance(builder, str):
        module, function = builder.split(":")
        builder = getattr(importlib.import_module(module), function)
    return builder(shape, n_classes, **{**network.options, **options})


def memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last for convolutional networks, which are faster so; no meaning, only the order in memory."""
    convolutional = any(isinstance(m, nn.Conv2d) for m in model.modules())
    return torch.channels_last if convolutional else torch.contiguous_format


def count_parameters(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
