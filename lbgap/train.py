"""One training run: a flat loop from initial weights to curves, with the weights of chosen epochs handed out."""

import hashlib
import math
from collections.abc import Callable, Collection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap import augment, ghost, models, robust, schedule
from lbgap.data import Data
from lbgap.evaluate import CHUNK, loss_and_accuracy
from lbgap.spec import OptimizerSpec, Train

# Updates at which the batch loss is recorded, so that a run can be checked by repeating its beginning.
CHECKPOINTS = (1, 10, 50)
State = dict[str, Tensor]
CURVE = ("epoch", "update", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
# What a run that could not begin leaves: it was to start from weights of a run that diverged.
NOTHING = {
    "diverged": True,
    "updates": 0,
    "loss_at": {},
    "curve": {name: [] for name in CURVE},
    "final": {},
    "distance": {"update": [], "value": []},
}


def run(
    spec: Train,
    device: str = "cpu",
    start: State | None = None,
    keep: Collection[int] = (),
    on_weights: Callable[[int, State], None] | None = None,
    stop_after: int | None = None,
    losses_only: bool = False,
) -> dict:
    """Train ``spec`` and return what is recorded of it.

    Args:
        start: weights and buffers of ``spec.start``; required exactly when the spec has one.
        keep: epochs whose weights (and the final ones) are handed to ``on_weights(epoch, state)``; 0 is the start.
        losses_only: evaluate nothing and return only ``loss_at`` (where the weights, or the beginning, are all one wants).
        stop_after: end after so many updates, with the losses only.
    Returns:
        ``diverged``; ``loss_at`` {update: batch loss}; ``curve`` per evaluated epoch (train loss and accuracy are running
        means over the epoch's batches, test is read as ``spec.curve_reading`` says); ``final`` loss and accuracy on both
        splits in both batch-norm readings; ``distance`` ||x_t - x_0|| at log-spaced updates, with ``spec.layers`` for each
        parameter tensor by name as well; ``parameters``.
    """
    if (start is None) != (spec.start is None):
        raise ValueError(
            f"start is {'None' if start is None else 'given'}; this spec {'needs' if spec.start else 'has no'} starting weights"
        )
    data = spec.data.load(device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(spec.seed)  # initialisation and dropout
        model = initial_model(spec, data).to(device)
        if start is not None:
            model.load_state_dict(start)
        return _train(spec, model, data, device, set(keep), on_weights, stop_after, losses_only or stop_after is not None)


def initial_model(spec: Train, data: Data) -> nn.Module:
    """The network of a spec, built with the global generator as it stands."""
    model = models.build(spec.model, tuple(data.train.x.shape[1:]), data.n_classes, **spec.options)
    return model if spec.ghost_batch_size is None else ghost.convert(model, spec.ghost_batch_size, spec.ghost_averaging)


def optimizer(spec: OptimizerSpec, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The torch optimizer of a spec."""
    if spec.name == "adam":
        return torch.optim.Adam(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=spec.learning_rate, momentum=spec.momentum, weight_decay=spec.weight_decay)


def _train(spec, model, data, device, keep, on_weights, stop_after, losses_only) -> dict:
    parameters = [p for p in model.parameters() if p.requires_grad]
    origin = [p.detach().clone() for p in parameters]
    opt = optimizer(spec.optimizer, parameters)
    order = torch.Generator().manual_seed(_stream(spec.seed, "order") if spec.data_seed is None else spec.data_seed)
    transform = augment.AUGMENTATIONS.get(spec.data.augment)
    noise = torch.Generator(device).manual_seed(_stream(spec.seed, "augment"))
    _refuse_a_single_example(spec, model, data)
    layout = models.memory_format(model)
    model.to(memory_format=layout)

    def hand_out(epoch: int) -> None:
        if on_weights and epoch in keep | {spec.epochs}:
            on_weights(epoch, {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()})

    distances = set(np.unique(np.geomspace(1, spec.updates, 40).round().astype(int)).tolist())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    loss_at, distance = {}, {"update": [], "value": []}
    if spec.layers:
        distance["layers"] = {name: [] for name in names}
    curve = {name: [] for name in CURVE + (("validation_accuracy",) if data.validation else ())}
    update, diverged = 0, False
    hand_out(0)
    for epoch in range(1, spec.epochs + 1):
        model.train()
        loss_sum, correct, seen = torch.zeros((), device=device, dtype=torch.float64), 0, 0
        for index in torch.randperm(spec.data.size, generator=order).to(device).split(spec.batch_size):
            if update == spec.updates:
                break
            for group in opt.param_groups:
                group["lr"], group["weight_decay"] = schedule.at(spec.optimizer, spec.phases, update)
            update += 1
            x, y = data.train.x[index], data.train.y[index]
            if transform:
                x = transform(x, noise)
            if layout == torch.channels_last:
                x = x.contiguous(memory_format=layout)
            loss, hits = _step(spec, model, parameters, opt, x, y, noise)
            loss_sum += loss.double() * len(y)
            correct, seen = correct + hits, seen + len(y)
            if update in CHECKPOINTS:
                loss_at[str(update)] = float(loss)
            if update in distances and not losses_only:
                moved = [_distance(p, o) for p, o in zip(parameters, origin, strict=True)]
                distance["update"].append(update)
                distance["value"].append(math.hypot(*moved))
                if spec.layers:
                    for name, value in zip(names, moved, strict=True):
                        distance["layers"][name].append(value)
            if update == stop_after:
                return {"loss_at": loss_at}
        if spec.optimizer.fresh_each_epoch:
            opt.state.clear()
        mean = float(loss_sum) / seen
        evaluated = not losses_only and (epoch % spec.evaluate_every == 0 or epoch == spec.epochs)
        # losses are taken before their updates: what the last one left shows in the weights, or in the test loss
        diverged = not (np.isfinite(mean) and all(bool(p.isfinite().all()) for p in parameters))
        if not diverged and evaluated:
            test_loss, test_accuracy = loss_and_accuracy(model, data.test.x, data.test.y, spec.curve_reading)
            diverged = not np.isfinite(test_loss)
        if diverged:
            break
        hand_out(epoch)
        if evaluated:
            point = [epoch, update, mean, 100 * int(correct) / seen, test_loss, test_accuracy]
            if data.validation:
                point.append(loss_and_accuracy(model, data.validation.x, data.validation.y, spec.curve_reading)[1])
            for name, value in zip(curve, point, strict=True):
                curve[name].append(value)
    if losses_only:
        return {"loss_at": loss_at}
    final = (
        {}
        if diverged
        else {
            split: {
                reading: dict(zip(("loss", "accuracy"), loss_and_accuracy(model, part.x, part.y, reading), strict=True))
                for reading in ("batch", "running")
            }
            for split, part in data.splits.items()
        }
    )
    return {
        "diverged": diverged,
        "updates": update,
        "loss_at": loss_at,
        "curve": curve,
        "final": final,
        "distance": distance,
        "parameters": models.count_parameters(model),
        "checksum": data.checksum,
    }


def _refuse_a_single_example(spec: Train, model: nn.Module, data: Data) -> None:
    """Batch norm has no statistics of one example: better said before a run than after its last update."""
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return
    train, test, held_out = (len(part) if part else 0 for part in (data.train, data.test, data.validation))
    for name, value, examples, size, last in (
        ("batch_size", spec.batch_size, train, spec.batch_size, f"with {train} training examples the last batch"),
        ("n_train", train, train, CHUNK, f"read in chunks of {CHUNK} the last"),
        ("n_test", test, test, CHUNK, f"read in chunks of {CHUNK} the last"),
        ("n_validation", held_out, held_out, CHUNK, f"read in chunks of {CHUNK} the last"),
    ):
        if examples and examples % size == 1 % size:
            raise ValueError(
                f"{name} is {value}; {last} has 1, of which batch norm has no statistics; "
                "accepted is one that leaves 0 or at least 2"
            )


def _loss(spec: Train, model: nn.Module, x: Tensor, y: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """What an update lowers, and the logits."""

    def network(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            logits = model(x)
        return logits.float()

    if spec.robust is None:
        logits = network(x)
        return F.cross_entropy(logits, y), logits
    asked = spec.robust.size, spec.robust.weight
    if spec.robust.kind == "adversarial":
        return robust.adversarial(network, x, y, *asked)
    return robust.stability(network, x, y, *asked, noise)


def _step(
    spec: Train, model: nn.Module, parameters, opt, x: Tensor, y: Tensor, noise: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One update; returns the batch loss before it and the number of hits."""
    first = None
    anchor = [p.detach().clone() for p in parameters] if spec.optimizer.proximal else None
    for _ in range(spec.optimizer.inner_steps):
        loss, logits = _loss(spec, model, x, y, noise)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        if anchor:  # gradient of proximal/2 ||x - x_k||^2
            for p, a in zip(parameters, anchor, strict=True):
                p.grad.add_(p.detach() - a, alpha=spec.optimizer.proximal)
        if spec.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(parameters, spec.optimizer.clip_norm)
        opt.step()
        if first is None:
            first = loss.detach(), (logits.detach().argmax(1) == y).sum()
    return first


def _stream(seed: int, use: str) -> int:
    """A generator seed for one use of a run's seed, so that data order, augmentation and initialisation are independent."""
    # 32 bits, because torch's CPU generator takes the lower 32 of a seed alone
    return int.from_bytes(hashlib.sha256(f"{use} {seed}".encode()).digest()[:4], "big")


def _distance(parameter: Tensor, origin: Tensor) -> float:
    return float((parameter.detach() - origin).double().square().sum().sqrt())
