"""Measures of recorded weights: the network as it was trained, its data and its task, handed to each measure."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lbgap.data import Data, Split
from lbgap.measure.adaptive import adaptive_sharpness
from lbgap.measure.curvature import largest_eigenvalues
from lbgap.measure.directions import directions
from lbgap.measure.noise import noise_scale
from lbgap.measure.objective import Loss, mean_loss
from lbgap.measure.parts import m_sharpness
from lbgap.measure.path import path
from lbgap.measure.sharpness import sharpness
from lbgap.measure.unigram import unigram_perplexity
from lbgap.pauses import Pause
from lbgap.tasks import Task


@dataclass(frozen=True)
class Solution:
    """The weights of one run, or of several, in the network that the first was trained in.

    ``model`` holds the weights of ``states[0]``. A measure that has independent parts saves those that are done to ``pause``.
    """

    model: nn.Module
    states: list[dict[str, Tensor]]
    data: Data
    task: Task
    pause: Pause | None = None

    def sample(self, examples: int | None) -> Split:
        """The training set, or a fixed random sample of it.

        Raises:
            ValueError: a sample larger than the training set.
        """
        split = self.data.train
        if examples is None:
            return split
        if examples > len(split):
            raise ValueError(f"examples is {examples}; this training set accepts 1 to {len(split)}")
        chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:examples].sort().values
        chosen = chosen.to(split.y.device)
        return Split(split.x[chosen], split.y[chosen])

    def loss(self, examples: int | None = None) -> Loss:
        """The mean training loss as a function of the network."""
        split = self.sample(examples)
        return mean_loss(self.task, split.x, split.y)


def sharpness_of(solution: Solution, examples: int | None = None, **arguments) -> dict:
    """:func:`lbgap.measure.sharpness` of a solution."""
    split = solution.sample(examples)
    return sharpness(solution.model, solution.loss(examples), data=split.x, **arguments).as_dict()


def adaptive_sharpness_of(solution: Solution, examples: int | None = None, **arguments) -> dict:
    """:func:`lbgap.measure.adaptive_sharpness` of a solution."""
    split = solution.sample(examples)
    return adaptive_sharpness(solution.model, solution.loss(examples), data=split.x, **arguments)


def eigenvalues_of(solution: Solution, examples: int | None = None, **arguments) -> dict:
    """:func:`lbgap.measure.largest_eigenvalues` at a solution."""
    split = solution.sample(examples)
    return largest_eigenvalues(solution.model, solution.loss(examples), data=split.x, **arguments)


def m_sharpness_of(solution: Solution, **arguments) -> dict:
    """:func:`lbgap.measure.m_sharpness` of a solution."""
    x, y, loss = solution.data.train.x, solution.data.train.y, partial(mean_loss, solution.task)
    return m_sharpness(solution.model, x, y, loss=loss, data=x, pause=solution.pause, **arguments)


def noise_scale_of(solution: Solution, examples: int | None = None, **arguments) -> dict:
    """:func:`lbgap.measure.noise_scale` of a solution; an example of a text is a segment, read from no state before it."""
    task, split = solution.task.in_examples(solution.sample(examples))
    more = {"data": split.x, "pause": solution.pause}
    return noise_scale(solution.model, split.x, split.y, loss=partial(mean_loss, task), **more, **arguments)


def unigram_of(solution: Solution) -> dict:
    """:func:`lbgap.measure.unigram_perplexity` of the texts of a network, whose weights are not read."""
    data = solution.data
    return {"perplexity": unigram_perplexity(data.train.y, data.test.y, data.n_classes)}


def directions_of(solution: Solution, **arguments) -> dict:
    """:func:`lbgap.measure.directions` at a solution."""
    return directions(solution.model, solution.loss(), **arguments)


def path_between(solution: Solution, **arguments) -> dict:
    """:func:`lbgap.measure.path` between two solutions."""
    splits = {name: (part.x, part.y) for name, part in solution.data.splits.items() if name != "validation"}
    return path(solution.model, *solution.states, splits, task=solution.task, pause=solution.pause, **arguments)
