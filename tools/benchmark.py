"""Measure what the book says about speed, as ratios: `python tools/benchmark.py [NAME ...]`. Writes results/benchmark.json.

Both sides of a ratio are timed in turn, so that what else the machine does falls on both. With names (ghost, precision, layout,
memory) the other ratios of the file stay.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lbgap import jobs, models
from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.ghost import convert

FILE = Path(__file__).resolve().parents[1] / "results" / "benchmark.json"
ROUNDS = 9
AT_LEAST = 0.2  # seconds that a timing lasts, by repetition, because a single short pass meets every interruption


def ratio(name: str, what: str, against: str, one: Callable[[], None], other: Callable[[], None]) -> dict:
    """Seconds of ``one`` over seconds of ``other``: the median over rounds, with the least and the greatest."""

    def timed(run: Callable[[], None], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    one()
    timed(other, 1)
    repeats = max(1, round(AT_LEAST / timed(other, 3)))
    seconds = [[timed(run, repeats) for run in (one, other)] for _ in range(ROUNDS)]
    ratios = [a / b for a, b in seconds]
    return {
        "name": name,
        "what": what,
        "against": against,
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "greatest": round(max(ratios), 2),
        "milliseconds": round(1e3 * statistics.median(b for _, b in seconds), 1),
    }


def forward_backward(model: nn.Module, x: Tensor, bfloat16: bool = False) -> Callable[[], None]:
    """One forward and backward pass, from a gradient that lies in memory as the output does; gradients are thrown away.

    So it is in training, where the next layer hands the gradient back as it was given its input. A loss of the output's mean
    would hand back a gradient of another layout, on which batch norm of images is several times slower.
    """

    def forward() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            return model(x).float()

    with torch.no_grad():
        gradient = torch.randn_like(forward())

    def run() -> None:
        x.grad = None
        forward().backward(gradient)
        model.zero_grad(set_to_none=True)

    return run


def ghost(device: str) -> list[dict]:
    """Ghost batch norm in ghosts of 128 against batch norm: a layer of F1 and one of C1, batch 4096; and both networks."""
    out = []
    for name, norm, shape in (
        ("a layer of F1", nn.BatchNorm1d(512), (4096, 512)),
        ("a layer of C1", nn.BatchNorm2d(64), (4096, 64, 15, 15)),
    ):
        x = torch.randn(shape, device=device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        plain = norm.to(device)
        ghosts = convert(type(norm)(norm.num_features).to(device), 128)
        out.append(
            ratio("ghost", f"ghost batch norm, {name}", "batch norm", *(forward_backward(m, x) for m in (ghosts, plain)))
        )
    for name, shape, batch in (("F1", (1, 28, 28), 4096), ("C1", (3, 32, 32), 1024)):
        plain, ghosts = (models.build(f"hoffer.{name}", shape, 10).to(device) for _ in range(2))
        convert(ghosts, 128)
        order = models.memory_format(plain)
        x = torch.rand(batch, *shape, device=device).to(memory_format=order).requires_grad_()
        pair = (forward_backward(model.to(memory_format=order), x) for model in (ghosts, plain))
        out.append(ratio("ghost", f"{name} with ghost batch norm, batch {batch}", name, *pair))
    return out


def precision(device: str) -> list[dict]:
    """bfloat16 autocast against float32, a forward and backward pass of F1 and C1."""
    out = []
    for name, shape, batch in (("F1", (1, 28, 28), 512), ("C1", (3, 32, 32), 128)):
        model = models.build(f"hoffer.{name}", shape, 10).to(device)
        x = torch.rand(batch, *shape, device=device)
        if name == "C1":
            model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        what = f"{name} in bfloat16, batch {batch}"
        out.append(ratio("precision", what, "float32", *(forward_backward(model, x, b) for b in (True, False))))
    return out


def layout(device: str) -> list[dict]:
    """Measuring C1 in float32 with its weights channels last, as :mod:`lbgap.jobs` does, against the usual order."""
    x = torch.rand(250, 3, 32, 32, device=device, requires_grad=True)
    usual, last = (models.build("keskar.C1", (3, 32, 32), 10).to(device) for _ in range(2))
    last.to(memory_format=models.memory_format(last))
    return [ratio("layout", "C1 channels last, batch 250", "the usual order", *(forward_backward(m, x) for m in (last, usual)))]


def memory(device: str) -> list[dict]:
    """Evaluating C1 in chunks of 5000, and a pass at batch 250, with freed memory kept against given back.

    In a process each, because what one has kept cannot be given back altogether.
    """
    if device != "cpu" or platform.libc_ver()[0] != "glibc":
        return []
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=_passes, args=(there, keep), daemon=True)
        for (_, there), keep in zip(pipes, (True, False), strict=True)
    ]
    for process in processes:
        process.start()

    def order(end, which: str) -> None:
        end.send(which)
        end.recv()

    out = [
        ratio("memory", f"{what}, freed memory kept", "given back", *(partial(order, here, which) for here, _ in pipes))
        for which, what in (("evaluate", "C1 evaluated 5000 at a time"), ("train", "C1 in float32, batch 250"))
    ]
    for process in processes:
        process.terminate()
    return out


def _passes(orders, keep: bool) -> None:
    """Evaluate or train whenever told to, in a process that keeps freed memory or not."""
    torch.set_num_threads(1)
    if keep:
        jobs.keep_freed_memory()
    model = models.build("keskar.C1", (3, 32, 32), 10)
    model.to(memory_format=models.memory_format(model))
    x = torch.rand(CHUNK, 3, 32, 32)
    train = forward_backward(model, x[:250].clone().requires_grad_())
    while True:
        if orders.recv() == "train":
            train()
        else:
            with torch.no_grad(), batch_norm_reading(model, "batch"):
                model(x)
        orders.send(True)


MEASURED = {"ghost": ghost, "precision": precision, "layout": layout, "memory": memory}


def main(names: list[str]) -> None:
    """Measure the named ratios, or all, on this machine and put them into the file.

    Raises:
        SystemExit: an unknown name; ratios to keep that are another machine's.
    """
    unknown = [name for name in names if name not in MEASURED]
    if unknown:
        raise SystemExit(f"name is '{unknown[0]}'; accepted are {', '.join(MEASURED)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    where = {
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"one thread of {jobs.processor()}",
        "torch": torch.__version__,
    }
    stored = json.loads(FILE.read_text())
    if names and where != {key: stored[key] for key in where}:
        raise SystemExit(
            f"{FILE.name} is of {stored['machine']}, torch {stored['torch']}; accepted elsewhere are all ratios at once"
        )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    jobs.keep_freed_memory()
    found = []
    for name, measure in MEASURED.items():
        new = measure(device) if name in (names or MEASURED) else []
        for line in new:
            print(f"{line['what']} / {line['against']}: {line['ratio']} [{line['least']}, {line['greatest']}]")
        found += new or [line for line in stored["ratios"] if line["name"] == name]
    FILE.write_text(json.dumps(where | {"ratios": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
