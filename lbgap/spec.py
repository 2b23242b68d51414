"""What is to be done: a training run or a measurement, as an immutable, validated value with a stable key.

The key is a hash of the canonical JSON, parents included. Fields at their default are left out of that JSON, so a new field
whose default reproduces the old behaviour keeps every old key; a default, once released, is therefore never changed.
"""

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lbgap import data as datasets

# Raised by hand when the meaning of the code changes (a corrected training bug), so that old records no longer match.
SEMANTICS = {"train": 1, "sharpness": 1, "path": 1, "directions": 1}

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]  # torch's CPU generator takes 32 bits of a seed
Count = Annotated[int, Field(ge=1, strict=True)]


class _ReadOnly(dict):
    """A dictionary that stays as it was made; a key is computed from it."""

    def _refuse(self, *_, **__):
        raise TypeError("a specification cannot be changed; make another with model_copy")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self):
        return _ReadOnly, (dict(self),)


Values = Annotated[dict[str, bool | int | float | str], AfterValidator(_ReadOnly)]


class Frozen(BaseModel):
    """An immutable value; unknown names and bad values end in a ValueError of one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentence(type(self), error)) from None

    def canonical(self) -> dict[str, Any]:
        """JSON-ready values, defaults left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """The same value with some fields replaced; validated like any other, and with a key of its own."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **(update or {})})

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.key == other.key


def _sentence(cls: type, error: ValidationError) -> str:
    """The first fault in one sentence; an unknown name comes before what else is wrong."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    first = faults[0]
    *outer, last = first["loc"] or ("value",)
    name = ".".join(map(str, [*outer, last]))
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        return f"{name} is not known to {cls.__name__}; accepted are {', '.join(cls.model_fields)}"
    if first["type"] == "missing":
        return f"{name} is missing; {cls.__name__} needs it"
    wanted = first["msg"]
    for theirs, ours in (
        ("Input should be", "accepted is"),
        ("Tuple should have", "accepted is"),
        (" after validation, not 0", ""),
        ("a valid tuple", "a list"),
        ("unable to parse string as an integer", "not text"),
    ):
        wanted = wanted.replace(theirs, ours)
    if isinstance(last, int):
        return f"{'.'.join(map(str, outer))} contains {first['input']!r}; {wanted}"
    return f"{name} is {first['input']!r}; {wanted}"


class DataSpec(Frozen):
    """Which data: a set, a subset of it (None = all), the augmentation of the training inputs.

    ``subset`` is the seed that draws the ``n_train`` training examples; the ``n_validation`` after them are held out of
    both splits, so that a rate can be chosen on them.
    """

    name: str
    n_train: Count | None = None
    n_test: Count | None = None
    augment: Literal["none", "keskar", "hoffer"] = "none"
    subset: Seed = 0
    n_validation: Count | None = None

    @model_validator(mode="after")
    def _within_the_set(self):
        source = datasets.lookup(self.name)
        for field, most in (("n_train", source.n_train), ("n_test", source.n_test)):
            value = getattr(self, field)
            if value is not None and value > most:
                raise ValueError(f"{field} is {value}; {self.name} accepts 1 to {most}")
        if self.subset and self.n_train is None:
            raise ValueError(f"subset is {self.subset}; without n_train nothing is drawn, and accepted is 0")
        if self.n_validation is not None and self.n_validation > source.n_train - self.size:
            raise ValueError(
                f"n_validation is {self.n_validation}; with {self.size} training examples {self.name} accepts "
                f"{'none' if self.size == source.n_train else f'1 to {source.n_train - self.size}'}"
            )
        return self

    @property
    def size(self) -> int:
        """Number of training examples."""
        return self.n_train or datasets.lookup(self.name).n_train

    def load(self, device: str = "cpu") -> datasets.Data:
        """The tensors; what :func:`lbgap.data.load` raises."""
        selection = {"subset": self.subset, "n_validation": self.n_validation}
        return datasets.load(self.name, self.n_train, self.n_test, device, **selection)


class OptimizerSpec(Frozen):
    """Adam (Kingma & Ba 2015) or SGD; ``learning_rate`` has no default because no experiment should hide it.

    ``proximal`` > 0 is conservative training (Keskar et al. 2017, E.2): each batch minimises its mean loss plus
    ``proximal``/2 ||x - x_k||^2 with ``inner_steps`` optimizer steps from x_k. ``clip_norm`` > 0 scales a longer gradient
    down to that global norm. ``fresh_each_epoch`` throws the optimizer's state away at the end of each epoch, as the code
    of Hoffer et al. 2017 does.
    """

    name: Literal["adam", "sgd"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    proximal: NotNegative = 0.0
    inner_steps: Count = 1
    clip_norm: NotNegative = 0.0
    fresh_each_epoch: bool = False


class RobustSpec(Frozen):
    """A loss of :mod:`lbgap.robust`: its kind, the size of the change of the inputs that it looks at, and the weight of what
    it asks of them."""

    kind: Literal["adversarial", "stability"]
    size: Positive
    weight: Annotated[float, Field(gt=0, le=1)]


class Phase(Frozen):
    """What changes once ``update`` updates are done: learning rate, weight decay (None: as before)."""

    update: Count
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None


class Train(Frozen):
    """One training run.

    ``updates`` is the whole budget; an epoch is one pass over a fresh permutation, its last batch smaller where the batch
    does not divide the set (Keras ``fit``). ``evaluate_every`` (epochs) sets how dense the recorded test curve is; the end
    is always evaluated. ``seed`` decides initialisation, data order, augmentation and dropout; ``data_seed``, where it is
    given, the order of the data in its place, so that runs can share one order. ``start`` warm-starts from another run's
    weights, with a fresh optimizer. ``phases`` is the regime after the first phase, which is the optimizer's own.
    ``ghost_batch_size`` turns every batch norm into ghost batch norm. ``curve_reading`` is how batch norm is read for the
    recorded test curve; ``layers`` records the distance from the start for each parameter tensor too. ``robust`` changes the
    loss that is minimised, and recorded along training; accuracies are those of the inputs as they are.
    """

    kind: Literal["train"] = "train"
    data: DataSpec
    model: str
    options: Values = _ReadOnly()
    optimizer: OptimizerSpec
    batch_size: Count
    updates: Count
    seed: Seed
    data_seed: Seed | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: Count = 1
    start: "Weights | None" = None
    phases: tuple[Phase, ...] = ()
    ghost_batch_size: Count | None = None
    ghost_averaging: Literal["sequential", "mean"] = "sequential"
    curve_reading: Literal["batch", "running"] = "batch"
    layers: bool = False
    robust: RobustSpec | None = None
    semantics: int = 0

    def __init__(self, **values):
        super().__init__(**{"semantics": SEMANTICS["train"], **values})

    @model_validator(mode="after")
    def _phases_in_order(self):
        at = [phase.update for phase in self.phases]
        if at != sorted(set(at)):
            raise ValueError(f"phases begin at updates {', '.join(map(str, at))}; accepted are increasing ones")
        return self

    @model_validator(mode="after")
    def _ghost_within_batch(self):
        if self.ghost_batch_size is not None and self.ghost_batch_size > self.batch_size:
            raise ValueError(
                f"ghost_batch_size is {self.ghost_batch_size}; with a batch of {self.batch_size} accepted is 1 to "
                f"{self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _batch_within_data(self):
        if self.batch_size > self.data.size:
            raise ValueError(
                f"batch_size is {self.batch_size}; {self.data.name} with {self.data.size} training examples "
                f"accepts 1 to {self.data.size}"
            )
        return self

    @property
    def updates_per_epoch(self) -> int:
        """Updates in one pass over the data."""
        return math.ceil(self.data.size / self.batch_size)

    @property
    def epochs(self) -> int:
        """Passes over the data, the last one possibly cut short."""
        return math.ceil(self.updates / self.updates_per_epoch)

    @property
    def run(self) -> Self:
        """The training run that a job is about: this one."""
        return self

    @property
    def parents(self) -> tuple["Weights", ...]:
        """The weights this run needs before it can begin."""
        return (self.start,) if self.start else ()

    def at(self, epoch: int | None = None) -> "Weights":
        """This run's weights after ``epoch`` epochs (None: at the end; 0: at the start)."""
        return Weights(run=self, epoch=self.epochs if epoch is None else epoch)


class Weights(Frozen):
    """The weights of one run after an epoch."""

    run: Train
    epoch: Annotated[int, Field(ge=0, strict=True)]

    @model_validator(mode="after")
    def _within_the_run(self):
        if self.epoch > self.run.epochs:
            raise ValueError(f"epoch is {self.epoch}; this run accepts 0 to {self.run.epochs}")
        return self


class Measure(Frozen):
    """One measurement on the weights of one or more runs; ``kind`` is a name in ``lbgap.jobs.MEASURES``."""

    kind: Literal["sharpness", "path", "directions"]
    arguments: Values = _ReadOnly()
    of: tuple[Weights, ...] = Field(min_length=1)
    semantics: int = 0

    def __init__(self, **values):
        super().__init__(**{"semantics": SEMANTICS.get(values.get("kind"), 1), **values})

    @property
    def run(self) -> Train:
        """The training run that a job is about: the first whose weights are measured."""
        return self.of[0].run

    @property
    def parents(self) -> tuple[Weights, ...]:
        """The weights this measurement needs."""
        return self.of


Train.model_rebuild()
Job = Train | Measure


def job_from_json(values: dict[str, Any]) -> Job:
    """The job whose canonical JSON is ``values``; ValueError where it is none."""
    return Train(**values) if values.get("kind", "train") == "train" else Measure(**values)
