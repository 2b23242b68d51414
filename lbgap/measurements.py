"""What can be measured on recorded weights: each measurement's arguments, cost, and the function that does it.

A measurement's arguments are checked when the job is made, before anything trains, as far as the size of the data tells.
A paper in ``LBGAP_PAPERS`` may :func:`register` one of its own. Nothing here needs torch.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from lbgap.values import Count, Finite, Frozen, Positive, Seed, same_code

Reading = Literal["batch", "running", "reestimated"]


class Passes(NamedTuple):
    """Passes over the training set, forward and back or forward alone, and forward over the test set: what a job costs."""

    both: float = 0.0
    forward: float = 0.0
    forward_test: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """One kind of measurement.

    ``function(solution, **arguments)`` gets a :class:`lbgap.measure.recorded.Solution` and returns the results as a
    dictionary; it is itself, or "module:function". ``arguments`` validates what it is given. ``semantics`` is raised by hand
    when the meaning changes, so that old records no longer match. ``passes`` go over as many of the training set as
    ``examples`` says, over all where that is None. ``of`` is the number of solutions it takes; ``on`` says whether it is of a
    network trained on independent "examples", which the tokens of a text are not, on a "text", or on "any".
    """

    function: str | Callable[..., dict]
    arguments: type[Frozen]
    passes: Callable[[Any], Passes]
    semantics: int = 1
    of: int = 1
    examples: Callable[[Any], int | None] = lambda given: getattr(given, "examples", None)
    on: Literal["any", "examples", "text"] = "any"

    def check(self, kind: str, arguments: Mapping[str, Any], of: int, size: int, text: bool = False) -> None:
        """Refuse bad arguments, another number of solutions or kind of data, or more examples than its ``size``."""
        if of != self.of:
            raise ValueError(f"of has {of} solutions; {kind} accepts {self.of}")
        given = self.arguments(**arguments)
        if text and self.on == "examples":
            raise ValueError(f"kind is '{kind}', which draws examples; of a network trained on a text accepted are others")
        if not text and self.on == "text":
            raise ValueError(f"kind is '{kind}'; accepted is a network trained on a text")
        if text and getattr(given, "examples", None):
            raise ValueError(f"examples is {given.examples}; of a network trained on a text accepted is None")
        for name in ("examples", "m", "big"):
            unused = name == "big" and getattr(given, "estimator", None) == "per-example"
            if (getattr(given, name, None) or 0) > size and not unused:
                raise ValueError(f"{name} is {getattr(given, name)}; this training set accepts 1 to {size}")
        if (parts := getattr(given, "parts", None)) and parts * given.m > size:
            raise ValueError(f"parts is {parts}; of {given.m} examples each this training set accepts 1 to {size // given.m}")

    def cost(self, arguments: Mapping[str, Any]) -> tuple[Passes, int | None]:
        """What the measurement costs with these arguments: passes, and over how many training examples where not over all."""
        given = self.arguments(**arguments)
        return self.passes(given), self.examples(given)

    def measure(self, solution: Any, arguments: Mapping[str, Any]) -> dict:
        """Measure."""
        function = self.function
        if isinstance(function, str):
            module, name = function.split(":")
            function = getattr(importlib.import_module(module), name)
        return function(solution, **arguments)


class _Box(Frozen):
    epsilon: Positive = 1e-3
    seed: Seed = 0
    batch_norm: Reading = "batch"
    iterations: Count = 10


class Sharpness(_Box):
    """Arguments of :func:`lbgap.measure.sharpness`; ``examples`` takes a fixed sample of the training set in its place."""

    space: Literal["full", "random"] = "full"
    p: Count = 100
    scaling: Literal["auto"] | Positive = "auto"
    tolerance: Literal["scipy"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    start: Literal["solution", "random"] = "solution"
    subspace_scale: Literal["box", "unit", "standard"] | Positive = "box"
    examples: Count | None = None


class Directions(_Box):
    """Arguments of :func:`lbgap.measure.directions`."""

    batch_norm: Literal["batch", "running"] = "batch"
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    draws: Count = 10


class Path(Frozen):
    """Arguments of :func:`lbgap.measure.path`."""

    shape: Literal["linear", "curvilinear"] = "linear"
    low: Finite = -1.0
    high: Finite = 2.0
    points: Count = 25
    batch_norm: Literal["batch", "reestimated"] = "batch"


class AdaptiveSharpness(Frozen):
    """Arguments of :func:`lbgap.measure.adaptive_sharpness`."""

    rho: Positive = 1e-3
    seed: Seed = 0
    batch_norm: Reading = "batch"
    iterations: Count = 10
    examples: Count | None = None


class Eigenvalues(Frozen):
    """Arguments of :func:`lbgap.measure.largest_eigenvalues`."""

    k: Count = 1
    seed: Seed = 0
    batch_norm: Reading = "batch"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    iterations: Count = 100
    examples: Count | None = None


class MSharpness(Frozen):
    """Arguments of :func:`lbgap.measure.m_sharpness`."""

    rho: Positive = 0.05
    m: Count = 128
    parts: Count | None = None
    seed: Seed = 0
    batch_norm: Reading = "batch"
    ascents: Count = 1


class NoiseScale(Frozen):
    """Arguments of :func:`lbgap.measure.noise_scale`."""

    estimator: Literal["two-batch", "per-example"] = "two-batch"
    small: Count = 128
    big: Count = 1024
    draws: Count | None = None
    seed: Seed = 0
    batch_norm: Reading = "running"
    examples: Count | None = None

    @model_validator(mode="after")
    def _of_the_estimator(self) -> "NoiseScale":
        if self.estimator == "per-example" and self.batch_norm == "batch":
            raise ValueError(
                "batch_norm is 'batch', which ties examples together; accepted with per-example are running, reestimated"
            )
        if self.estimator == "two-batch" and (self.big % self.small or self.big == self.small):
            raise ValueError(f"big is {self.big}; accepted is a multiple of small, {self.small}, above it")
        return self


class Unigram(Frozen):
    """:func:`lbgap.measure.unigram_perplexity` takes none."""


def _climb(iterations: int) -> float:
    return 1 + 1.3 * iterations  # the line search takes about a third more evaluations than iterations


MEASUREMENTS = {
    "sharpness": Measurement("lbgap.measure.recorded:sharpness_of", Sharpness, lambda a: Passes(both=_climb(a.iterations))),
    "directions": Measurement(
        "lbgap.measure.recorded:directions_of", Directions, lambda a: Passes(both=_climb(a.iterations), forward=a.draws + 2)
    ),
    "path": Measurement(
        "lbgap.measure.recorded:path_between", Path, lambda a: Passes(forward=a.points, forward_test=a.points), of=2
    ),
    "adaptive_sharpness": Measurement(
        "lbgap.measure.recorded:adaptive_sharpness_of", AdaptiveSharpness, lambda a: Passes(both=_climb(a.iterations))
    ),
    # a product with the Hessian takes two backward passes; Lanczos' method some thirty products
    "eigenvalues": Measurement("lbgap.measure.recorded:eigenvalues_of", Eigenvalues, lambda a: Passes(both=60.0 * a.k)),
    "m_sharpness": Measurement(
        "lbgap.measure.recorded:m_sharpness_of",
        MSharpness,
        lambda a: Passes(both=float(a.ascents), forward=1),
        examples=lambda a: a.parts and a.parts * a.m,
        on="examples",
    ),
    "noise_scale": Measurement(
        "lbgap.measure.recorded:noise_scale_of",
        NoiseScale,
        lambda a: Passes(both=1),
        examples=lambda a: a.draws * a.big if a.draws and a.estimator == "two-batch" else a.examples,
    ),
    "unigram": Measurement("lbgap.measure.recorded:unigram_of", Unigram, lambda a: Passes(), on="text"),
}


def lookup(kind: str) -> Measurement:
    """A measurement by name; ValueError names the accepted ones."""
    if kind not in MEASUREMENTS:
        raise ValueError(f"kind is '{kind}'; accepted are {', '.join(MEASUREMENTS)}")
    return MEASUREMENTS[kind]


def register(kind: str, measurement: Measurement) -> None:
    """Make a measurement known under a name.

    Raises:
        ValueError: a name that another measurement has.
    """
    if kind in MEASUREMENTS and not same_code(MEASUREMENTS[kind].arguments, measurement.arguments):
        raise ValueError(f"kind is '{kind}', which is taken; accepted is a name beside {', '.join(MEASUREMENTS)}")
    MEASUREMENTS[kind] = measurement
