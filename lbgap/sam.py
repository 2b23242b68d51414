"""Sharpness-aware minimization (Foret et al. 2021) in anyone's loop, around any torch optimizer.

Training runs of this library, which say the same in a :class:`lbgap.spec.SamSpec`, go through the same functions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lbgap import gradient
from lbgap.ascent import refuse_half_precision
from lbgap.optimizers import decays_of
from lbgap.spec import SamSpec
from lbgap.tasks import as_many
from lbgap.values import is_whole

LossOf = Callable[[Tensor, Tensor], Tensor]  # inputs, targets -> mean loss


class SAM:
    """The gradient at w + e(w), put where ``loss.backward()`` would have put that at w.

    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> sam = SAM(optimizer, model, rho=0.05)
    >>> for x, y in batches:
    ...     loss = sam.backward(lambda x, y: cross_entropy(model(x), y), x, y)  # in place of loss.backward()
    ...     torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    ...     optimizer.step()
    ...     scheduler.step()

    e(w) is the step of length ``rho`` that raises the loss most to first order: rho g / ||g||, over all parameters of the
    optimizer together (eq. 2 with p = 2). Weights come back bit for bit, clipping and schedules are the optimizer's as usual,
    batch norm's running averages take up the pass at w alone, and the passes of one step share their dropout masks. A ``rho``
    of 0 leaves the optimizer's own steps, bit for bit.

    With :class:`torch.amp.GradScaler` the loss is scaled inside; the rest is the usual:

    >>> loss = sam.backward(loss_of, x, y, scaler)
    >>> scaler.unscale_(optimizer)  # before clipping
    >>> scaler.step(optimizer)      # skipped, as ever, where a gradient of either pass is not finite
    >>> scaler.update()

    With ``model = DistributedDataParallel(model)`` nothing changes: every pass but the last of a step runs under
    ``model.no_sync()``, so that each process ascends along the gradient of its own examples, as the authors' code does, and
    gradients are exchanged once a step.

    Args:
        optimizer: any of torch's, on parameters of the model; read for its parameters and their weight decay, never stepped.
        model: the network, in training or evaluation mode as it should be used.
        rho: radius of the ball, from 0.
        m: examples that share one e(w) (m-SAM, section 4.1); the gradients of the parts are averaged. None: the whole batch.
        norm: of the ball, "2" or "inf".
        adaptive: ASAM's ball, stretched by |w| (Kwon et al. 2021).
        ascents: gradient steps by which e(w) is found (appendix C.6).
        decay_ascends: whether weight decay enters e(w), as where it is part of the loss (the authors' code), or stays out.
    Raises:
        ValueError: a negative ``rho`` or another value that is not accepted, or weights of half precision, of which rounding
            would take most of e(w); autocast's are float32.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        rho: float = 0.05,
        m: int | None = None,
        norm: str = "2",
        adaptive: bool = False,
        ascents: int = 1,
        decay_ascends: bool = False,
    ):
        if m is not None and not (is_whole(m) and m >= 1):
            raise ValueError(f"m is {m!r}; accepted is a whole number from 1, or None for the whole batch")
        for name, given, wanted in (("optimizer", optimizer, torch.optim.Optimizer), ("model", model, nn.Module)):
            if not isinstance(given, wanted):
                raise ValueError(f"{name} is a {type(given).__name__}; accepted is a torch {wanted.__name__}")
        own = set(model.parameters())
        if any(p not in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer has parameters that are not the model's; accepted is one of this model")
        refuse_half_precision(p for group in optimizer.param_groups for p in group["params"])
        self.settings = SamSpec(rho=rho, norm=norm, adaptive=adaptive, ascents=ascents, decay_ascends=decay_ascends)
        self.optimizer, self.model, self.m = optimizer, model, m

    def backward(self, loss_of: LossOf, x: Tensor, y: Tensor, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Put the gradient of SAM into ``.grad``, in place of what was there.

        Args:
            loss_of: makes inputs and targets, or a part of them, into their mean loss under the model.
            x, y: the batch, (n, ...) each.
            scaler: of half-precision training; the gradients are scaled by it.
        Returns:
            The mean loss at w, not scaled.
        Raises:
            ValueError: not as many inputs as targets.
        """
        as_many(x, y)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        scale = 1.0 if scaler is None else scaler.scale(x.new_ones((), dtype=torch.float32)).item()

        def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            loss = loss_of(x, y)
            return (loss if scaler is None else scaler.scale(loss)), loss.new_zeros(())

        decays = [scale * d for d in decays_of(self.optimizer, parameters)] if self.settings.decay_ascends else None
        loss, _ = gradient.fill(self.model, parameters, forward, x, y, self.m, self.settings, decays=decays)
        return loss / scale
