"""Where a training run, or a measurement of many parts, is put down and taken up again."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol, TypeVar

from lbgap.workers import Workers

T = TypeVar("T")


class Pause(Protocol):
    """Where a run is put down and taken up again: :class:`lbgap.jobs.Checkpoint`, or any other."""

    def load(self) -> dict[str, Any] | None:
        """What was last saved of this very run; None where there is nothing of use."""

    def due(self) -> bool:
        """Whether it is time to save; asked after every update, or part."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state; may raise :class:`Stopped` once it is kept."""


class Stopped(Exception):
    """A run was put down before its end; its state is kept, and the next call goes on from there."""


def each(parts: Iterable[T], compute: Callable[[T], Any], pause: Pause | None) -> list:
    """What ``compute`` makes of every part, numbers; what was made before ``pause`` put the measurement down is not made again.

    For measurements of parts that do not depend on one another. A search inside a box has none: each of its evaluations
    follows from the gradients of all before it, which to keep would take more than to compute them anew.
    """
    done = saved["done"] if pause and (saved := pause.load()) else []
    for part in islice(parts, len(done), None):
        done.append(compute(part))
        if pause and pause.due():
            pause.save({"done": done})
    return done


class Shared:
    """The first worker's :class:`Pause`, for all of them: they stop where it stops, and go on from what it has kept."""

    def __init__(self, own: Pause | None, crew: Workers):
        self.own, self.crew = own, crew

    def load(self) -> dict[str, Any] | None:
        """The first worker's."""
        return self.crew.told(self.own.load() if self.own else None)

    def due(self) -> bool:
        """As the first worker has it."""
        return self.crew.agreed(self.own is not None and self.own.due())

    def save(self, state: dict[str, Any]) -> None:
        """The first worker keeps its state; :class:`Stopped` is raised in all."""
        stopped = None
        try:
            if self.own:
                self.own.save(state)
        except Stopped as stop:
            stopped = stop
        if self.crew.agreed(stopped is not None):
            raise stopped or Stopped("the first worker was put down")
