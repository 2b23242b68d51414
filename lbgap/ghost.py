"""Ghost batch norm (Hoffer et al. 2017, Algorithm 1): statistics of small disjoint parts of a large batch.

>>> model = convert(model, ghost_batch_size=128)  # any model with BatchNorm1d or BatchNorm2d layers
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

AVERAGINGS = ("sequential", "mean")


class GhostBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of each ghost batch, for inputs (n, features, ...) of any rank.

    The batch is cut, in its order, into ``n // ghost_batch_size`` ghost batches; where the size does not divide n, the
    remainder joins the last. A batch smaller than one ghost batch is normalised whole. Evaluation is that of batch norm.

    Args:
        num_features, eps, momentum, affine, track_running_stats: as in ``torch.nn.BatchNorm2d``.
        ghost_batch_size: examples in a ghost batch.
        averaging: how the running averages take up the ghost statistics. "sequential": once per ghost batch, in order, as the
            released code does, which runs the network on one ghost batch after another; "mean": once per batch, with the mean
            over the ghost batches.
    Raises:
        ValueError: a ghost batch size below 1, or an unknown averaging.
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
        if isinstance(ghost_batch_size, bool) or not isinstance(ghost_batch_size, int) or ghost_batch_size < 1:
            raise ValueError(f"ghost_batch_size is {ghost_batch_size!r}; accepted is a whole number of 1 or more")
        if averaging not in AVERAGINGS:
            raise ValueError(f"averaging is {averaging!r}; accepted are {', '.join(AVERAGINGS)}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.ghost_batch_size, self.averaging = ghost_batch_size, averaging

    def extra_repr(self) -> str:
        """Batch norm's own, and what is particular to this layer."""
        return f"{super().extra_repr()}, ghost_batch_size={self.ghost_batch_size}, averaging={self.averaging}"

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"x has shape {tuple(x.shape)}; accepted is (n, {self.num_features}, ...)")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``; in training, update the running averages."""
        ghosts = len(x) // self.ghost_batch_size if self.training else 1
        if ghosts <= 1:
            return super().forward(x)
        self._check_input_dim(x)
        if self.ghost_batch_size == 1 and x.dim() == 2:
            raise ValueError("ghost_batch_size is 1; inputs of shape (n, features) accept 2 or more, one has no variance")
        # one pass spares an accelerator a launch per ghost batch; a CPU is faster on one part after another
        one_pass = x.device.type != "cpu" and len(x) % self.ghost_batch_size == 0
        y, mean, variance = (self._in_one_pass if one_pass else self._in_turn)(x, ghosts)
        if self.track_running_stats and self.running_mean is not None:
            self._average(mean, variance)
        return y

    def _in_turn(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Output, and the mean and unbiased variance of each ghost batch, (ghosts, features)."""
        mean, variance = self._fresh(x, ghosts, self.num_features)
        whole = self.ghost_batch_size * (ghosts - 1)
        parts = x.split([self.ghost_batch_size] * (ghosts - 1) + [len(x) - whole])
        out = [
            F.batch_norm(part, m, v, self.weight, self.bias, True, 1.0, self.eps)
            for part, m, v in zip(parts, mean, variance, strict=True)
        ]
        return torch.cat(out), mean, variance

    def _in_one_pass(self, x: Tensor, ghosts: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same where the ghost batches are of one size: to batch norm, each is a set of features of its own."""
        mean, variance = self._fresh(x, 1, ghosts * self.num_features)
        g, rest = len(x) // ghosts, x.shape[2:]
        wide = x.reshape(ghosts, g, self.num_features, *rest).transpose(0, 1).reshape(g, ghosts * self.num_features, *rest)
        weight, bias = (None if p is None else p.repeat(ghosts) for p in (self.weight, self.bias))
        y = F.batch_norm(wide, mean[0], variance[0], weight, bias, True, 1.0, self.eps)
        y = y.reshape(g, ghosts, self.num_features, *rest).transpose(0, 1).reshape(x.shape)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            y = y.contiguous(memory_format=torch.channels_last)
        return y, mean.view(ghosts, -1), variance.view(ghosts, -1)

    @staticmethod
    def _fresh(x: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
        # running buffers that a momentum of 1 fills with the statistics themselves; float32 under autocast too
        kind = torch.promote_types(x.dtype, torch.float32)
        return torch.zeros(shape, device=x.device, dtype=kind), torch.ones(shape, device=x.device, dtype=kind)

    @torch.no_grad()
    def _average(self, mean: Tensor, variance: Tensor) -> None:
        """Exponential averages, or cumulative ones where the momentum is None, as in ``torch.nn.BatchNorm2d``."""
        if self.averaging == "mean":
            mean, variance = mean.mean(0, keepdim=True), variance.mean(0, keepdim=True)
        steps = torch.arange(len(mean), 0, -1, device=mean.device, dtype=mean.dtype)
        self.num_batches_tracked.add_(len(mean))
        if self.momentum is None:
            factor = len(mean) / self.num_batches_tracked.to(mean.dtype)
            weights = (factor / len(mean)).expand(len(mean))
            keep = 1 - factor
        else:  # unrolled: after k updates the first statistic has weight m (1 - m)^(k - 1), the last one m
            weights = self.momentum * (1 - self.momentum) ** (steps - 1)
            keep = (1 - self.momentum) ** len(mean)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            # a sum, since autocast would make a matrix product of bfloat16
            running.mul_(keep).add_((weights[:, None] * new).sum(0).to(running.dtype))


def convert(model: nn.Module, ghost_batch_size: int, averaging: str = "sequential") -> nn.Module:
    """Replace every BatchNorm1d and BatchNorm2d layer of a model, in place, by ghost batch norm; returns the model.

    Parameters, buffers and training mode are the old layers' own. A model that is itself a batch norm is returned replaced.

    Raises:
        ValueError: a ghost batch size below 1, an unknown averaging, or a model without such a layer.
    """
    replaced: dict[nn.Module, nn.Module] = {}  # a layer that stands in two places stays one layer

    def visit(module: nn.Module) -> nn.Module:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module not in replaced:
                replaced[module] = _ghost_of(module, ghost_batch_size, averaging)
            return replaced[module]
        for name, child in module._modules.items():  # named_children() passes over the second place
            if child is not None:
                module._modules[name] = visit(child)
        return module

    model = visit(model)
    if not replaced:
        raise ValueError(f"model is a {type(model).__name__} without batch norm; ghost batch norm accepts one with such layers")
    return model


def _ghost_of(norm: _BatchNorm, ghost_batch_size: int, averaging: str) -> GhostBatchNorm:
    with torch.device("meta"):  # its own parameters and buffers are thrown away at once
        ghost = GhostBatchNorm(
            norm.num_features, ghost_batch_size, averaging, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
    ghost._parameters.update(norm._parameters)
    ghost._buffers.update(norm._buffers)
    ghost.training = norm.training
    return ghost
