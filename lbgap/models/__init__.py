"""Networks by name. A name is ``<paper>.<network>`` because papers use one name for different layers."""

import torch
from torch import nn

from lbgap.models import hoffer, keskar

_BUILDERS = {**keskar.BUILDERS, **hoffer.BUILDERS}


def build(name: str, shape: tuple[int, ...], n_classes: int, **options) -> nn.Module:
    """Build a network for inputs of ``shape`` (without the batch axis).

    Initialisation draws from torch's global generator: seed it first.

    Raises:
        ValueError: unknown network.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model is '{name}'; accepted are {', '.join(names())}")
    return _BUILDERS[name](shape, n_classes, **options)


def names() -> list[str]:
    """Every network that :func:`build` knows."""
    return list(_BUILDERS)


def memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last for convolutional networks, which are faster so; no meaning, only the order in memory."""
    convolutional = any(isinstance(m, nn.Conv2d) for m in model.modules())
    return torch.channels_last if convolutional else torch.contiguous_format


def count_parameters(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
