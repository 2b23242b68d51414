"""Learning rates as pure functions: rules of the batch size, and regimes counted in updates, with ramps and cosines."""

import math
from collections.abc import Sequence

from lbgap.spec import OptimizerSpec, Phase, Train


def square_root_scaling(learning_rate: float, batch_size: int, reference: int) -> float:
    """learning_rate * sqrt(batch_size / reference): keeps the covariance of an update (Hoffer et al. 2017, section 4).

    Not rounded, as the linear rule is: it was fixed with all its digits in the keys of the first records, and says what ran.
    It is the same number everywhere, since quotient, root and product are each rounded correctly (IEEE 754), as long as the
    order stays this one.
    """
    _check(batch_size, reference)
    return learning_rate * math.sqrt(batch_size / reference)


def linear_scaling(learning_rate: float, batch_size: int, reference: int) -> float:
    """learning_rate * batch_size / reference: one step of k batches for k steps of one (Goyal et al. 2017, section 2.1).

    Rounded to 12 digits, so that a run's key does not hang on the order of multiplication (0.1 * 3 is not 0.3).
    """
    _check(batch_size, reference)
    return float(f"{learning_rate * batch_size / reference:.12g}")


def _check(batch_size: int, reference: int) -> None:
    for name, value in (("batch_size", batch_size), ("reference", reference)):
        if not value >= 1:
            raise ValueError(f"{name} is {value}; accepted is 1 or more")


def regime(boundaries: Sequence[tuple[int, dict]], updates_per_epoch: int, factor: float = 1.0) -> tuple[Phase, ...]:
    """The phases of a regime whose boundaries are given in epochs.

    Args:
        boundaries: (epoch, {"learning_rate": ..., "weight_decay": ...}); what an entry leaves out stays as it was.
        updates_per_epoch: of the batch size that counts. Regime adaptation hands in the small batch's, so that a large
            batch keeps its boundaries to the update.
        factor: multiplies every learning rate.
    Raises:
        ValueError: an entry at epoch 0, which belongs to the optimizer, or one that changes anything else.
    """
    phases = []
    for epoch, values in boundaries:
        if epoch < 1:
            raise ValueError(f"epoch is {epoch}; accepted is 1 or more, what holds from the start belongs to the optimizer")
        if unknown := set(values) - {"learning_rate", "weight_decay"}:
            raise ValueError(f"regime changes '{sorted(unknown)[0]}'; accepted are learning_rate, weight_decay")
        rate = values.get("learning_rate")
        phases.append(
            Phase(
                update=epoch * updates_per_epoch,
                learning_rate=None if rate is None else rate * factor,
                weight_decay=values.get("weight_decay"),
            )
        )
    return tuple(phases)


def hold_then_halve(rate: float, updates: int, hold: float = 0.5, pieces: int = 20) -> tuple[Phase, ...]:
    """The rate is held for a part of the budget, then halved after every further ``pieces``-th of it (Smith et al. 2020).

    Args:
        rate: the learning rate that is held.
        updates: the whole budget, of which a ``pieces``-th is at least one update.
        hold: fraction of the budget, at least one piece; to the nearest whole number of them.
    Raises:
        ValueError: a budget below ``pieces`` updates, no piece, or a part that is none.
    """
    if pieces < 1:
        raise ValueError(f"pieces is {pieces}; accepted is 1 or more")
    if not 1 / pieces <= hold <= 1:
        raise ValueError(f"hold is {hold:g}; accepted is one piece, 1/{pieces}, to 1")
    if updates < pieces:
        raise ValueError(f"updates is {updates}; accepted is {pieces} or more")
    first = round(hold * pieces)
    return tuple(
        Phase(update=round(updates * k / pieces), learning_rate=rate * 0.5 ** (k - first + 1)) for k in range(first, pieces)
    )


def constant_warmup(rate: float, low: float, updates: int) -> tuple[float, tuple[Phase, ...]]:
    """A low constant rate for the first ``updates`` updates, then ``rate`` (He et al. 2016): the first rate, and the phases."""
    return low, (Phase(update=updates, learning_rate=rate),)


def at(optimizer: OptimizerSpec, phases: Sequence[Phase], update: int) -> tuple[float, float]:
    """Learning rate and weight decay that the phases give an update, the first one being 0; one holds from its update on."""
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    for phase in phases:
        if update >= phase.update:
            rate = rate if phase.learning_rate is None else phase.learning_rate
            decay = decay if phase.weight_decay is None else phase.weight_decay
    return rate, decay


def of(run: Train, update: int) -> tuple[float, float]:
    """Learning rate and weight decay of an update of a run, the first one being 0: a pure function of the two.

    What the phases say is multiplied by the ramp of the warmup (Goyal et al. 2017, section 2.2: in equal steps, the first
    update at ``start``, the first after the warmup at the whole rate) and, after it, by half a cosine down to 0 at the end
    of the budget (Loshchilov & Hutter 2017).
    """
    rate, decay = at(run.optimizer, run.phases, update)
    ramp = run.warmup.updates if run.warmup else 0
    if update < ramp:
        return rate * (run.warmup.start + (1 - run.warmup.start) * update / ramp), decay
    if run.annealing == "cosine":
        rate *= (1 + math.cos(math.pi * (update - ramp) / max(1, run.updates - ramp))) / 2
    return rate, decay


def words(run: Train) -> str:
    """The schedule as a reader would say it: "0.1, ramped up from 0.01 over 50 updates, 0.01 from update 100"."""
    parts = [f"{run.optimizer.learning_rate:.4g}"]
    if run.warmup:
        low = run.optimizer.learning_rate * run.warmup.start
        parts.append(f"ramped up from {low:.4g} over {run.warmup.updates:,} updates")
    for phase in run.phases:
        changes = [f"{phase.learning_rate:.4g}"] if phase.learning_rate is not None else []
        changes += [f"weight decay {phase.weight_decay:.4g}"] if phase.weight_decay is not None else []
        parts.append(f"{' and '.join(changes)} from update {phase.update:,}")
    return ", ".join(parts + (["down to 0 by a cosine"] if run.annealing == "cosine" else []))
