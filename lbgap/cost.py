"""What a job will cost: floating-point operations counted on the network, seconds from rates measured once."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from lbgap import models
from lbgap.data import lookup
from lbgap.spec import Job, Measure, Train

# Operations per second that training attains: one CPU thread in float32 (F1 and C1 alike, AMD EPYC), and one GPU
# on the small networks of these papers, where launching kernels, not arithmetic, sets the pace.
RATES = {"cpu": 9.0e10, "cuda": 8.0e12}
# Seconds an update takes beside its arithmetic: a fixed part, and the optimizer's pass over the parameters.
FIXED = {"cpu": 1.0e-3, "cuda": 1.5e-3}
PER_PARAMETER = {"cpu": 5.0e-9, "cuda": 0.0}
# How much faster training is in bfloat16: on the CPU named above twice, on a GPU not at this size of network.
BFLOAT16 = {"cpu": 2.0, "cuda": 1.0}

# Passes over an example that a robust loss takes, for one of the plain loss.
ROBUST = {"adversarial": 2.5, "stability": 2.0}


@lru_cache
def _per_example(model: str, data: str, options: tuple) -> tuple[int, int, int]:
    """Operations of a forward pass, and of a forward and backward pass, for one example; and the parameters."""
    source = lookup(data)
    with torch.device("meta"):
        network = models.build(model, source.shape, source.n_classes, **dict(options))
        x, y = torch.zeros(2, *source.shape), torch.zeros(2, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = network(x)
        forward = counter.get_total_flops()
        F.cross_entropy(logits, y).backward()
    return forward // 2, counter.get_total_flops() // 2, models.count_parameters(network)


def _of(job: Job) -> tuple[Train, tuple[int, int, int]]:
    run = job.run
    return run, _per_example(run.model, run.data.name, tuple(sorted(run.options.items())))


def operations(job: Job) -> int:
    """Floating-point operations of one job, its parents not included."""
    run, (forward, both, _) = _of(job)
    n_test = run.data.n_test or lookup(run.data.name).n_test
    if isinstance(job, Train):
        evaluations = run.epochs // run.evaluate_every + 2
        seen = min(run.updates * run.batch_size, run.epochs * run.data.size)
        per_example = int(both * (ROBUST[run.robust.kind] if run.robust else 1))
        return per_example * seen * run.optimizer.inner_steps + forward * (n_test * evaluations + 2 * run.data.size)
    if isinstance(job, Measure) and job.kind == "path":
        return forward * (run.data.size + n_test) * int(job.arguments.get("points", 25))
    # the line search takes about a third more evaluations than iterations
    climb = both * int(run.data.size * (1 + 1.3 * job.arguments.get("iterations", 10)))
    return climb + (forward * run.data.size * (job.arguments.get("draws", 10) + 2) if job.kind == "directions" else 0)


def seconds(job: Job, device: str = "cpu") -> float:
    """Expected seconds of one job on one CPU thread, or on a GPU."""
    run, (_, _, parameters) = _of(job)
    updates = run.updates * run.optimizer.inner_steps if isinstance(job, Train) else 0
    rate = RATES[device] * (BFLOAT16[device] if isinstance(job, Train) and run.precision == "bfloat16" else 1.0)
    return operations(job) / rate + updates * (FIXED[device] + PER_PARAMETER[device] * parameters)


def in_words(total_seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if total_seconds < 90:
        return f"{total_seconds:.0f} s"
    return f"{total_seconds / 60:.0f} min" if total_seconds < 5400 else f"{total_seconds / 3600:.1f} h"
