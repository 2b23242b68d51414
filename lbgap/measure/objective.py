"""A model's loss as a function of its flat parameter vector, with an exact way back."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lbgap.evaluate import CHUNK
from lbgap.tasks import CLASSIFY, Task

# A loss is a scalar tensor, or an iterable of scalar terms whose sum it is (so that the graph of one term at a time lives).
Loss = Callable[[nn.Module], Tensor | Iterator[Tensor]]


def mean_loss(task: Task, x: Tensor, y: Tensor, chunk: int = CHUNK) -> Loss:
    """A task's mean loss over a whole set, in fixed chunks (which are also the batches of per-batch batch norm).

    The network runs in its own precision; loss and sum are float64, because near a minimum the loss of one example is
    below float32's resolution of 1.
    """
    total = sum(task.count(targets) for _, targets in task.parts(x, y, chunk))

    def loss(model: nn.Module) -> Iterator[Tensor]:
        carry = None
        for part, targets in task.parts(x, y, chunk):
            outputs, carry = task.predict(model, part, carry)
            yield task.loss(outputs.double(), targets, reduction="sum") / total

    return loss


def mean_cross_entropy(x: Tensor, y: Tensor, chunk: int = CHUNK) -> Loss:
    """:func:`mean_loss` of classification: mean cross entropy (nats) of inputs (n, ...) and labels (n,)."""
    return mean_loss(CLASSIFY, x, y, chunk)


class Objective:
    """``value`` and ``gradient`` of a loss at flat displacements from the parameters found on construction."""

    def __init__(self, model: nn.Module, loss: Loss):
        self.model, self.loss = model, loss
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("model has 0 trainable parameters; accepted is at least 1")
        self._origin = [p.detach().clone() for p in self.parameters]
        self.origin = torch.cat([p.reshape(-1) for p in self._origin])

    @contextmanager
    def restoring(self) -> Iterator["Objective"]:
        """On the way out every parameter is bit for bit what it was."""
        try:
            yield self
        finally:
            with torch.no_grad():
                for p, o in zip(self.parameters, self._origin, strict=True):
                    p.copy_(o)

    @torch.no_grad()
    def move(self, displacement: Tensor) -> None:
        """Set the parameters to origin + displacement (n,)."""
        at = 0
        for p, o in zip(self.parameters, self._origin, strict=True):
            p.copy_(o + displacement[at : at + p.numel()].view_as(p))
            at += p.numel()

    @torch.no_grad()
    def value(self, displacement: Tensor) -> float:
        """Loss (float64) at origin + displacement."""
        self.move(displacement)
        return sum(float(term) for term in self._terms())

    def value_and_gradient(self, displacement: Tensor) -> tuple[float, Tensor]:
        """Loss (float64) and gradient (n,) at origin + displacement; ``.grad`` of the parameters is not touched."""
        self.move(displacement)
        total, gradient = 0.0, torch.zeros_like(self.origin)
        with torch.enable_grad():
            for term in self._terms():
                parts = torch.autograd.grad(term, self.parameters, allow_unused=True, materialize_grads=True)
                gradient += torch.cat([g.reshape(-1) for g in parts])
                total += float(term.detach())
        return total, gradient

    def _terms(self) -> Iterable[Tensor]:
        terms = self.loss(self.model)
        return [terms] if isinstance(terms, Tensor) else terms
