"""The networks of Hoffer et al. 2017, as the authors' released code builds them (models/*.py).

Every network normalises its own inputs, which arrive in [0, 1]: colour images by ImageNet's mean and deviation (for CIFAR
too, as in the code), grey ones by 0.5 and 0.5. The pool comes before batch norm and ReLU in C1 and C3, unlike Keskar's
code. Initial weights are PyTorch's defaults, in the residual networks He normal by fan-out. ``gamma="uniform"`` draws the
scales of batch norm from U(0, 1), PyTorch's default until version 1.1, wherever the code leaves them to it.

Chosen here: VGG, which the code lacks, is VGG-16 with batch norm after each of its thirteen convolutions and one linear
layer.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.5,), (0.5,))
GAMMAS = ("ones", "uniform")


class Standardize(nn.Module):
    """(x - mean) / deviation, channel by channel; constants, no parameters and no part of the state."""

    def __init__(self, channels: int):
        super().__init__()
        mean, deviation = IMAGENET if channels == 3 else tuple(v * channels for v in GREY)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images, (n, channels, height, width)."""
        return (x - self.mean) / self.deviation


class CenterCrop(nn.Module):
    """The middle ``size`` x ``size`` of larger images: what evaluation sees of ImageNet. Others pass."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, size, size)."""
        top, left = (max(0, n - self.size) // 2 for n in x.shape[2:])
        return x[:, :, top : top + self.size, left : left + self.size]


def mnist_f1(shape, n_classes, width: int = 512, gamma: str = "ones") -> nn.Module:
    """F1: 5 x [Linear 512, BN, ReLU], then Linear (mnist_f1.py)."""
    size = math.prod(shape)
    layers: list[nn.Module] = [Standardize(shape[0]), nn.Flatten()]
    for _ in range(5):
        layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        size = width
    return _scales(nn.Sequential(*layers, nn.Linear(size, n_classes)), gamma)


def shallow(shape, n_classes, gamma: str = "ones") -> nn.Module:
    """C1, C3: 2 x [5x5 convolution to 64, 3x3 max-pool of stride 2, BN, ReLU], dense 384, dense 192 (cifar_shallow.py)."""
    channels, height, width = shape
    layers: list[nn.Module] = [Standardize(channels)]
    for _ in range(2):
        layers += [
            nn.Conv2d(channels, 64, 5, padding=2, bias=False),
            nn.MaxPool2d(3, 2),  # no padding: 32 -> 15 -> 7
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]
        channels, height, width = 64, (height - 1) // 2, (width - 1) // 2
    layers.append(nn.Flatten())
    size = channels * height * width
    for units in (384, 192):
        layers += [nn.Linear(size, units, bias=False), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.5)]
        size = units
    return _scales(nn.Sequential(*layers, nn.Linear(size, n_classes)), gamma)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input or, where the shape changes, to its 1x1 convolution."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        """ReLU comes after the sum."""
        return torch.relu(self.body(x) + self.shortcut(x))


def residual(shape, n_classes, depth: int = 44, widen: int = 1, stem_stride: int = 1) -> nn.Module:
    """A CIFAR ResNet of 6n + 2 layers: three stages of n blocks, 16, 32 and 64 filters times ``widen`` (resnet.py).

    Raises:
        ValueError: a depth that is not 6n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is {depth}; accepted is 6n + 2: 8, 14, 20, ...")
    blocks, stem = (depth - 2) // 6, 16 * widen
    layers: list[nn.Module] = [
        Standardize(shape[0]),
        nn.Conv2d(shape[0], stem, 3, stem_stride, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(),
    ]
    channels = stem
    for stage in range(3):
        for i in range(blocks):
            filters = stem * 2**stage
            layers.append(BasicBlock(channels, filters, 2 if stage and not i else 1))
            channels = filters
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))
    return _he(model)


def wide(shape, n_classes, depth: int = 16, widen: int = 4) -> nn.Module:
    """WResnet16-4: :func:`residual`, post-activation and without dropout, the stem widened too (wide_resnet.py).

    Raises:
        ValueError: a depth below 8.
    """
    if depth < 8:
        raise ValueError(f"depth is {depth}; accepted is 8 or more")
    # (16 - 2) / 6 is not whole: the code rounds down to two blocks a stage, 14 layers by the usual count
    return residual(shape, n_classes, depth=6 * ((depth - 2) // 6) + 2, widen=widen)


def vgg(shape, n_classes) -> nn.Module:
    """VGG-16 with batch norm and one linear layer, for inputs of 32x32; our choice, the code has none."""
    channels, layers = shape[0], [Standardize(shape[0])]
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return _he(nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (shape[1] // 32) * (shape[2] // 32), n_classes)))


def alexnet(shape, n_classes) -> nn.Module:
    """AlexNet of "one weird trick" with batch norm, for 224x224 (the middle of larger inputs) (alexnet.py).

    As in the code, batch norm comes before ReLU in the first block and after it in the others; a pool comes before both.
    """

    def convolution(channels: int, filters: int, size: int, stride: int = 1) -> nn.Module:
        return nn.Conv2d(channels, filters, size, stride, padding=size // 2 if stride == 1 else 2, bias=False)

    return nn.Sequential(
        Standardize(shape[0]),
        CenterCrop(224),
        *(convolution(shape[0], 64, 11, 4), nn.MaxPool2d(3, 2), nn.BatchNorm2d(64), nn.ReLU()),
        *(convolution(64, 192, 5), nn.MaxPool2d(3, 2), nn.ReLU(), nn.BatchNorm2d(192)),
        *(convolution(192, 384, 3), nn.ReLU(), nn.BatchNorm2d(384)),
        *(convolution(384, 256, 3), nn.ReLU(), nn.BatchNorm2d(256)),
        *(convolution(256, 256, 3), nn.MaxPool2d(3, 2), nn.ReLU(), nn.BatchNorm2d(256)),
        nn.Flatten(),
        *(nn.Linear(256 * 6 * 6, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096, bias=False), nn.BatchNorm1d(4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, n_classes),
    )


def _he(model: nn.Module) -> nn.Module:
    """He normal by fan-out for convolutions; batch norm at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def _scales(model: nn.Module, gamma: str) -> nn.Module:
    if gamma not in GAMMAS:
        raise ValueError(f"gamma is {gamma!r}; accepted are {', '.join(GAMMAS)}")
    if gamma == "uniform":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.weight)
    return model
