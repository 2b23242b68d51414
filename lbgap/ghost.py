"""Ghost batch norm (Hoffer et al. 2017, Algorithm 1): statistics of small disjoint parts of a large batch.

>>> model = convert(model, ghost_batch_size=128)  # any model with batch norm
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap.values import is_whole

AVERAGINGS = ("sequential", "mean")
CONVERTED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GhostBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of each ghost batch, for inputs (n, features, ...) of any rank.

    The batch is cut, in its order, into ``n // ghost_batch_size`` ghost batches; where the size does not divide n, the
    remainder joins the last. A batch smaller than one ghost batch is normalised whole. Evaluation is that of batch norm.
    Statistics and running averages are float32 at least, also where inputs or parameters are of half precision (running
    averages that are themselves of half precision are rounded once a batch). Under ``torch.func.vmap`` the running averages
    must be stacked and mapped too.

    Args:
        num_features, eps, momentum, affine, track_running_stats: as in ``torch.nn.BatchNorm2d``.
        ghost_batch_size: examples in a ghost batch.
        averaging: how the running averages take up the ghost statistics. "sequential": once per ghost batch, in order, as the
            released code does, which runs the network on one ghost batch after another; "mean": once per batch, with the mean
            over the ghost batches.
    Raises:
        ValueError: a ghost batch size below 1, or an unknown averaging; inputs of other features, ghost batches of one vector,
            or running averages that are not mapped where vmap maps the inputs.
    """

    def __init__(
        self,
        num_features: int,
        ghost_batch_size: int,
        averaging: str = "sequential",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        _check(ghost_batch_size, averaging)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.ghost_batch_size, self.averaging = ghost_batch_size, averaging

    def extra_repr(self) -> str:
        """Batch norm's own, and what is particular to this layer."""
        return f"{super().extra_repr()}, ghost_batch_size={self.ghost_batch_size}, averaging={self.averaging}"

    @property
    def qconfig(self):
        """Refused: ``SyncBatchNorm.convert_sync_batchnorm`` asks for it before it puts another layer in this one's place."""
        raise TypeError(
            "GhostBatchNorm has no qconfig; SyncBatchNorm, whose statistics are those of the whole batch, cannot take its place"
        )

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; accepted is (n, {self.num_features}, ...)")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``; in training, update the running averages."""
        averages = self.training and self.track_running_stats and self.running_mean is not None
        if averages and is_batchedtensor(x) and not is_batchedtensor(self.running_mean):
            raise ValueError("running averages are one for all that vmap maps over; accepted are stacked ones, or none")
        ghosts = len(x) // self.ghost_batch_size if self.training else 1
        if ghosts <= 1:
            return self._whole(x)
        self._check_input_dim(x)
        if self.ghost_batch_size == 1 and x.dim() == 2:
            raise ValueError("ghost_batch_size is 1; inputs of shape (n, features) accept 2 or more, one has no variance")
        # one pass spares an accelerator a launch per ghost batch; a CPU is faster on one part after another
        one_pass = x.device.type != "cpu" and len(x) % self.ghost_batch_size == 0
        y, mean, variance = (self._in_one_pass if one_pass else self._in_turn)(x, ghosts)
        if averages:
            self._average(mean, variance)
        return y

    def _whole(self, x: Tensor) -> Tensor:
        """Batch norm of the batch as one, or evaluation."""
        buffers = self.running_mean, self.running_var
        if buffers[0] is None:
            return super().forward(x)
        # backward keeps what is passed here, and a later update changes the buffers in place: pass copies
        self.running_mean, self.running_var = (b.clone() for b in buffers)
        try:
            y = super().forward(x)
            if self.training:
                with torch.no_grad():
                    for buffer, new in zip(buffers, (self.running_mean, self.running_var), strict=True):
                        buffer.copy_(new)
            return y
        finally:
            self.running_mean, self.running_var = buffers

    def _in_turn(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Output, and the mean and unbiased variance of each ghost batch, (ghosts, features)."""
        whole = self.ghost_batch_size * (ghosts - 1)
        parts = x.split([self.ghost_batch_size] * (ghosts - 1) + [len(x) - whole])
        weight, bias = self._affine(x)
        # tensors of their own, not rows of one: under vmap batch norm would fill a copy of a row
        mean, variance = zip(*(self._fresh(x, self.num_features) for _ in parts), strict=True)
        out = [
            F.batch_norm(part, m, v, weight, bias, True, 1.0, self.eps)
            for part, m, v in zip(parts, mean, variance, strict=True)
        ]
        return torch.cat(out), torch.stack(mean), torch.stack(variance)

    def _in_one_pass(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same where the ghost batches are of one size: to batch norm, each is a set of features of its own."""
        mean, variance = self._fresh(x, ghosts * self.num_features)
        g, rest = len(x) // ghosts, x.shape[2:]
        wide = x.reshape(ghosts, g, self.num_features, *rest).transpose(0, 1).reshape(g, ghosts * self.num_features, *rest)
        weight, bias = (None if p is None else p.repeat(ghosts) for p in self._affine(x))
        y = F.batch_norm(wide, mean, variance, weight, bias, True, 1.0, self.eps)
        y = y.reshape(g, ghosts, self.num_features, *rest).transpose(0, 1).reshape(x.shape)
        if x.movedim(1, -1).is_contiguous():  # channels last, in words that vmap understands
            y = y.movedim(1, -1).contiguous().movedim(-1, 1)
        return y, mean.view(ghosts, -1), variance.view(ghosts, -1)

    @staticmethod
    def _fresh(x: Tensor, n: int) -> tuple[Tensor, Tensor]:
        # running buffers that a momentum of 1 fills with the statistics themselves; float32 under autocast too
        kind = torch.promote_types(x.dtype, torch.float32)
        return x.new_zeros(n, dtype=kind), x.new_ones(n, dtype=kind)

    def _affine(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        # beside statistics in float32 batch norm wants its parameters in float32 too
        half = x.dtype.itemsize < 4
        return tuple(p.float() if half and p is not None else p for p in (self.weight, self.bias))

    @torch.no_grad()
    def _average(self, mean: Tensor, variance: Tensor) -> None:
        """Exponential averages, or cumulative ones where the momentum is None, as in ``torch.nn.BatchNorm2d``."""
        if self.averaging == "mean":
            mean, variance = mean.mean(0, keepdim=True), variance.mean(0, keepdim=True)
        steps = torch.arange(len(mean), 0, -1, device=mean.device, dtype=mean.dtype)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(len(mean))
        elif self.momentum is None:  # no count to average by: batch norm leaves its averages alone
            return
        if self.momentum is None:
            factor = len(mean) / self.num_batches_tracked.to(mean.dtype)
            weights = (factor / len(mean)).expand(len(mean))
            keep = 1 - factor
        else:  # unrolled: after k updates the first statistic has weight m (1 - m)^(k - 1), the last one m
            weights = self.momentum * (1 - self.momentum) ** (steps - 1)
            keep = (1 - self.momentum) ** len(mean)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            # a sum, since autocast would make a matrix product of bfloat16
            running.copy_(running.to(torch.promote_types(running.dtype, new.dtype)) * keep + (weights[:, None] * new).sum(0))


def convert(model: nn.Module, ghost_batch_size: int, averaging: str = "sequential") -> nn.Module:
    """Make every BatchNorm1d, BatchNorm2d and BatchNorm3d layer of a model ghost batch norm, in place; returns the model.

    The layers stay the objects that they are and change their class alone, so that parameters, buffers, hooks, attributes and
    modes stay too.

    Raises:
        ValueError: a ghost batch size below 1, an unknown averaging, a model without such a layer, or with a batch norm whose
            class (SyncBatchNorm, ghost batch norm already, parametrized, lazy, a subclass) or forward is another; the model is
            then unchanged.
    """
    _check(ghost_batch_size, averaging)
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        raise ValueError(f"model is a {type(model).__name__} without batch norm; ghost batch norm accepts one with such layers")
    for name, norm in norms.items():
        if type(norm) not in CONVERTED or "forward" in vars(norm):
            what = f"layer '{name}'" if name else "model"
            own = " with a forward of its own" if "forward" in vars(norm) else ""
            accepted = ", ".join(kind.__name__ for kind in CONVERTED) + " as PyTorch makes them"
            raise ValueError(f"{what} is a {type(norm).__name__}{own}; accepted batch norms are {accepted}")
    for norm in norms.values():
        norm.__class__ = GhostBatchNorm
        norm.ghost_batch_size, norm.averaging = ghost_batch_size, averaging
    return model


def _check(ghost_batch_size: int, averaging: str) -> None:
    if not is_whole(ghost_batch_size) or ghost_batch_size < 1:
        raise ValueError(f"ghost_batch_size is {ghost_batch_size!r}; accepted is a whole number of 1 or more")
    if averaging not in AVERAGINGS:
        raise ValueError(f"averaging is {averaging!r}; accepted are {', '.join(AVERAGINGS)}")
