"""F1, F2 and C1-C4 of Keskar et al. 2017, as the authors' released code builds them (network_zoo.py).

Order everywhere: layer with bias, batch norm, ReLU, then dropout. Keras-1 defaults: Glorot-uniform weights, zero biases,
batch-norm epsilon 1e-5 (a default of the time). Where the paper's text differs: its notation for C1/C3 reads as
convolutions of stride 2 (appendix B.3), the code has stride 1 and a pool of stride 2, which is what is built here; C2/C4
have dropout between convolutions in the code alone.
"""

import math

from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def fully_connected(
    shape, n_classes, depth: int = 5, width: int = 512, batch_norm: bool = True, activation: str = "relu", dropout: float = 0.0
) -> nn.Module:
    """``depth`` x [Linear, BN, ReLU], then Linear (appendix B.1, B.2); other activations and dropout are for K14.

    Raises:
        ValueError: an activation that is not in ``ACTIVATIONS``.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is '{activation}'; accepted are {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = [nn.Flatten()]
    size = math.prod(shape)
    for _ in range(depth):
        layers += [nn.Linear(size, width), *([nn.BatchNorm1d(width)] if batch_norm else []), ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        size = width
    return glorot(nn.Sequential(*layers, nn.Linear(size, n_classes)))


def shallow(shape, n_classes, batch_norm: bool = True) -> nn.Module:
    """C1/C3: 2 x [5x5 convolution to 64, BN, ReLU, 3x3 max-pool of stride 2], dense 384, dense 192, dropout 0.5."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, 64, 5, padding=2),
            *([nn.BatchNorm2d(64)] if batch_norm else []),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        channels, height, width = 64, (height + 1) // 2, (width + 1) // 2
    layers.append(nn.Flatten())
    size = channels * height * width
    for units in (384, 192):
        layers += [nn.Linear(size, units), *([nn.BatchNorm1d(units)] if batch_norm else []), nn.ReLU(), nn.Dropout(0.5)]
        size = units
    return glorot(nn.Sequential(*layers, nn.Linear(size, n_classes)))


def deep(shape, n_classes) -> nn.Module:
    """C2/C4: five stacks of 3x3 convolutions (64, 128, 256, 512, 512), each ended by a 2x2 max-pool, then dense 512."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stack, (filters, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for i in range(count):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            if i < count - 1:  # none after the last convolution of a stack
                layers.append(nn.Dropout(0.3 if stack == 0 else 0.4))
            channels = filters
        layers.append(nn.MaxPool2d(2, 2))
        height, width = height // 2, width // 2
    size = channels * height * width
    layers += [nn.Flatten(), nn.Dropout(0.5), nn.Linear(size, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5)]
    return glorot(nn.Sequential(*layers, nn.Linear(512, n_classes)))


def glorot(model: nn.Module) -> nn.Module:
    """Keras-1 defaults: Glorot-uniform weights, zero biases; drawn in the order of the layers."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model
