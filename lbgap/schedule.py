"""Learning rates as pure functions: rules of the batch size, and piecewise-constant regimes counted in updates."""

import math
from collections.abc import Sequence

from lbgap.spec import OptimizerSpec, Phase


def square_root_scaling(learning_rate: float, batch_size: int, reference: int) -> float:
    """learning_rate * sqrt(batch_size / reference): keeps the covariance of an update (Hoffer et al. 2017, section 4)."""
    return learning_rate * math.sqrt(batch_size / reference)


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


def at(optimizer: OptimizerSpec, phases: Sequence[Phase], update: int) -> tuple[float, float]:
    """Learning rate and weight decay of an update, the first one being 0; a phase holds from its own update on."""
    rate, decay = optimizer.learning_rate, optimizer.weight_decay
    for phase in phases:
        if update >= phase.update:
            rate = rate if phase.learning_rate is None else phase.learning_rate
            decay = decay if phase.weight_decay is None else phase.weight_decay
    return rate, decay
