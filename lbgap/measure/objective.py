"""A model's loss as a function of its flat parameter vector, with an exact way back."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lbgap.ascent import refuse_half_precision, weights_moved
from lbgap.evaluate import CHUNK
from lbgap.tasks import CLASSIFY, Task, as_many
from lbgap.values import is_real, is_whole

# A loss is a scalar tensor, or an iterable of scalar terms whose sum it is (so that the graph of one term at a time lives).
Loss = Callable[[nn.Module], Tensor | Iterator[Tensor]]
LossOf = Callable[[Tensor, Tensor], Loss]  # the mean loss over examples (x, y)
LOST = 0.01  # of a step, in rounding: beyond this share it is not the step that was asked for


def mean_loss(task: Task, x: Tensor, y: Tensor, chunk: int = CHUNK) -> Loss:
    """A task's mean loss over a whole set, in fixed chunks (which are also the batches of per-batch batch norm).

    The network runs in its own precision; loss and sum are float64, because near a minimum the loss of one example is
    below float32's resolution of 1.

    Raises:
        ValueError: not as many inputs as targets.
    """
    as_many(x, y)
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


@contextmanager
def unchanged(model: nn.Module) -> Iterator[nn.Module]:
    """On the way out every parameter and every buffer is the tensor that it was, bit for bit."""
    kept = [(tensors, dict(tensors)) for m in model.modules() for tensors in (m._parameters, m._buffers)]
    values = {t: t.detach().clone() for _, before in kept for t in before.values() if t is not None}
    try:
        yield model
    finally:
        with torch.no_grad():
            for tensors, before in kept:
                tensors.clear()
                tensors.update(before)
            for tensor, value in values.items():
                if not torch.equal(tensor, value):  # one that nothing can write to, such as an expanded one, was not written
                    tensor.copy_(value)
            weights_moved()


class Objective:
    """Values and derivatives of a loss at flat displacements from the parameters found on construction.

    Args:
        loss: a callable on the model; see :data:`Loss`.
    Raises:
        ValueError: a model without trainable parameters, or with parameters of half precision, of which a step smaller than
            a few thousandths is lost in rounding.
    """

    def __init__(self, model: nn.Module, loss: Loss):
        self.model, self.loss = model, loss
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("model has 0 trainable parameters; accepted is at least 1")
        refuse_half_precision(self.parameters)
        self.origin = torch.cat([p.detach().reshape(-1) for p in self.parameters])

    @contextmanager
    def restoring(self) -> Iterator["Objective"]:
        """On the way out every parameter and buffer is bit for bit what it was."""
        with unchanged(self.model):
            yield self

    @torch.no_grad()
    def move(self, displacement: Tensor) -> None:
        """Set the parameters to origin + displacement (n,)."""
        for p, at in zip(self.parameters, self._parts(self.origin + displacement), strict=True):
            p.copy_(at)
        weights_moved()

    @torch.no_grad()
    def rounded(self, displacement: Tensor) -> float:
        """The share of a displacement z (n,) that is lost in the precision of the weights x: |fl(x + z) - x - z| / |z|."""
        ends = zip(self.parameters, self._parts(self.origin + displacement), strict=True)
        taken = torch.cat([at.to(p.dtype).double().reshape(-1) for p, at in ends]) - self.origin.double()
        return float((taken - displacement.double()).norm() / displacement.double().norm())

    def refuse_rounding(self, asked: str, displacement: Tensor) -> None:
        """Refuse a step that rounding changes by more than a hundredth; ``asked`` says in words where its size is from."""
        lost = self.rounded(displacement)
        if lost > LOST:
            raise ValueError(
                f"{asked}; accepted is one at which rounding the weights takes at most {LOST:.0%} off a step, here {lost:.0%}"
            )

    def at_solution(self) -> tuple[float, Tensor]:
        """Loss and gradient at the origin; ValueError where one is not finite."""
        value, gradient = self.value_and_gradient(torch.zeros_like(self.origin))
        if not math.isfinite(value):
            raise ValueError(f"loss is {value} at the solution; accepted is a finite loss")
        if not bool(gradient.isfinite().all()):
            raise ValueError("gradient is not finite at the solution; accepted is a finite gradient")
        return value, gradient

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

    def hessian_product(self, displacement: Tensor, vector: Tensor) -> Tensor:
        """The Hessian at origin + displacement times a vector (n,), by differentiating the gradient's product with it."""
        self.move(displacement)
        product, along = torch.zeros_like(self.origin), self._parts(vector)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            for term in self._terms():
                first = torch.autograd.grad(term, self.parameters, create_graph=True, allow_unused=True, materialize_grads=True)
                slope = sum((g * v).sum() for g, v in zip(first, along, strict=True))
                if slope.requires_grad:  # else the term is linear
                    second = torch.autograd.grad(slope, self.parameters, allow_unused=True, materialize_grads=True)
                    product += torch.cat([g.reshape(-1) for g in second])
        return product

    def _parts(self, vector: Tensor) -> list[Tensor]:
        sizes = [p.numel() for p in self.parameters]
        return [part.view_as(p) for part, p in zip(vector.split(sizes), self.parameters, strict=True)]

    def _terms(self) -> Iterable[Tensor]:
        terms = self.loss(self.model)
        if isinstance(terms, Tensor):
            if terms.numel() != 1:
                raise ValueError(f"loss has shape {tuple(terms.shape)}; accepted is a scalar, or scalar terms one by one")
            return [terms]
        if not isinstance(terms, Iterable):
            raise ValueError(f"loss is a {type(terms).__name__}; accepted is a scalar tensor, or scalar terms one by one")
        return terms


def whole_number(name: str, value: int, least: int, most: float = math.inf) -> None:
    """Refuse an argument that is not an integer from ``least`` to ``most``."""
    if not is_whole(value) or not least <= value <= most:
        raise ValueError(f"{name} is {value}; accepted is an integer from {least}" + (f" to {most}" if most < math.inf else ""))


def above_zero(name: str, value: float) -> None:
    """Refuse an argument that is not a finite number above 0."""
    if not is_real(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; accepted is a number above 0")
