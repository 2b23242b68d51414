"""Networks of Smith et al. 2020: wide residual ones with batch norm and without, the auto-encoder on MNIST, the LSTM."""

import itertools
import math

import torch
from torch import Tensor, nn

from lbgap.models.hoffer import Standardize

# ---------------------------------------------------------------- wide residual networks
NORMS = ("batch", "skipinit")


class SkipInit(nn.Module):
    """A learnable scalar, 0 at the start, in place of a residual branch's batch norm (De & Smith 2020)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The branch, scaled."""
        return self.scale * x


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, before each of them batch norm and ReLU, added to the input (Zagoruyko & Komodakis 2016).

    Where the shape changes, the shortcut is a 1x1 convolution of the first activation. With "skipinit" there is no batch norm,
    convolutions have biases, and the branch ends in :class:`SkipInit`.
    """

    def __init__(self, channels: int, filters: int, stride: int, norm: str):
        super().__init__()
        plain = norm == "skipinit"

        def activation(features: int) -> nn.Module:
            return nn.Sequential(*(() if plain else (nn.BatchNorm2d(features),)), nn.ReLU())

        self.before = activation(channels)
        self.branch = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, padding=1, bias=plain),
            activation(filters),
            nn.Conv2d(filters, filters, 3, padding=1, bias=plain),
            *([SkipInit()] if plain else []),
        )
        changes = stride != 1 or channels != filters
        self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=plain) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Shortcut and branch."""
        active = self.before(x)
        return (x if self.shortcut is None else self.shortcut(active)) + self.branch(active)


def wide(shape, n_classes, depth: int = 16, widen: int = 4, norm: str = "batch") -> nn.Module:
    """A pre-activation wide ResNet of 6n + 4 layers: three stages of n blocks, 16, 32 and 64 filters times ``widen``.

    Args:
        norm: "batch" for batch norm, "skipinit" for none.
    Raises:
        ValueError: a depth that is not 6n + 4, or an unknown ``norm``.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth is {depth}; accepted is 6n + 4: 10, 16, 22, ...")
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; accepted are {', '.join(NORMS)}")
    plain = norm == "skipinit"
    layers: list[nn.Module] = [Standardize(shape[0]), nn.Conv2d(shape[0], 16, 3, padding=1, bias=plain)]
    channels = 16
    for stage in range(3):
        for i in range((depth - 4) // 6):
            filters = 16 * widen * 2**stage
            layers.append(PreActivationBlock(channels, filters, 2 if stage and not i else 1, norm))
            channels = filters
    layers += [*(() if plain else (nn.BatchNorm2d(channels),)), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


# ---------------------------------------------------------------- the auto-encoder and the language model

WIDTHS = (1000, 500, 250, 30)  # Hinton & Salakhutdinov 2006; Sutskever et al. 2013


def autoencoder(shape, n_classes, widths: tuple[int, ...] | str = WIDTHS) -> nn.Module:
    """A deep auto-encoder: sigmoid layers down to a linear code and back up; the outputs are logits of the pixels.

    Args:
        widths: of the layers down to the code, as numbers or "1000-500-250-30"; the way up mirrors them.
    Raises:
        ValueError: widths that are no whole numbers above 0.
    """
    try:
        down = [int(w) for w in (widths.split("-") if isinstance(widths, str) else widths)]
    except ValueError:
        down = []
    if not down or min(down) < 1:
        raise ValueError(f"widths is {widths!r}; accepted are whole numbers above 0, such as '1000-500-250-30'")
    pixels = math.prod(shape)
    sizes = [pixels, *down, *reversed(down[:-1]), pixels]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (before, after) in enumerate(itertools.pairwise(sizes), 1):
        linear = nn.Linear(before, after)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        # the code is linear, and the last layer gives logits
        layers += [linear, *([nn.Sigmoid()] if i not in (len(down), len(sizes) - 1) else [])]
    return nn.Sequential(*layers)


class LanguageModel(nn.Module):
    """Words in, logits of the next word out: embedding, LSTM layers, a linear layer (Zaremba et al. 2014)."""

    def __init__(self, words: int, width: int, depth: int):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, depth, batch_first=True)
        self.out = nn.Linear(width, words)
        for p in self.parameters():
            nn.init.uniform_(p, -0.1, 0.1)

    def forward(self, x: Tensor, carry: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Words (streams, tokens) and the state after the tokens before; logits (streams, tokens, words) and the new state."""
        hidden, carry = self.lstm(self.embedding(x), carry)
        return self.out(hidden), carry


def language_model(shape, n_classes, width: int = 200, depth: int = 2) -> nn.Module:
    """Zaremba's small, non-regularised size: two layers of 200 units, weights from U(-0.1, 0.1)."""
    return LanguageModel(n_classes, width, depth)
