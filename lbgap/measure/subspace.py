"""A random p-dimensional subspace of parameter space, never stored and never factored whole."""

import math

import torch
from torch import Tensor

from lbgap.values import is_whole

SCALES = {"box": "N(0, 1/p) entries", "unit": "N(0, 1/n) entries: columns of norm about 1", "standard": "N(0, 1) entries"}


def check_scale(name: str, scale: str | float) -> None:
    """Refuse a scale that is neither one of :data:`SCALES` nor a standard deviation."""
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not (0 < scale < math.inf if number else scale in SCALES):
        raise ValueError(f"{name} is {scale!r}; accepted are {', '.join(SCALES)} or a number above 0")


class RandomSubspace:
    """The n x p matrix A of Keskar et al. 2017, section 2.2.2, with independent Gaussian entries.

    The paper says only that A is random. Gaussian entries make the subspace's orientation uniform. Their variance decides
    what the box means: with 1/p ("box", the default) a corner of the subspace's box, |y_i| = epsilon, moves each
    weight by epsilon in root mean square, the same as the full-space box does for small weights, so that the two columns
    of numbers speak of steps of one size. The other scales exist to measure how much this choice matters; a number is the
    entries' standard deviation itself.

    A is regenerated from ``seed`` in blocks of rows whenever it is multiplied; A^+ v = (A^T A)^-1 A^T v takes the p x p
    Gram matrix alone. That squares A's condition number, (1 + sqrt(p/n)) / (1 - sqrt(p/n)) for Gaussian entries, which is
    below 2 up to p = n / 10; beyond, A is written out in float64 and factored, in ten times the Gram matrix's memory at most.

    Raises:
        ValueError: p outside 1..n, or a scale that is neither known nor a number above 0.
    """

    ROWS = 1 << 16
    SLENDER = 10  # n / p from which the Gram matrix serves

    def __init__(self, n: int, p: int = 100, seed: int = 0, scale: str | float = "box", device: str | torch.device = "cpu"):
        if not is_whole(p) or not 1 <= p <= n:
            raise ValueError(f"p is {p}; accepted is 1 to the number of parameters, {n}")
        check_scale("scale", scale)
        self.n, self.p, self.seed, self.device = n, p, seed, torch.device(device)
        self.deviation = {"box": p**-0.5, "unit": n**-0.5, "standard": 1.0}.get(scale, scale)

    def _blocks(self):
        generator = torch.Generator(self.device).manual_seed(self.seed)
        for start in range(0, self.n, self.ROWS):
            stop = min(start + self.ROWS, self.n)
            yield (
                slice(start, stop),
                torch.randn(stop - start, self.p, generator=generator, device=self.device).mul_(self.deviation),
            )

    def matvec(self, y: Tensor) -> Tensor:
        """A y: (p,) -> (n,)."""
        return torch.cat([block @ y.to(block.dtype) for _, block in self._blocks()])

    def rmatvec(self, v: Tensor) -> Tensor:
        """A^T v: (n,) -> (p,), summed in float64."""
        total = torch.zeros(self.p, dtype=torch.float64, device=self.device)
        for rows, block in self._blocks():
            total += (v[rows].to(block.dtype) @ block).double()
        return total

    def pinv(self, v: Tensor) -> Tensor:
        """A^+ v: (n,) -> (p,) float64."""
        if self.n < self.SLENDER * self.p:
            whole = torch.cat([block for _, block in self._blocks()]).double()
            orthogonal, triangular = torch.linalg.qr(whole)
            return torch.linalg.solve_triangular(triangular, (orthogonal.T @ v.double())[:, None], upper=True)[:, 0]
        gram = torch.zeros(self.p, self.p, dtype=torch.float64, device=self.device)
        for _, block in self._blocks():
            gram += (block.T @ block).double()
        return torch.linalg.solve(gram, self.rmatvec(v))
