"""Runs of one small network that differ in seed and rates alone, trained together on stacked parameters.

A narrow network leaves a processor waiting for its next operation; here each operation is that of all replicas. Numbers are
those of the single run (:mod:`lbgap.train`) up to the rounding of its sums.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from lbgap import ghost, models, schedule, train
from lbgap.ascent import ascended
from lbgap.data import Data
from lbgap.evaluate import averages_kept, loss_and_metric
from lbgap.models.hoffer import Standardize
from lbgap.optimizers import without_decay
from lbgap.pauses import Pause
from lbgap.sources import lookup
from lbgap.spec import OptimizerSpec, Train
from lbgap.tasks import task_of

# What replicas may differ in: a schedule is but a rate and a decay at every update.
FREE = {"seed", "data_seed", "phases", "warmup", "annealing"}
FREE_WITHIN = {"optimizer": {"learning_rate", "weight_decay", "momentum"}, "sam": {"rho"}}

# ---------------------------------------------------------------- which runs


def kind(spec: Train) -> str | None:
    """What runs that can train together have in common, as a text, if their network can be stacked; None for one that cannot.

    Alone train warm starts, what a teacher labels, what is augmented, robust, sliced, proximal, in bfloat16 or in SAM's
    inference mode, texts, and what scales the loss or has another momentum buffer.
    """
    plain = not spec.parents and spec.precision == "float32" and spec.data.augment == "none" and not spec.data.is_text
    if not plain or spec.robust or spec.slice_size or spec.optimizer.inner_steps > 1:
        return None
    if spec.optimizer.loss_scale != 1.0 or spec.optimizer.momentum_buffer != "gradients":
        return None
    if spec.sam and (spec.sam.inference_mode != "none" or spec.sam.decay_ascends):
        return None
    values = {name: value for name, value in spec.canonical().items() if name not in FREE}
    for part in FREE_WITHIN.keys() & values.keys():
        values[part] = {name: value for name, value in values[part].items() if name not in FREE_WITHIN[part]}
    return repr(sorted(values.items()))


POINTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity, Standardize)


def _parameters(spec: Train) -> int | None:
    """How many the network of a run has, if it can be stacked; else None."""
    return _stackable_parameters(spec.model, spec.data.name, tuple(sorted(spec.options.items())))


@lru_cache
def _stackable_parameters(model: str, data: str, options: tuple) -> int | None:
    """Of a network that is a sequence of pointwise functions, one flattening, and layers of vectors after it; else None."""
    source = lookup(data)
    try:
        with torch.device("meta"):
            network = models.build(model, source.shape, source.n_classes, **dict(options))
    except Exception:  # whatever is wrong with it, its run says so
        return None
    kinds = [type(layer) for layer in network.children()]
    if type(network) is not nn.Sequential or kinds.count(nn.Flatten) != 1:
        return None
    cut = kinds.index(nn.Flatten)
    of_vectors = (nn.Linear, nn.BatchNorm1d, nn.Dropout, *POINTWISE)
    stackable = all(k in POINTWISE for k in kinds[:cut]) and all(k in of_vectors for k in kinds[cut + 1 :])
    return models.count_parameters(network) if stackable else None


# A group of 4 to 20 runs, of a network whose parameters times the batch are at most so many: 20 multilayer perceptrons were
# measured on one thread to train by SGD 8 times as fast as one after another at 1e5, 3 times at 1e6, 2 times at 5e6, 1.1 times
# at 2e7, 4 of them 3, 2, 1.4 and 1.1 times; by Adam, or SAM, 1.9 times at 1e6, 1.5 times at 5e6.
LEAST, MOST, SMALL = 4, 20, 5e6


def pays(spec: Train) -> bool:
    """Whether such runs are quicker together than one after another, on one thread."""
    parameters = None if kind(spec) is None else _parameters(spec)
    return parameters is not None and parameters * spec.batch_size <= SMALL


# ---------------------------------------------------------------- the stacked network
# Activations are (replicas, features, examples): so a linear layer is one batched product, and to batch norm the replicas'
# features lie side by side, neither of them with a copy.


class Flatten(nn.Module):
    """(replicas, examples, ...) to (replicas, features, examples)."""

    def forward(self, x: Tensor) -> Tensor:
        """A view."""
        return x.flatten(2).transpose(1, 2)


class Linear(nn.Module):
    """A linear layer of each replica: weights (replicas, out, in), biases (replicas, out)."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        has_bias = layers[0].bias is not None
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(replicas, in, examples) to (replicas, out, examples)."""
        return self.weight @ x if self.bias is None else torch.baddbmm(self.bias[:, :, None], self.weight, x)


class _SideBySide:
    """Batch norm of each replica as one of all their features."""

    def __init__(self, layers: Sequence[nn.Module], *arguments: Any):
        first = layers[0]
        features = len(layers) * first.num_features
        super().__init__(features, *arguments, first.eps, first.momentum, first.affine, first.track_running_stats)
        state = {name: [layer.state_dict()[name] for layer in layers] for name in first.state_dict()}
        # a count of batches, which is no vector, is the same for all
        self.load_state_dict({n: torch.cat(v) if v[0].dim() else v[0].clone() for n, v in state.items()}, assign=True)


class BatchNorm(_SideBySide, nn.BatchNorm1d):
    """Batch norm of the examples of each replica."""

    def forward(self, x: Tensor) -> Tensor:
        """(replicas, features, examples)."""
        return super().forward(x.reshape(1, -1, x.shape[2])).view(x.shape)


class GhostBatchNorm(_SideBySide, ghost.GhostBatchNorm):
    """Ghost batch norm of the examples of each replica."""

    def __init__(self, layers: Sequence[ghost.GhostBatchNorm]):
        super().__init__(layers, layers[0].ghost_batch_size, layers[0].averaging)

    def forward(self, x: Tensor) -> Tensor:
        """(replicas, features, examples)."""
        return super().forward(x.flatten(0, 1).t().contiguous()).t().reshape(x.shape)


class Dropout(nn.Module):
    """Dropout whose masks are those that each replica would draw alone, from a generator of its own."""

    def __init__(self, p: float, generators: Sequence[torch.Generator]):
        super().__init__()
        self.p, self.generators = p, generators

    def forward(self, x: Tensor) -> Tensor:
        """(replicas, features, examples)."""
        if not self.training or self.p == 0:
            return x
        replicas, features, examples = x.shape
        masks = torch.empty(replicas, examples, features, dtype=x.dtype, device=x.device)
        for mask, generator in zip(masks, self.generators, strict=True):
            mask.bernoulli_(1 - self.p, generator=generator)
        return x * masks.div_(1 - self.p).transpose(1, 2)


def stacked(networks: Sequence[nn.Module], generators: Sequence[torch.Generator]) -> nn.Sequential:
    """One network of many, its layers named as theirs.

    Args:
        generators: of each network's dropout.
    """
    layers = {
        nn.Flatten: lambda _: Flatten(),
        nn.Linear: Linear,
        nn.BatchNorm1d: BatchNorm,
        ghost.GhostBatchNorm: GhostBatchNorm,
        nn.Dropout: lambda of: Dropout(of[0].p, generators),
    }
    names = [name for name, _ in networks[0].named_children()]
    together = zip(*networks, strict=True)
    return nn.Sequential(
        OrderedDict((n, layers.get(type(of[0]), lambda of: of[0])(of)) for n, of in zip(names, together, strict=True))
    )


# ---------------------------------------------------------------- the optimizer


class Optimizer:
    """SGD, Adam and AdamW as in torch, on weights (replicas, n) whose rates, decays and momenta are a column each."""

    BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults, which single runs have

    def __init__(self, specs: Sequence[OptimizerSpec], weights: Sequence[Tensor], decayed: Sequence[bool]):
        self.name, self.nesterov = specs[0].name, specs[0].nesterov
        self.weights, self.decayed = list(weights), list(decayed)
        momenta = [of.momentum for of in specs]
        self.momentum = _column(momenta, weights[0]) if any(momenta) else None
        self.clear()

    def clear(self) -> None:
        """Forget what came before."""
        self.steps = 0
        averages = {"sgd": 0 if self.momentum is None else 1}.get(self.name, 2)
        self.averages = [[torch.zeros_like(w) for w in self.weights] for _ in range(averages)]

    def step(self, gradients: Sequence[Tensor], rates: Sequence[float], decays: Sequence[float]) -> None:
        """One update with the rate and the decay of each replica; the gradients are used up."""
        self.steps += 1
        rate = _column(rates, self.weights[0])
        decay = _column(decays, self.weights[0]) if any(decays) else None
        update = self._sgd if self.name == "sgd" else self._adam
        for w, g, decayed, *averages in zip(self.weights, gradients, self.decayed, *self.averages, strict=True):
            if decay is not None and decayed:
                if self.name == "adamw":
                    w.mul_(1 - rate * decay)
                else:
                    g.addcmul_(w, decay)
            update(w, g, rate, *averages)

    def _sgd(self, w: Tensor, g: Tensor, rate: Tensor, velocity: Tensor | None = None) -> None:
        if velocity is not None:
            velocity.mul_(self.momentum).add_(g)
            g = g.addcmul_(velocity, self.momentum) if self.nesterov else velocity
        w.addcmul_(g, rate, value=-1)

    def _adam(self, w: Tensor, g: Tensor, rate: Tensor, mean: Tensor, square: Tensor) -> None:
        first, second = self.BETAS
        mean.lerp_(g, 1 - first)
        square.mul_(second).addcmul_(g, g, value=1 - second)
        deviation = square.sqrt().div_(math.sqrt(1 - second**self.steps)).add_(self.EPS)
        w.addcdiv_(mean * rate, deviation, value=-1 / (1 - first**self.steps))

    def state(self) -> dict[str, Any]:
        """What the next update depends on."""
        return {"steps": self.steps, "averages": self.averages}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.steps = state["steps"]
        for mine, saved in zip(self.averages, state["averages"], strict=True):
            for average, value in zip(mine, saved, strict=True):
                average.copy_(value)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


# ---------------------------------------------------------------- the runs


def fit(
    specs: Sequence[Train],
    device: str = "cpu",
    keep: Sequence[Collection[int]] | None = None,
    on_weights: Callable[[Train, int, train.State], None] | None = None,
    pause: Pause | None = None,
) -> list[dict]:
    """Train runs of one :func:`kind` together; returns of each what :func:`lbgap.train.fit` returns of it.

    Args:
        keep: for each run the epochs whose weights (and the final ones) go to ``on_weights(spec, epoch, state)``.
        pause: where the group is put down and taken up again.
    Raises:
        ValueError: runs that cannot train together.
        Stopped: ``pause`` put the group down.
    """
    kinds = {kind(spec) for spec in specs}
    if alone := next((spec for spec in specs if kind(spec) is None or _parameters(spec) is None), None):
        raise ValueError(
            f"specs has run {alone.key}, which trains alone; accepted are plain runs, of networks of linear layers, batch norm "
            "of vectors, dropout and pointwise functions"
        )
    if len(kinds) != 1:
        raise ValueError(f"specs has runs of {len(kinds)} kinds; accepted are runs that differ in seed and rates alone")
    data = train.load_data(specs[0], device)
    networks, generators = [], []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for spec in specs:
            torch.manual_seed(spec.seed)
            networks.append(train.initial_model(spec, data))
            generators.append(torch.Generator())
            generators[-1].set_state(torch.get_rng_state())  # where the single run's dropout would go on
    return Replicas(specs, networks, data, generators, device).fit(keep or [()] * len(specs), on_weights, pause)


class Replicas:
    """Runs that train together, in pieces: as :class:`lbgap.train.Training`, with a place that they share.

    A replica that diverges is recorded to the end of that epoch, as alone; what becomes of its weights then is its own.
    """

    def __init__(
        self,
        specs: Sequence[Train],
        networks: Sequence[nn.Module],
        data: Data,
        generators: Sequence[torch.Generator],
        device: str = "cpu",
    ):
        train.refuse_a_single_example(specs[0], networks[0], data)
        self.specs, self.data, self.device, self.generators = list(specs), data, device, list(generators)
        self.task = task_of(specs[0].data.name)
        self.network = networks[0].to(device)  # stands for any of them: evaluated with the weights of each
        self.stack = stacked(networks, self.generators).to(device)
        named = dict(self.stack.named_parameters())
        self.parameters = list(named.values())
        # one row a replica
        self.weights = [p.detach().view(len(specs), -1) for p in self.parameters]
        self.origin = [w.clone() for w in self.weights]
        exempt = without_decay(specs[0].optimizer, self.stack)
        self.optimizer = Optimizer([spec.optimizer for spec in specs], self.weights, [p not in exempt for p in self.parameters])
        self.orders = [train.data_order(spec) for spec in specs]
        self.recorders = [train.Recorder(spec, named) for spec in specs]
        self.loss = vmap(self.task.loss)
        self.score = vmap(self.task.score)
        self.epoch = self.within_epoch = self.update = 0
        self._begin_epoch()

    # ------------------------------------------------------------ the loop

    def fit(
        self, keep: Sequence[Collection[int]], on_weights: Callable[[Train, int, train.State], None] | None, pause: Pause | None
    ) -> list[dict]:
        """From where the runs stand to their end."""
        budget = self.specs[0].updates

        def hand_out() -> None:
            for r, (spec, epochs) in enumerate(zip(self.specs, keep, strict=True)):
                if on_weights and not self.recorders[r].diverged and self.epoch in {*epochs, spec.epochs}:
                    on_weights(spec, self.epoch, self._state_of(r))

        if pause and (saved := pause.load()):
            self.restore(saved)
        else:
            hand_out()
        while self.epoch < self.specs[0].epochs and not all(of.diverged for of in self.recorders):
            for items in self._items()[self.within_epoch :]:
                if self.update == budget:
                    break
                self.advance(items)
                if pause and pause.due():
                    pause.save(self.state())
            self._end_epoch()
            hand_out()
        return [self._results(r) for r in range(len(self.specs))]

    def _items(self) -> list[Tensor]:
        """The batches of this epoch, (replicas, examples) each; the generators are left as the epoch found them."""
        epochs, self.orders_after = [], []
        for spec, order in zip(self.specs, self.orders, strict=True):
            generator = torch.Generator()
            generator.set_state(order.get_state())
            epochs.append(self.task.epoch(self.data.train, spec.batch_size, generator))
            self.orders_after.append(generator.get_state())
        return [torch.stack(items) for items in zip(*epochs, strict=True)]

    def _begin_epoch(self) -> None:
        self.loss_sum = torch.zeros(len(self.specs), device=self.device, dtype=torch.float64)
        self.score_sum = torch.zeros(len(self.specs), device=self.device, dtype=torch.float64)
        self.seen = self.within_epoch = 0

    def advance(self, items: Tensor) -> None:
        """One update of every replica."""
        rates, decays = zip(*(schedule.of(spec, self.update) for spec in self.specs), strict=True)
        self.update += 1
        self.within_epoch += 1
        x, y = self.task.batch(self.data.train, items, self.specs[0].batch_size)
        losses, scores, gradients = self._gradients(x, y)
        self._clip(gradients)
        self.optimizer.step(gradients, rates, decays)
        n = self.task.count(y[0])
        self.loss_sum += losses.double() * n
        self.score_sum, self.seen = self.score_sum + scores, self.seen + n
        self._record(losses)

    def _gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean loss and summed score of each replica's batch, and the gradients of its rule, as :mod:`lbgap.gradient`'s."""
        sam = self.specs[0].sam
        if sam is None:
            return self._at_the_weights(x, y)
        at_w, gradients = None, None
        for ascent in range(sam.ascents):
            states = [g.get_state() for g in self.generators]
            with averages_kept(self.stack, ascent > 0 or sam.averages == "last"), self._all_ascended(gradients):
                *found, gradients = self._at_the_weights(x, y)
            for generator, state in zip(self.generators, states, strict=True):  # the passes share their dropout masks
                generator.set_state(state)
            at_w = at_w or found
        with averages_kept(self.stack, sam.averages == "first"), self._all_ascended(gradients):
            return *at_w, self._at_the_weights(x, y)[2]

    @contextmanager
    def _all_ascended(self, gradients: list[Tensor] | None) -> Iterator[None]:
        """Inside, each replica stands at its own w + e(w), found by ``gradients`` (None: at w); outside, bit for bit at w."""
        with ExitStack() as stack:
            for r, spec in enumerate(self.specs if gradients else ()):
                rows = [w[r].requires_grad_() for w in self.weights]
                sam = {"rho": spec.sam.rho, "norm": spec.sam.norm, "adaptive": spec.sam.adaptive}
                stack.enter_context(ascended(rows, gradients=[g[r] for g in gradients], **sam))
            yield

    def _at_the_weights(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        outputs = self.stack(x).transpose(1, 2)
        losses = self.loss(outputs, y)
        # each loss depends on its own replica's weights alone
        gradients = torch.autograd.grad(losses.sum(), self.parameters)
        rows = [g.reshape(len(self.specs), -1) for g in gradients]
        return losses.detach(), self.score(outputs.detach(), y), rows

    def _clip(self, gradients: list[Tensor]) -> None:
        """As ``torch.nn.utils.clip_grad_norm_`` does, for each replica."""
        if longest := self.specs[0].optimizer.clip_norm:
            norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients]).norm(dim=0)
            factor = (longest / (norms + 1e-6)).clamp(max=1.0)[:, None]
            for g in gradients:
                g.mul_(factor)

    # ------------------------------------------------------------ what is recorded

    def _record(self, losses: Tensor) -> None:
        alive = [(r, of) for r, of in enumerate(self.recorders) if not of.diverged]
        if self.update in train.CHECKPOINTS:
            for r, of in alive:
                of.loss_at[str(self.update)] = float(losses[r])
        if self.update in self.recorders[0].distances_at:
            moved = [(w - o).double().square().sum(1).sqrt() for w, o in zip(self.weights, self.origin, strict=True)]
            names = [name for name, _ in self.stack.named_parameters()]
            for (_, of), row in zip(alive, torch.stack(moved, 1)[[r for r, _ in alive]].tolist(), strict=True):
                of.moved(self.update, dict(zip(names, row, strict=True)))

    def _end_epoch(self) -> None:
        for order, after in zip(self.orders, self.orders_after, strict=True):
            order.set_state(after)
        self.epoch += 1
        if self.specs[0].optimizer.fresh_each_epoch:
            self.optimizer.clear()
        losses, scores = (self.loss_sum / self.seen).tolist(), (self.score_sum / self.seen).tolist()
        finite = torch.stack([w.isfinite().all(1) for w in self.weights]).all(0).tolist()
        for r, of in enumerate(self.recorders):
            if not of.diverged:
                read = self._reader(r) if of.evaluated(self.epoch) else None
                of.end_epoch(self.epoch, self.update, losses[r], scores[r], finite[r], read)
        self._begin_epoch()

    def _state_of(self, r: int) -> train.State:
        """A replica's weights and buffers, as its own network would have them."""
        stack, own = self.stack.state_dict(), self.network.state_dict()
        # batch norm's count of batches is the same for all
        parts = {k: v.view(len(self.specs), *own[k].shape)[r] if v.dim() else v for k, v in stack.items()}
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in parts.items()}

    def _reader(self, r: int) -> train.Read:
        """Products over a whole split fill a processor: each replica is read by itself."""
        self.network.load_state_dict(self._state_of(r))

        def read(split: str, reading: str) -> tuple[float, float]:
            part = self.data.splits[split]
            return loss_and_metric(self.network, part.x, part.y, reading, task=self.task)

        return read

    def _results(self, r: int) -> dict:
        return self.recorders[r].results(self._reader(r), models.count_parameters(self.network), self.data)

    # ------------------------------------------------------------ putting down, taking up

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the runs depends on."""
        return {
            "model": self.stack.state_dict(),
            "optimizer": self.optimizer.state(),
            "generators": [g.get_state() for g in (*self.orders, *self.generators)],
            "place": {name: getattr(self, name) for name in _PLACE},
            "recorded": [of.state() for of in self.recorders],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.stack.load_state_dict(state["model"])
        self.optimizer.restore(state["optimizer"])
        for generator, saved in zip((*self.orders, *self.generators), state["generators"], strict=True):
            generator.set_state(saved)
        for name in _PLACE:
            value = state["place"][name]
            setattr(self, name, value.to(self.device) if isinstance(value, Tensor) else value)
        for of, saved in zip(self.recorders, state["recorded"], strict=True):
            of.restore(saved)


_PLACE = ("epoch", "within_epoch", "update", "loss_sum", "score_sum", "seen")
