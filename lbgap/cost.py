"""What a job will cost: floating-point operations counted on the network, seconds from rates measured once."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from lbgap import measurements, models
from lbgap.sources import SEGMENT, Source, lookup
from lbgap.spec import Job, Train
from lbgap.tasks import task_of

# Operations per second that training attains in float32: one CPU thread (F1 and C1 alike, AMD EPYC), and one GPU on the small
# networks of these papers (C1 on an H200; a network of wider layers, C2, attains three times as much).
RATES = {"cpu": 9.0e10, "cuda": 3.0e13}
# Seconds an update takes beside its arithmetic: a fixed part, and the optimizer's pass over the parameters.
FIXED = {"cpu": 1.0e-3, "cuda": 2.9e-3}
PER_PARAMETER = {"cpu": 5.0e-9, "cuda": 0.0}
# How much faster arithmetic is in bfloat16: twice on both.
BFLOAT16 = {"cpu": 2.0, "cuda": 2.0}

# Passes over an example that a robust loss takes, for one of the plain loss.
ROBUST = {"adversarial": 2.5, "stability": 2.0}


@lru_cache
def _per_example(model: str, data: str, options: tuple) -> tuple[int, int, int]:
    """Operations of a forward pass, and of a forward and backward pass, for one example; and the parameters."""
    source = lookup(data)
    with torch.device("meta"):
        network = models.build(model, source.shape, source.n_classes, **dict(options))
        x, y = _two_examples(source)
    with FlopCounterMode(display=False) as counter:
        outputs, _ = task_of(data).predict(network, x)
        forward = counter.get_total_flops()
        task_of(data).loss(outputs, y).backward()
    return forward // 2, counter.get_total_flops() // 2, models.count_parameters(network)


def _two_examples(source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of a batch of two, of whatever values."""
    if source.task == "predict_next":  # an example is a token
        return (torch.zeros(1, 2, dtype=torch.long),) * 2
    x = torch.zeros(2, *source.shape)
    targets = {"classify": torch.zeros(2, dtype=torch.long), "regress": torch.zeros(2, source.n_classes), "reconstruct": x}
    return x, targets[source.task]


def _of(job: Job) -> tuple[Train, tuple[int, int, int]]:
    run = job.run
    return run, _per_example(run.model, run.data.name, tuple(sorted(run.options.items())))


def of_an_update(run: Train) -> int:
    """Floating-point operations of a plain forward and backward pass over one batch; of a text, over a segment a stream."""
    return _of(run)[1][1] * run.batch_size * (SEGMENT if run.data.is_text else 1)


def of_training(run: Train, until: int | None = None) -> int:
    """Floating-point operations of all updates of a run, or of those to the end of an epoch; evaluations not included."""
    batch = run.batch_size * (SEGMENT if run.data.is_text else 1)
    seen = min(run.updates * batch, (run.epochs if until is None else until) * run.data.size)
    passes = (ROBUST[run.robust.kind] if run.robust else 1) * ((run.sam.ascents + 1) if run.sam else 1)
    return int(_of(run)[1][1] * passes) * seen * run.optimizer.inner_steps


def operations(job: Job, until: int | None = None) -> int:
    """Floating-point operations of one job, its parents not included.

    Args:
        until: the last epoch of a run that is repeated for its weights; nothing is evaluated then.
    """
    run, (forward, both, _) = _of(job)
    if until is not None:
        return of_training(run, until)
    n_test = run.data.n_test or lookup(run.data.name).n_test
    if isinstance(job, Train):
        evaluations = run.epochs // run.evaluate_every + 2
        return of_training(run) + forward * (n_test * evaluations + 2 * run.data.size)
    passes, examples = measurements.lookup(job.kind).cost(job.arguments)
    size = examples or run.data.size
    return int(both * size * passes.both + forward * (size * passes.forward + n_test * passes.forward_test))


def seconds(job: Job, device: str = "cpu", until: int | None = None) -> float:
    """Expected seconds of one job on one CPU thread, or on a GPU; ``until`` as in :func:`operations`."""
    run, (_, _, parameters) = _of(job)
    updates = min(run.updates, (run.epochs if until is None else until) * run.updates_per_epoch)
    updates = updates * run.optimizer.inner_steps if isinstance(job, Train) else 0
    rate = RATES[device] * (BFLOAT16[device] if isinstance(job, Train) and run.precision == "bfloat16" else 1.0)
    return operations(job, until) / rate + updates * (FIXED[device] + PER_PARAMETER[device] * parameters)


def in_words(total_seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if total_seconds < 90:
        return f"{total_seconds:.0f} s"
    return f"{total_seconds / 60:.0f} min" if total_seconds < 5400 else f"{total_seconds / 3600:.1f} h"
