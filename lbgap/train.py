"""One training run: from initial weights to curves, with the weights of chosen epochs handed out, in pieces if need be."""

import functools
import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap import augment, ghost, gradient, models, robust, schedule
from lbgap.data import Data, Split, load
from lbgap.evaluate import chunk_of, loss_and_metric
from lbgap.optimizers import decays_of, optimizer
from lbgap.pauses import Pause, Shared, Stopped
from lbgap.pictures import Pictures
from lbgap.sources import lookup
from lbgap.spec import Train
from lbgap.tasks import task_of
from lbgap.workers import Workers, WorkersLost, present

# Updates at which the batch loss is recorded, so that a run can be checked by repeating its beginning.
CHECKPOINTS = (1, 10, 50)
State = dict[str, Tensor]
Read = Callable[[str, str], tuple[float, float]]  # split, batch-norm reading -> loss, metric


def nothing(spec: Train) -> dict:
    """What a run that could not begin leaves: it was to start from weights of a run that diverged."""
    return {
        "diverged": True,
        "updates": 0,
        "loss_at": {},
        "curve": {name: [] for name in curve_names(spec)},
        "final": {},
        "distance": {"update": [], "value": []},
    }


def curve_names(spec: Train) -> tuple[str, ...]:
    """The columns of a run's curve, the metric by its task's name."""
    metric = task_of(spec.data.name).metric
    names = ("epoch", "update", "train_loss", f"train_{metric}", "test_loss", f"test_{metric}")
    return names + ((f"validation_{metric}",) if spec.data.n_validation else ())


def fit(
    spec: Train,
    device: str = "cpu",
    start: State | None = None,
    keep: Collection[int] = (),
    on_weights: Callable[[int, State], None] | None = None,
    stop_after: int | None = None,
    losses_only: bool = False,
    pause: Pause | None = None,
    teacher: State | None = None,
) -> dict:
    """Train ``spec`` and return what is recorded of it.

    A run in slices is divided among the workers that there are (:func:`divided`); the first calls this, the others
    :func:`follow`, and it is the first that evaluates, hands out and returns.

    Args:
        start: weights and buffers of ``spec.start``; required exactly when the spec has one.
        keep: epochs whose weights (and the final ones) are handed to ``on_weights(epoch, state)``; 0 is the start.
        losses_only: evaluate nothing and return only ``loss_at`` (where the weights, or the beginning, are all one wants).
        stop_after: end after so many updates, with the losses only; the weights of an epoch that ends there are handed out.
        pause: where to go on from, and to save to; the record is that of an undisturbed run.
        teacher: weights and buffers of ``spec.teacher``; as ``start``.
    Returns:
        ``diverged``; ``loss_at`` {update: batch loss}; ``curve`` per evaluated epoch (train loss and metric are running
        means over the epoch's batches, test is read as ``spec.curve_reading`` says); ``final`` loss and metric on every
        split in both batch-norm readings; ``distance`` ||x_t - x_0|| at log-spaced updates, with ``spec.layers`` for each
        parameter tensor by name as well; ``parameters``.

    Raises:
        Stopped: ``pause`` put the run down.
        WorkersLost: one of the workers failed, or is gone.
    """
    for name, given, weights in (("start", start, "starting weights"), ("teacher", teacher, "weights of a teacher")):
        if (given is None) != (getattr(spec, name) is None):
            said = ("None", "needs") if given is None else ("given", "has no")
            raise ValueError(f"{name} is {said[0]}; this spec {said[1]} {weights}")
    data = load_data(spec, device)
    if teacher is not None:
        data = relabelled(data, spec, teacher)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(spec.seed)  # initialisation and dropout
        model = initial_model(spec, data).to(device)
        if start is not None:
            model.load_state_dict(start)
        training = Training(spec, model, data, device, losses_only or stop_after is not None)
        if (crew := training.workers) is None:
            return training.fit(set(keep), on_weights, stop_after, pause)
        if crew.first:
            crew.told({"spec": spec, "start": start, "teacher": teacher, "stop_after": stop_after})
        try:
            return training.fit(set(keep), on_weights, stop_after, Shared(pause, crew))
        except (Stopped, WorkersLost):
            raise
        except Exception as error:  # the others have no part in it, and would wait for ever
            raise WorkersLost(f"run {spec.key} failed in one of {crew.size} workers: {error}") from error


def follow(crew: Workers, device: str = "cpu") -> None:
    """Take part in every run that the first worker begins, until it lets this one go. Nothing is evaluated or written here."""
    while call := crew.told():
        with suppress(Stopped):
            fit(**call, device=device, losses_only=True)


def divided(spec: Train) -> Workers | None:
    """The workers that a run is divided among, by its slices; None for one that the first worker does alone.

    Alone is done what reads batch norm's running averages in training (SAM's inference mode): they are those of the first
    slice, which the others do not see.
    """
    reads_averages = spec.sam is not None and spec.sam.inference_mode != "none"
    return present() if spec.slice_size and spec.slice_size < spec.batch_size and not reads_averages else None


def load_data(spec: Train, device: str = "cpu") -> Data:
    """The data of a run; what :func:`lbgap.data.load` raises."""
    of = spec.data
    more = {"subset": of.subset, "n_validation": of.n_validation, "label_noise": of.label_noise}
    return load(of.name, of.n_train, of.n_test, device, **more)


@torch.no_grad()
def relabelled(data: Data, spec: Train, teacher: State) -> Data:
    """The data with the training labels that the network of ``spec.teacher`` predicts, batch norm on its running averages."""
    x = data.train.x
    with torch.random.fork_rng(devices=[]):
        model = initial_model(spec.teacher.run, data)
    model.load_state_dict(teacher)
    model.eval().to(x.device)
    y = torch.cat([model(part[:]).argmax(1) for part in x.split(chunk_of(x))])
    return replace(data, train=Split(x, y))


def initial_model(spec: Train, data: Data) -> nn.Module:
    """The network of a spec, built with the global generator as it stands."""
    model = models.build(spec.model, lookup(spec.data.name).shape, data.n_classes, **spec.options)
    return model if spec.ghost_batch_size is None else ghost.convert(model, spec.ghost_batch_size, spec.ghost_averaging)


def data_order(spec: Train) -> torch.Generator:
    """The generator of a run's permutations, as it begins."""
    return torch.Generator().manual_seed(_stream(spec.seed, "order") if spec.data_seed is None else spec.data_seed)


class Recorder:
    """What is recorded of one run along its way, whoever trains it: losses, distances, the curve, how it ends."""

    def __init__(self, spec: Train, names: Collection[str]):
        self.spec, self.task = spec, task_of(spec.data.name)
        self.distances_at = set(np.unique(np.geomspace(1, spec.updates, 40).round().astype(int)).tolist())
        self.updates, self.diverged = 0, False
        self.loss_at: dict[str, float] = {}
        self.distance: dict[str, Any] = {"update": [], "value": []}
        if spec.layers:
            self.distance["layers"] = {name: [] for name in names}
        self.curve: dict[str, list] = {name: [] for name in curve_names(spec)}

    def moved(self, update: int, distances: Mapping[str, float]) -> None:
        """The distance of each parameter tensor from its start, after an update."""
        self.distance["update"].append(update)
        self.distance["value"].append(math.hypot(*distances.values()))
        if self.spec.layers:
            for name, value in distances.items():
                self.distance["layers"][name].append(value)

    def evaluated(self, epoch: int) -> bool:
        """Whether the end of an epoch is a point of the curve."""
        return epoch % self.spec.evaluate_every == 0 or epoch == self.spec.epochs

    def end_epoch(self, epoch: int, update: int, loss: float, score: float, finite: bool, read: Read | None) -> None:
        """Divergence and the point of the curve, from the epoch's mean ``loss`` and ``score`` and the weights that it left.

        Args:
            finite: whether every weight is.
            read: loss and metric of the network as it stands on a split, in a reading (None: this epoch is no point).
        """
        self.updates = update
        # losses are taken before their updates: what the last one left shows in the weights, or in the test loss
        self.diverged = not (np.isfinite(loss) and finite)
        if self.diverged or read is None:
            return
        test_loss, test_metric = read("test", self.spec.curve_reading)
        self.diverged = not np.isfinite(test_loss)
        if self.diverged:
            return
        point = [epoch, update, loss, self.task.metric_of(loss, score), test_loss, test_metric]
        if self.spec.data.n_validation:
            point.append(read("validation", self.spec.curve_reading)[1])
        for name, value in zip(self.curve, point, strict=True):
            self.curve[name].append(value)

    def results(self, read: Read, parameters: int, data: Data) -> dict:
        """What is recorded of a run that has ended."""
        names = ("loss", self.task.metric)
        final = {
            split: {reading: dict(zip(names, read(split, reading), strict=True)) for reading in ("batch", "running")}
            for split in (() if self.diverged else data.splits)
        }
        return {
            "diverged": self.diverged,
            "updates": self.updates,
            "loss_at": self.loss_at,
            "curve": self.curve,
            "final": final,
            "distance": self.distance,
            "parameters": parameters,
            "checksum": data.checksum,
        }

    def state(self) -> dict[str, Any]:
        """What was recorded so far, as plain values."""
        return {name: getattr(self, name) for name in ("updates", "diverged", "loss_at", "distance", "curve")}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        for name, value in state.items():
            setattr(self, name, value)


class Training:
    """A run in pieces: what it is made of, where it stands, and what it has recorded.

    The place is the epoch, the updates made in it, and the updates made in all; :meth:`state` and :meth:`restore` put a run
    down and take it up after any update.
    """

    def __init__(self, spec: Train, model: nn.Module, data: Data, device: str, losses_only: bool = False):
        refuse_a_single_example(spec, model, data)
        self.spec, self.model, self.data, self.device, self.losses_only = spec, model, data, device, losses_only
        self.task, self.workers = task_of(spec.data.name), divided(spec)
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.origin = [p.detach().clone() for p in self.parameters]
        self.optimizer = optimizer(spec.optimizer, model)
        self.layout = models.memory_format(model)
        model.to(memory_format=self.layout)
        self.transform = augment.AUGMENTATIONS.get(spec.data.augment)
        self.order = data_order(spec)
        self.noise = torch.Generator(device).manual_seed(_stream(spec.seed, "augment"))
        self.recorder = Recorder(spec, self.names)
        self.epoch = self.within_epoch = self.update = 0
        self._begin_epoch()

    # ------------------------------------------------------------ the loop

    def fit(
        self, keep: set[int], on_weights: Callable[[int, State], None] | None, stop_after: int | None, pause: Pause | None
    ) -> dict:
        """From where the run stands to its end, or to ``stop_after`` updates."""

        def hand_out() -> None:
            if on_weights and self.epoch in keep | {self.spec.epochs}:
                on_weights(self.epoch, weights_of(self.model))

        if pause and (saved := pause.load()):
            self.restore(saved)
        elif self.epoch == 0:
            hand_out()
        budget = self.spec.updates
        last = budget if stop_after is None else min(stop_after, budget)
        while self.epoch < self.spec.epochs and not self.recorder.diverged and (self.update < last or self.within_epoch):
            items = self._items()
            for item in items[self.within_epoch :]:
                if self.update == last:
                    break
                self.advance(item)
                if pause and pause.due():
                    pause.save(self.state())
            if self.within_epoch < len(items) and self.update < budget:  # stopped within the epoch
                break
            self._end_epoch()
            if not self.recorder.diverged:
                hand_out()
        return {"loss_at": self.recorder.loss_at} if self.losses_only else self.results()

    def _items(self) -> list:
        """The batches of this epoch; the generator is left as the epoch found it, for :meth:`state`."""
        generator = torch.Generator()
        generator.set_state(self.order.get_state())
        each = self.spec.slice_size if self.spec.shuffling == "each slice" else None
        items = self.task.epoch(self.data.train, self.spec.batch_size, generator, each)
        self.order_after = generator.get_state()
        return items

    def _begin_epoch(self) -> None:
        self.loss_sum = torch.zeros((), device=self.device, dtype=torch.float64)
        self.score_sum: Tensor | float = 0.0
        self.seen = self.within_epoch = 0
        self.carry = None

    def advance(self, item: Any) -> None:
        """One update."""
        self.model.train()
        self._set_schedule()
        self.update += 1
        self.within_epoch += 1
        x, y = self._batch(item)
        loss, score = self._step(x, y)
        n = self.task.count(y)
        self.loss_sum += loss.double() * n
        self.score_sum, self.seen = self.score_sum + score, self.seen + n
        if self.update in CHECKPOINTS:
            self.recorder.loss_at[str(self.update)] = float(loss)
        if self.update in self.recorder.distances_at and not self.losses_only:
            moved = (_distance(p, o) for p, o in zip(self.parameters, self.origin, strict=True))
            self.recorder.moved(self.update, dict(zip(self.names, moved, strict=True)))

    def _batch(self, item: Any) -> tuple[Tensor | Pictures, Tensor]:
        """Inputs, augmented, and targets; pictures stay on disk until their slice is computed, where that can be."""
        of = self.data.train
        if isinstance(of.x, Pictures):
            x, y = of.x.chosen(item), of.y[item]
        else:
            x, y = self.task.batch(of, item, self.spec.batch_size)
        if self.transform:
            x = self.transform(x, self.noise)
        if self.layout == torch.channels_last and isinstance(x, Tensor):
            x = x.contiguous(memory_format=self.layout)
        return x, y

    def _set_schedule(self) -> None:
        rate, decay = schedule.of(self.spec, self.update)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = rate, 0.0 if group.get("exempt") else decay

    def _step(self, x: Tensor | Pictures, y: Tensor) -> tuple[Tensor, Tensor]:
        """One update; returns the batch loss before it and its summed score."""
        of, first = self.spec.optimizer, None
        anchor = [p.detach().clone() for p in self.parameters] if of.proximal else None
        decays = decays_of(self.optimizer, self.parameters) if self.spec.sam and self.spec.sam.decay_ascends else None
        for _ in range(of.inner_steps):
            found = gradient.fill(
                self.model,
                self.parameters,
                self._loss,
                x,
                y,
                self.spec.slice_size,
                self.spec.sam,
                self.workers,
                self._before_slice,
                self.spec.normalised_by,
                decays,
            )
            if of.loss_scale != 1.0:
                torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], of.loss_scale)
            if anchor:  # gradient of proximal/2 ||x - x_k||^2
                for p, a in zip(self.parameters, anchor, strict=True):
                    p.grad.add_(p.detach() - a, alpha=of.proximal)
            if of.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, of.clip_norm)
            self.optimizer.step()
            first = first or found
        return first

    def _before_slice(self, number: int) -> None:
        """Dropout of a slice follows its place in the run, whichever process computes it."""
        torch.manual_seed(_stream(self.spec.seed, f"slice {number} of update {self.update}"))

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What an update lowers, and the summed score."""

        def network(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16"):
                outputs, self.carry = self.task.predict(self.model, x, self.carry)
            return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

        asked = self.spec.robust
        if asked is None:
            outputs = network(x)
            loss = self.task.loss(outputs, y)
        elif asked.kind == "adversarial":
            loss, outputs = robust.adversarial(network, x, y, asked.size, asked.weight)
        else:
            loss, outputs = robust.stability(network, x, y, asked.size, asked.weight, self.noise)
        return loss, self.task.score(outputs.detach(), y)

    # ------------------------------------------------------------ what is recorded

    def _end_epoch(self) -> None:
        """Close the epoch: the optimizer's state, divergence, the point of the curve."""
        self.order.set_state(self.order_after)
        self.epoch += 1
        if self.spec.optimizer.fresh_each_epoch:
            self.optimizer.state.clear()
        loss, score = float(self.loss_sum) / self.seen, float(self.score_sum) / self.seen
        finite = all(bool(p.isfinite().all()) for p in self.parameters)
        read = self._read if not self.losses_only and self.recorder.evaluated(self.epoch) else None
        self.recorder.end_epoch(self.epoch, self.update, loss, score, finite, read)
        if read and self.noise.device.type == "cuda":  # it took many times what an update does, which is for other workers too
            torch.cuda.empty_cache()
        if self.workers:
            self.recorder.diverged = self.workers.agreed(self.recorder.diverged)
        self._begin_epoch()

    def _read(self, split: str, reading: str) -> tuple[float, float]:
        part = self.data.splits[split]
        return loss_and_metric(self.model, part.x, part.y, reading, task=self.task)

    def results(self) -> dict:
        """What is recorded of a run that has ended."""
        read: Read = self._read
        if not any(isinstance(m, _BatchNorm) for m in self.model.modules()):  # one reading is the other
            once = functools.cache(lambda split: self._read(split, "running"))
            read = lambda split, _: once(split)  # noqa: E731
        return self.recorder.results(read, models.count_parameters(self.model), self.data)

    # ------------------------------------------------------------ putting down, taking up

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {
                "order": self.order.get_state(),
                "noise": self.noise.get_state(),
                "cpu": torch.get_rng_state(),
                **({"cuda": torch.cuda.get_rng_state(self.device)} if self.noise.device.type == "cuda" else {}),
            },
            "place": {name: getattr(self, name) for name in _PLACE},
            "recorded": self.recorder.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        generators = state["generators"]
        self.order.set_state(generators["order"])
        self.noise.set_state(generators["noise"])
        torch.set_rng_state(generators["cpu"])
        if "cuda" in generators:
            torch.cuda.set_rng_state(generators["cuda"], self.device)
        for name in _PLACE:
            setattr(self, name, _on(self.device, state["place"][name]))
        self.recorder.restore(state["recorded"])


# where a run stands, within the epoch too
_PLACE = ("epoch", "within_epoch", "update", "loss_sum", "score_sum", "seen", "carry")


def _on(device: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_on(device, part) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def weights_of(model: nn.Module) -> State:
    """A copy of a network's weights and buffers, on the CPU, in the plain order of memory."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()}


def refuse_a_single_example(spec: Train, model: nn.Module, data: Data) -> None:
    """Batch norm has no statistics of one example: better said before a run than after its last update."""
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    sizes = {name: len(part) for name, part in data.splits.items()}
    train, batch = sizes["train"], spec.batch_size
    lasts = [("batch_size", batch, train % batch or batch, f"with {train} training examples the last batch")]
    if spec.slice_size is not None:
        for of in {batch, train % batch or batch}:
            last = of % spec.slice_size or spec.slice_size
            lasts.append(("slice_size", spec.slice_size, last, f"of a batch of {of} the last slice"))
    for split, name in (("train", "n_train"), ("test", "n_test"), ("validation", "n_validation")):
        n = sizes.get(split, 0)
        chunk = chunk_of(data.test.x)
        lasts.append((name, n, n % chunk, f"read in chunks of {chunk} the last"))
    for name, value, last, where in lasts:
        if last == 1:
            raise ValueError(
                f"{name} is {value}; {where} has 1, of which batch norm has no statistics; "
                "accepted is one that leaves 0 or at least 2"
            )


def _stream(seed: int, use: str) -> int:
    """A generator seed for one use of a run's seed, so that data order, augmentation and initialisation are independent."""
    # 32 bits, because torch's CPU generator takes the lower 32 of a seed alone
    return int.from_bytes(hashlib.sha256(f"{use} {seed}".encode()).digest()[:4], "big")


def _distance(parameter: Tensor, origin: Tensor) -> float:
    return float((parameter.detach() - origin).double().square().sum().sqrt())
