"""Networks of Smith et al. 2020 other than its residual ones: the auto-encoder on MNIST and the LSTM language model."""

import itertools
import math

from torch import Tensor, nn

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
