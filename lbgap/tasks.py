"""What a network is trained to do: its loss, its metric, how batches are drawn, how a split is read.

The task follows from the data set (:mod:`lbgap.sources`). Training, evaluation and measurement ask it, and know none by name.
"""

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lbgap.data import Split
from lbgap.sources import METRICS, SEGMENT, TaskName, lookup

EVALUATION_STREAMS = 20  # parallel streams in which a text is read when a network is evaluated


@dataclass(frozen=True)
class Task:
    """A task of independent examples.

    ``loss(outputs, targets, reduction)`` is what training lowers, ``reduction`` "mean" or "sum" over the predictions of a
    batch. ``score(outputs, targets)`` sums over the batch what the metric is made of, and ``metric_of(mean loss, mean
    score)`` is the metric: its ``metric`` name, ``unit`` and whether ``higher_is_better``.
    """

    name: TaskName
    metric: str
    unit: str
    higher_is_better: bool
    loss: Callable[..., Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    metric_of: Callable[[float, float], float]

    def count(self, targets: Tensor) -> int:
        """Number of predictions in a batch."""
        return len(targets)

    def predict(self, model: nn.Module, x: Tensor, carry: Any = None) -> tuple[Tensor, Any]:
        """The network's outputs on a batch, and what the next batch of the pass goes on from (None: nothing)."""
        return model(x), None

    def epoch(self, split: Split, batch_size: int, generator: torch.Generator, shuffled_each: int | None = None) -> list:
        """One pass over a split in batches of a fresh permutation, the last one smaller where the batch does not divide n.

        With ``shuffled_each`` n the batches are as large, but each of their slices of n examples comes from a permutation of
        its own place, as if every worker shuffled on its own: some examples are met several times, others not at all.
        """
        device = split.y.device
        if shuffled_each is None:
            return list(torch.randperm(len(split), generator=generator).to(device).split(batch_size))
        batches = [batch.split(shuffled_each) for batch in torch.arange(len(split)).split(batch_size)]
        own = []
        for place in range(len(batches[0])):
            sizes = [len(slices[place]) for slices in batches if place < len(slices)]
            own.append(torch.randperm(len(split), generator=generator)[: sum(sizes)].split(sizes))
        return [torch.cat([own[i][b] for i in range(len(slices))]).to(device) for b, slices in enumerate(batches)]

    def batch(self, split: Split, item: Any, batch_size: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one item of :meth:`epoch`."""
        return split.x[item], split.y[item]

    def parts(self, x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole split in order, in parts of at most ``chunk`` examples."""
        return zip(x.split(chunk), y.split(chunk), strict=True)

    def in_examples(self, split: Split) -> tuple["Task", Split]:
        """The split as examples that do not hang on each other, and the task on these."""
        return self, split


@dataclass(frozen=True)
class TextTask(Task):
    """Next-token prediction on parallel streams, by truncated back-propagation through time (Zaremba et al. 2014).

    A text of n tokens is cut into ``batch_size`` streams of n // batch_size; a batch is one segment of ``segment`` tokens of
    every stream, and its targets are the tokens one place on. The network, ``model(x, carry) -> (outputs, carry)``, goes on
    from the state in which it left the segment before; an epoch begins from none.
    """

    segment: int = SEGMENT

    def count(self, targets: Tensor) -> int:
        """Number of tokens that a batch predicts."""
        return targets.numel()

    def predict(self, model: nn.Module, x: Tensor, carry: Any = None) -> tuple[Tensor, Any]:
        """Outputs (streams, tokens, words), and the state at the end, cut off from its history."""
        outputs, carry = model(x, carry)
        return outputs, _detached(carry)

    def epoch(self, split: Split, batch_size: int, generator: torch.Generator, shuffled_each: int | None = None) -> list:
        """The first token of each segment; a text has one order."""
        return list(range(0, len(split) // batch_size - 1, self.segment))

    def batch(self, split: Split, item: Any, batch_size: int) -> tuple[Tensor, Tensor]:
        """Tokens and the tokens one place on, (streams, at most ``segment``)."""
        return _segment(_streams(split.x, batch_size), item, self.segment)

    def parts(self, x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The text in :data:`EVALUATION_STREAMS` streams, segment by segment, whatever the ``chunk``."""
        streams = _streams(x, min(EVALUATION_STREAMS, len(x) // 2))
        return (_segment(streams, start, self.segment) for start in range(0, streams.shape[1] - 1, self.segment))

    def in_examples(self, split: Split) -> tuple[Task, Split]:
        """The whole segments of a text, (segments, tokens), each to be read from no state before it."""
        number = (len(split) - 1) // self.segment
        x, y = (of[: number * self.segment].view(number, self.segment) for of in (split.x, split.y[1:]))
        return SegmentTask(**{f.name: getattr(self, f.name) for f in fields(Task)}), Split(x, y)


class SegmentTask(Task):
    """Next-token prediction on segments (segments, tokens) that are read on their own."""

    def count(self, targets: Tensor) -> int:
        """Number of tokens that a batch predicts."""
        return targets.numel()

    def predict(self, model: nn.Module, x: Tensor, carry: Any = None) -> tuple[Tensor, Any]:
        """Outputs (segments, tokens, words), from no state and leaving none."""
        return model(x)[0], None


def _streams(text: Tensor, number: int) -> Tensor:
    length = len(text) // number
    return text[: number * length].view(number, length)


def _segment(streams: Tensor, start: int, length: int) -> tuple[Tensor, Tensor]:
    stop = min(start + length, streams.shape[1] - 1)
    return streams[:, start:stop], streams[:, start + 1 : stop + 1]


def _detached(carry: Any) -> Any:
    if isinstance(carry, Tensor):
        return carry.detach()
    return None if carry is None else tuple(_detached(part) for part in carry)


def _hits(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).sum()


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.shape != targets.shape:  # which would be stretched over each other
        raise ValueError(f"targets have shape {tuple(targets.shape)}; accepted is that of the outputs, {tuple(outputs.shape)}")
    return (outputs - targets).square().sum()


def _mean_squared_error(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    total = _squared_error(outputs, targets) / targets[0].numel()
    return total / len(targets) if reduction == "mean" else total


def _pixel_cross_entropy(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    total = F.binary_cross_entropy_with_logits(outputs, targets.flatten(1).to(outputs.dtype), reduction="sum")
    return total / len(targets) if reduction == "mean" else total


def _token_cross_entropy(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction=reduction)


CLASSIFY = Task("classify", *METRICS["classify"], F.cross_entropy, _hits, lambda loss, hits: 100 * hits)
TASKS: dict[str, Task] = {
    "classify": CLASSIFY,
    # mean over examples and outputs, which is the metric too
    "regress": Task("regress", *METRICS["regress"], _mean_squared_error, _squared_error, lambda loss, _: loss),
    # the auto-encoder of Hinton & Salakhutdinov (2006): logits in, cross entropy summed over pixels; the error is the squared
    # one, summed over pixels, of their sigmoid
    "reconstruct": Task(
        "reconstruct",
        *METRICS["reconstruct"],
        _pixel_cross_entropy,
        lambda outputs, targets: _squared_error(outputs.sigmoid(), targets.flatten(1)),
        lambda _, error: error,
    ),
    "predict_next": TextTask(
        "predict_next",
        *METRICS["predict_next"],
        _token_cross_entropy,
        lambda outputs, targets: outputs.new_zeros(()),
        lambda loss, _: float(torch.tensor(loss, dtype=torch.float64).exp()),
    ),
}


def task_of(data: str) -> Task:
    """The task of a data set by name; ValueError names the data sets that are known."""
    return TASKS[lookup(data).task]


def as_many(x: Sized, y: Sized) -> None:
    """Refuse inputs and targets that are not as many: whoever cuts both into parts would drop what one has more."""
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} examples and y has {len(y)}; accepted are as many")
