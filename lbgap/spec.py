"""What is to be done: a training run or a measurement, as an immutable, validated value with a stable key, parents included."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lbgap import measurements, sources
from lbgap.networks import NETWORKS
from lbgap.values import Count, Frozen, NotNegative, Positive, ReadOnly, Seed, Values

# Raised by hand when the meaning of training changes (a corrected bug), so that old records no longer match; a measure has
# its own in lbgap.measurements.
SEMANTICS = 1


class DataSpec(Frozen):
    """Which data: a set, a subset of it (None = all), the augmentation of the training inputs.

    ``subset`` is the seed that draws the ``n_train`` training examples; the ``n_validation`` after them are held out of
    both splits, so that a rate can be chosen on them. ``label_noise`` is the share of the training labels that are drawn anew,
    each from all classes (symmetric noise); held-out and test labels stay.
    """

    name: str
    n_train: Count | None = None
    n_test: Count | None = None
    augment: Literal["none", "keskar", "hoffer", "cutout", "goyal"] = "none"
    subset: Seed = 0
    n_validation: Count | None = None
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _within_the_set(self):
        source = sources.lookup(self.name)
        for field, most in (("n_train", source.n_train), ("n_test", source.n_test)):
            value = getattr(self, field)
            if value is not None and value > most:
                raise ValueError(f"{field} is {value}; {self.name} accepts 1 to {most}")
            if value == 1 and self.is_text:
                raise ValueError(
                    f"{field} is 1; {self.name} accepts 2 to {most}, since a word is predicted from the one before"
                )
        if self.n_validation == 1 and self.is_text:
            raise ValueError(f"n_validation is 1; {self.name} accepts 2 or more, since a word is predicted from the one before")
        if self.subset and (self.n_train is None or self.is_text):
            why = "of a text" if self.is_text else "without n_train"
            raise ValueError(f"subset is {self.subset}; {why} nothing is drawn, and accepted is 0")
        if self.augment != "none" and source.task != "classify":
            raise ValueError(f"augment is '{self.augment}'; {self.name} accepts none, since its targets are no labels")
        if self.augment == "goyal" and not source.on_disk:
            raise ValueError(
                f"augment is 'goyal'; {self.name} accepts none, keskar, hoffer, cutout, since its pictures are small"
            )
        if self.label_noise and source.task != "classify":
            raise ValueError(f"label_noise is {self.label_noise:g}; {self.name} accepts 0, since its targets are no labels")
        if self.n_validation is not None and self.n_validation > source.n_train - self.size:
            raise ValueError(
                f"n_validation is {self.n_validation}; with {self.size} training examples {self.name} accepts "
                f"{'none' if self.size == source.n_train else f'1 to {source.n_train - self.size}'}"
            )
        return self

    @property
    def size(self) -> int:
        """Number of training examples."""
        return self.n_train or sources.lookup(self.name).n_train

    @property
    def is_text(self) -> bool:
        """Whether an example is a token of a text, whose order counts."""
        return sources.lookup(self.name).task == "predict_next"

    def updates_per_epoch(self, batch_size: int) -> int:
        """Updates in one pass over the data; of a text, one for each segment of ``batch_size`` streams."""
        if self.is_text:
            return math.ceil((self.size // batch_size - 1) / sources.SEGMENT)
        return math.ceil(self.size / batch_size)


class OptimizerSpec(Frozen):
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) or SGD, with Nesterov's momentum where ``nesterov`` says so.

    ``learning_rate`` has no default because no experiment should hide it. ``decay_exempt`` leaves the scales and shifts of
    normalisation layers, or these and every bias, out of weight decay (Goyal et al. 2017, section 5.1).

    ``proximal`` > 0 is conservative training (Keskar et al. 2017, E.2): each batch minimises its mean loss plus
    ``proximal``/2 ||x - x_k||^2 with ``inner_steps`` optimizer steps from x_k. ``clip_norm`` > 0 scales a longer gradient
    down to that global norm. ``fresh_each_epoch`` throws the optimizer's state away at the end of each epoch, as the code
    of Hoffer et al. 2017 does.

    Two values are there for what they cost (Goyal et al. 2017, section 3, remarks 1 and 2): ``loss_scale`` multiplies the loss
    in place of the rate, so that weight decay keeps its size; ``momentum_buffer`` "steps" has v = m v + eta g, w = w - v in
    place of u = m u + g, w = w - eta u, and "corrected steps" multiplies v by eta_new / eta_old when the rate changes.
    """

    name: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 0.0
    proximal: NotNegative = 0.0
    inner_steps: Count = 1
    clip_norm: NotNegative = 0.0
    fresh_each_epoch: bool = False
    nesterov: bool = False
    decay_exempt: Literal["none", "norms", "norms and biases"] = "none"
    loss_scale: Positive = 1.0
    momentum_buffer: Literal["gradients", "steps", "corrected steps"] = "gradients"

    @model_validator(mode="after")
    def _every_field_does_something(self):
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum is {self.momentum}; {self.name} has its own, and accepts 0")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True; accepted is sgd with a momentum above 0")
        if self.momentum_buffer != "gradients" and not self.momentum:
            raise ValueError(f"momentum_buffer is '{self.momentum_buffer}'; accepted is sgd with a momentum above 0")
        if self.loss_scale != 1.0 and self.name != "sgd":
            raise ValueError(f"loss_scale is {self.loss_scale:g}; {self.name} divides it out again, and accepts 1")
        if self.proximal and self.inner_steps == 1:
            raise ValueError(
                f"inner_steps is 1; with proximal {self.proximal:g} accepted is 2 or more, since the first step starts at x_k"
            )
        return self


class SamSpec(Frozen):
    """Sharpness-aware minimization (Foret et al. 2021): the gradient is taken at w + e(w), ``rho`` away from w.

    ``norm``: of the ball, 2 or infinity. ``adaptive``: ASAM's ball, stretched by |w| (Kwon et al. 2021). ``ascents``: gradient
    steps by which e(w) is found. ``averages``: whether batch norm's running averages take up the statistics of the first
    pass, at w (as in the authors' code), or those of the last, at w + e(w). ``inference_mode`` runs the network as in
    evaluation, dropout off and batch norm on its running averages, in "none" of the passes, the "ascent" ones, or "both". A
    pass in evaluation moves no running average: with "ascent" the last one must, and with "both" they stay where they began.
    ``decay_ascends``: e(w) is made of the gradient with weight decay in it, as where the decay is part of the loss.

    With ``Train.slice_size`` m each slice of m examples has its own e(w): m-sharpness.
    """

    rho: NotNegative
    norm: Literal["2", "inf"] = "2"
    adaptive: bool = False
    ascents: Count = 1
    averages: Literal["first", "last"] = "first"
    inference_mode: Literal["none", "ascent", "both"] = "none"
    decay_ascends: bool = False

    @model_validator(mode="after")
    def _averages_of_a_pass_that_moves_them(self) -> "SamSpec":
        accepted = {"ascent": "last", "both": "first"}.get(self.inference_mode, self.averages)
        if self.averages != accepted:
            raise ValueError(
                f"averages is '{self.averages}'; with inference_mode '{self.inference_mode}', in which that pass moves no "
                f"running average, accepted is '{accepted}'"
            )
        return self


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


class Warmup(Frozen):
    """The first ``updates`` updates: the rate grows in equal steps from ``start`` times the rate to the rate."""

    updates: Count
    start: Annotated[float, Field(ge=0, lt=1)]


class Train(Frozen):
    """One training run.

    ``updates`` is the whole budget; an epoch is one pass over a fresh permutation, its last batch smaller where the batch
    does not divide the set (Keras ``fit``). ``evaluate_every`` (epochs) sets how dense the recorded test curve is; the end is
    always evaluated. ``seed`` decides initialisation, data order, augmentation and dropout; ``data_seed``, where it is given,
    the order of the data in its place, so that runs can share one order. ``start`` warm-starts from another run's weights,
    with a fresh optimizer. Given a ``teacher``, the labels to train on are those that its network predicts of the training
    images (bootstrapping; Foret et al. 2021, section 3.3). ``phases`` is the regime after the first phase, which is the
    optimizer's own; ``warmup`` and ``annealing`` multiply what it says (:mod:`lbgap.schedule`). ``slice_size`` n has the
    gradient accumulated over slices of n examples, each with batch-norm statistics of its own, as that many workers would;
    ``sam`` takes it at a worse point. Two mistakes of such workers can be made on purpose (Goyal et al. 2017, section 3,
    remarks 3 and 4): ``normalised_by`` "slice" adds the means of the slices, where the mean over the batch is meant; with
    ``shuffling`` "each slice" every worker shuffles the whole set on its own, where one shuffle is divided among them.
    ``ghost_batch_size`` turns every batch norm into ghost batch norm. ``curve_reading`` is how batch norm is read for the
    recorded test curve; ``layers`` records the distance from the start for each parameter tensor too. ``robust`` changes the
    loss that is minimised, and recorded along training; accuracies are those of the inputs as they are.
    """

    kind: Literal["train"] = "train"
    data: DataSpec
    model: str
    options: Values = ReadOnly()
    optimizer: OptimizerSpec
    batch_size: Count
    updates: Count
    seed: Seed
    data_seed: Seed | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    evaluate_every: Count = 1
    start: "Weights | None" = None
    teacher: "Weights | None" = None
    phases: tuple[Phase, ...] = ()
    ghost_batch_size: Count | None = None
    ghost_averaging: Literal["sequential", "mean"] = "sequential"
    curve_reading: Literal["batch", "running"] = "batch"
    layers: bool = False
    robust: RobustSpec | None = None
    warmup: Warmup | None = None
    annealing: Literal["none", "cosine"] = "none"
    slice_size: Count | None = None
    sam: SamSpec | None = None
    normalised_by: Literal["batch", "slice"] = "batch"
    shuffling: Literal["once", "each slice"] = "once"
    semantics: int = 0

    def __init__(self, **values):
        super().__init__(**{"semantics": SEMANTICS, **values})

    @model_validator(mode="after")
    def _known_network(self):
        if self.model not in NETWORKS:
            raise ValueError(f"model is '{self.model}'; accepted are {', '.join(NETWORKS)}")
        return self

    @model_validator(mode="after")
    def _start_of_the_same_network(self):
        if self.start and (other := _other_network(self, self.start.run)):
            raise ValueError(f"start is of a run whose {other[0]} is {other[1]}; accepted is one of {other[2]}")
        return self

    @model_validator(mode="after")
    def _teacher_of_the_same_labels(self):
        if self.teacher and (of := self.teacher.run.data.name) != self.data.name:
            raise ValueError(f"teacher was trained on {of}; accepted is one trained on {self.data.name}")
        if self.teacher and sources.lookup(self.data.name).task != "classify":
            raise ValueError(f"teacher is given; {self.data.name} accepts none, since its targets are no labels")
        return self

    @model_validator(mode="after")
    def _slices_within_batch(self):
        if self.slice_size is not None and (self.slice_size > self.batch_size or self.ghost_batch_size or self.robust):
            beside = "ghost_batch_size" if self.ghost_batch_size else "robust" if self.robust else None
            wanted = f"none beside {beside}" if beside else f"1 to the batch's {self.batch_size}"
            raise ValueError(f"slice_size is {self.slice_size}; accepted is {wanted}")
        for field, plain in (("normalised_by", "batch"), ("shuffling", "once")):
            value, one = getattr(self, field), self.slice_size in (None, self.batch_size)
            if value != plain and one:
                raise ValueError(f"{field} is '{value}'; without a slice_size below the batch's accepted is '{plain}'")
        if self.data.is_text and (self.slice_size or self.sam or self.optimizer.inner_steps > 1):
            field = "slice_size" if self.slice_size else "sam" if self.sam else "inner_steps"
            raise ValueError(f"{field} is {getattr(self, field, self.optimizer.inner_steps)}; on a text accepted is none")
        if self.sam and self.robust:
            raise ValueError("sam is given; beside robust accepted is none")
        if self.robust and sources.lookup(self.data.name).task != "classify":
            raise ValueError(f"robust is {self.robust.kind}; {self.data.name} accepts none, since its targets are no labels")
        return self

    @model_validator(mode="after")
    def _warmup_within_the_budget(self):
        if self.warmup and self.warmup.updates > self.updates:
            raise ValueError(f"warmup.updates is {self.warmup.updates}; accepted is 1 to the budget's {self.updates}")
        return self

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
        most = self.data.size // 2 if self.data.is_text else self.data.size  # a stream predicts from its second token on
        if self.batch_size > most:
            raise ValueError(
                f"batch_size is {self.batch_size}; {self.data.name} with {self.data.size} training examples accepts 1 to {most}"
            )
        return self

    @property
    def updates_per_epoch(self) -> int:
        """Updates in one pass over the data."""
        return self.data.updates_per_epoch(self.batch_size)

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
        return tuple(weights for weights in (self.start, self.teacher) if weights)

    @property
    def mistakes(self) -> tuple[str, ...]:
        """What this run does wrong on purpose, in a reader's words (Goyal et al. 2017, section 3)."""
        of, workers = self.optimizer, math.ceil(self.batch_size / (self.slice_size or self.batch_size))
        said = {
            f"the loss times {of.loss_scale:g} in place of the rate": of.loss_scale != 1.0,
            "momentum of steps, not corrected when the rate changes": of.momentum_buffer == "steps",
            f"each of {workers} workers divides its gradient by its own {self.slice_size}": self.normalised_by == "slice",
            f"each of {workers} workers shuffles on its own": self.shuffling == "each slice",
        }
        return tuple(words for words, made in said.items() if made)

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
    """One measurement on the weights of one or more runs; ``kind`` is a name in :data:`lbgap.measurements.MEASUREMENTS`."""

    kind: str
    arguments: Values = ReadOnly()
    of: tuple[Weights, ...] = Field(min_length=1)
    semantics: int = 0

    def __init__(self, **values):
        known = measurements.MEASUREMENTS.get(values.get("kind"))
        super().__init__(**{"semantics": known.semantics if known else 1, **values})

    @model_validator(mode="after")
    def _known_with_its_arguments(self):
        if any(weights.run.teacher for weights in self.of):
            raise ValueError(
                "of has a run that a teacher labelled; accepted are others, since measures read the data's own labels"
            )
        for weights in self.of[1:]:
            other = _other_network(self.run, weights.run)
            if not other and weights.run.data.name != self.run.data.name:
                other = "data", weights.run.data.name, self.run.data.name
            if other:
                raise ValueError(f"of has a run whose {other[0]} is {other[1]}; beside the first accepted is {other[2]}")
        measurements.lookup(self.kind).check(self.kind, self.arguments, len(self.of), self.run.data.size, self.run.data.is_text)
        return self

    @property
    def run(self) -> Train:
        """The training run that a job is about: the first whose weights are measured."""
        return self.of[0].run

    @property
    def parents(self) -> tuple[Weights, ...]:
        """The weights this measurement needs."""
        return self.of


def _other_network(run: Train, other: Train) -> tuple[str, Any, Any] | None:
    """What sets a run's network apart from another's, that one's and its own; None where weights can be exchanged."""
    for field in ("model", "options"):
        theirs, ours = getattr(other, field), getattr(run, field)
        if theirs != ours:
            return field, theirs, ours
    return None


Train.model_rebuild()
Job = Train | Measure


def job_from_json(values: dict[str, Any]) -> Job:
    """The job whose canonical JSON is ``values``; ValueError where it is none."""
    return Train(**values) if values.get("kind", "train") == "train" else Measure(**values)
