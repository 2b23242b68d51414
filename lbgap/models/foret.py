"""The wide residual network of Foret et al. 2021: WRN-28-10 of Zagoruyko & Komodakis 2016, with batch norm and ReLU first."""

from torch import Tensor, nn

from lbgap.models.hoffer import Standardize


class Block(nn.Module):
    """BN, ReLU, 3x3 convolution, twice, added to the input or, where the shape changes, to a 1x1 convolution of BN and ReLU."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False),
        )
        same = stride == 1 and channels == filters
        self.shortcut = None if same else nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, filters, height / stride, width / stride)."""
        ready = self.first(x)
        return self.body(ready) + (x if self.shortcut is None else self.shortcut(ready))


def wide_residual(shape, n_classes, depth: int = 28, widen: int = 10) -> nn.Module:
    """Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times ``widen`` filters, BN, ReLU, the mean, and Linear.

    Raises:
        ValueError: a depth that is not 6n + 4.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}; accepted is 6n + 4: 10, 16, 22, ...")
    layers: list[nn.Module] = [Standardize(shape[0]), nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)]
    channels = 16
    for stage in range(3):
        filters = 16 * widen * 2**stage
        for i in range((depth - 4) // 6):
            layers.append(Block(channels, filters, 2 if stage and not i else 1))
            channels = filters
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
