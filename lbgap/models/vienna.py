"""The network of the University of Vienna report: two convolutions, pooling and dropout between, one dense layer.

The report gives 32 and 64 filters, ReLU, "intermediate max-pooling and drop-out layers" and a dense layer at the end. Chosen
here: kernels of 3x3 without padding and pools of 2x2 (Keras' defaults), dropout of 0.25 after each pool. Batch norm, of which
it has none, stands after each convolution where an option asks for it. Initial weights are Glorot-uniform, as in Keras.
"""

from torch import nn

from lbgap.models.keskar import glorot

FILTERS = (32, 64)


def convolutional(shape, n_classes, dropout: float = 0.25, batch_norm: bool = False, padding: int = 0) -> nn.Module:
    """2 x [3x3 convolution, (BN,) ReLU, 2x2 max-pool, (dropout)], then Linear; images of 8x8 pixels need a padding of 1."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for filters in FILTERS:
        layers += [
            nn.Conv2d(channels, filters, 3, padding=padding),
            *([nn.BatchNorm2d(filters)] if batch_norm else []),
            nn.ReLU(),
        ]
        layers += [nn.MaxPool2d(2), *([nn.Dropout(dropout)] if dropout else [])]
        channels, height, width = filters, (height - 2 + 2 * padding) // 2, (width - 2 + 2 * padding) // 2
    return glorot(nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, n_classes)))
