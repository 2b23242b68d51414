"""Measure what the book says about speed: `python tools/benchmark.py [--json] [NAME ...]`. Writes results/benchmark.json.

Both sides of a ratio are timed in turn, so that what else the machine does falls on both. With names the other ratios of the
file stay. A ratio may have a target; what misses it is said.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lbgap import cost, jobs, models, papers, replicas, schedule, sweep
from lbgap.data import Data, Split
from lbgap.evaluate import CHUNK, batch_norm_reading
from lbgap.ghost import convert
from lbgap.papers.smith.curves import Sweeps
from lbgap.papers.smith.setups import setups_of
from lbgap.records import Store
from lbgap.sources import SEGMENT, lookup
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec, Train
from lbgap.tasks import task_of
from lbgap.train import Training, fit, initial_model, load_data, optimizer
from lbgap.workers import Workers

FILE = Path(__file__).resolve().parents[1] / "results" / "benchmark.json"
ROUNDS = 9  # fewer of what takes seconds, so that the whole takes 8 minutes where nothing else runs
AT_LEAST = 0.2  # seconds that a timing lasts, by repetition, because a single short pass meets every interruption


def timed(run: Callable[[], None], repeats: int = 1) -> float:
    """Seconds of one call, over some repetitions."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def ratio(
    name: str,
    what: str,
    against: str,
    one: Callable[[], None],
    other: Callable[[], None],
    at_least: float | None = None,
    at_most: float | None = None,
    rounds: int = ROUNDS,
) -> dict:
    """Seconds of ``one`` over seconds of ``other``: the median over rounds, with the least and the greatest."""
    repeats = 1
    if rounds == ROUNDS:  # what is timed less often takes so long that it needs no warming up
        one()
        other()
        repeats = max(1, round(AT_LEAST / timed(other)))
    seconds = [[timed(run, repeats) for run in (one, other)] for _ in range(rounds)]
    found = [a / b for a, b in seconds]
    milliseconds = round(1e3 * statistics.median(b for _, b in seconds), 1)
    return line(name, what, against, found, at_least, at_most) | {"milliseconds": milliseconds}


def line(
    name: str, what: str, against: str, found: list[float], at_least: float | None = None, at_most: float | None = None
) -> dict:
    """One line of the table; ``target`` and ``met`` are there where there is a target."""
    median = statistics.median(found)
    out = {"name": name, "what": what, "against": against}
    out |= {key: float(f"{v:.3g}") for key, v in (("ratio", median), ("least", min(found)), ("greatest", max(found)))}
    if at_least is not None:
        out |= {"target": f"at least {at_least:g}", "met": median >= at_least}
    if at_most is not None:
        out |= {"target": f"at most {at_most:g}", "met": median <= at_most}
    return out


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
    for name, shape, batch, rounds in (("F1", (1, 28, 28), 4096, ROUNDS), ("C1", (3, 32, 32), 1024, 5)):
        plain, ghosts = (models.build(f"hoffer.{name}", shape, 10).to(device) for _ in range(2))
        convert(ghosts, 128)
        order = models.memory_format(plain)
        x = torch.rand(batch, *shape, device=device).to(memory_format=order).requires_grad_()
        pair = (forward_backward(model.to(memory_format=order), x) for model in (ghosts, plain))
        out.append(ratio("ghost", f"{name} with ghost batch norm, batch {batch}", name, *pair, rounds=rounds))
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
    """Evaluating C1 in chunks of 5000, a pass at batch 250, an update of an LSTM: freed memory kept against given back.

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
        ratio("memory", f"{what}, freed memory kept", "given back", *(partial(order, here, of) for here, _ in pipes), rounds=n)
        for of, what, n in (
            ("evaluate", "C1 evaluated 5000 at a time", 3),
            ("train", "C1 in float32, batch 250", ROUNDS),
            ("language", "an LSTM of 64 units on 10,000 words, 64 streams", ROUNDS),
        )
    ]
    for process in processes:
        process.terminate()
    return out


def _passes(orders, keep: bool) -> None:
    """Evaluate or train, whatever is asked for, in a process that keeps freed memory or not."""
    torch.set_num_threads(1)
    if keep:
        jobs.keep_freed_memory()
    model = models.build("keskar.C1", (3, 32, 32), 10)
    model.to(memory_format=models.memory_format(model))
    x = torch.rand(CHUNK, 3, 32, 32)

    @torch.no_grad()
    def evaluate() -> None:
        with batch_norm_reading(model, "batch"):
            model(x)

    passes = {
        "evaluate": evaluate,
        "train": forward_backward(model, x[:250].clone().requires_grad_()),
        "language": updates(spec_of("smith.LSTM", "wikitext2.valid", 64, options={"width": 64, "depth": 1}), "cpu"),
    }
    while True:
        passes[orders.recv()]()
        orders.send(True)


# ---------------------------------------------------------------- training


def spec_of(network: str, data: str, batch_size: int, **changes) -> Train:
    """A run of SGD with momentum, of which single updates are timed."""
    sgd = OptimizerSpec(name="sgd", learning_rate=0.01, momentum=0.9)
    values = {"data": DataSpec(name=data), "model": network, "optimizer": sgd, "batch_size": batch_size, "updates": 10**6}
    return Train(**values | {"seed": 0} | changes)


def made_up(spec: Train, device: str) -> Data:
    """Random inputs and labels in the shape of the data set, or words of its vocabulary, so that nothing has to be at hand."""
    source, n = lookup(spec.data.name), 4 * spec.batch_size
    if spec.data.is_text:
        x = y = torch.randint(source.n_classes, (n * SEGMENT + spec.batch_size,), device=device)
    else:
        x, y = torch.rand(n, *source.shape, device=device), torch.randint(source.n_classes, (n,), device=device)
    split = Split(x, y)
    return Data(split, split, source.n_classes, "")


def updates(spec: Train, device: str) -> Callable[[], None]:
    """One update of training after another, over and over one epoch."""
    data = made_up(spec, device)
    training = Training(spec, initial_model(spec, data).to(device), data, device, losses_only=True)
    items = itertools.cycle(training._items())
    return lambda: training.advance(next(items))


def plain_updates(spec: Train, device: str, wrap: Callable[[nn.Module], nn.Module] = lambda model: model) -> Callable[[], None]:
    """The same as anyone would write it: float32, data in memory, the usual order of memory, torch's own optimizer."""
    data = made_up(spec, device)
    model = wrap(initial_model(spec, data).to(device)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    items = itertools.cycle(torch.randperm(len(data.train)).to(device).split(spec.batch_size))

    def run() -> None:
        index = next(items)
        loss = F.cross_entropy(model(data.train.x[index]), data.train.y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


NETWORKS = (("F1", "keskar.F1", "mnist", 256), ("C1", "keskar.C1", "cifar10", 64))


def loop(device: str) -> list[dict]:
    """Updates of F1 and C1 against a plain in-memory loop in float32, and the fraction of the matrix peak they attain."""
    out = []
    a = torch.rand(2048, 2048, device=device)
    for label, network, data, batch in NETWORKS:
        for precision, at_least in (("float32", 1.0), ("bfloat16", 1.5)):
            spec = spec_of(network, data, batch, precision=precision)
            ours, plain = updates(spec, device), plain_updates(spec, device)
            out.append(ratio("loop", f"a plain loop, {label}, batch {batch}", f"ours in {precision}", plain, ours, at_least))
            kind = getattr(torch, precision)
            b = a.to(kind)
            peak = 2 * 2048**3 / timed(lambda b=b: b @ b, 3)
            rates = [cost.of_an_update(spec) / timed(ours, 3) for _ in range(3)]
            what = f"operations a second of {label} in {precision}"
            out.append(line("loop", what, "those of a matrix product", [r / peak for r in rates]))
    return out


def sam(device: str) -> list[dict]:
    """Updates of SAM, and of m-SAM with a quarter of the batch, against plain ones."""
    out = []
    for label, network, data, batch in NETWORKS:
        plain = updates(spec_of(network, data, batch), device)
        whole = updates(spec_of(network, data, batch, sam=SamSpec(rho=0.05)), device)
        parts = updates(spec_of(network, data, batch, sam=SamSpec(rho=0.05), slice_size=batch // 4), device)
        out.append(ratio("sam", f"SAM, {label}, batch {batch}", "a plain update", whole, plain, at_most=2.1))
        out.append(ratio("sam", f"SAM on quarters, {label}, batch {batch}", "a plain update", parts, plain, at_most=2.6))
    return out


def checkpoint(device: str) -> list[dict]:
    """Time of writing a checkpoint, as a fraction of the time between two."""
    out = []
    for label, network, data, batch in (*NETWORKS, ("ResNet44", "hoffer.ResNet", "cifar10", 64)):
        spec = spec_of(network, data, batch)
        training = Training(spec, initial_model(spec, made_up(spec, device)).to(device), made_up(spec, device), device)
        training.advance(training._items()[0])
        with tempfile.TemporaryDirectory() as folder:
            kept = jobs.Checkpoint(spec, jobs.Cache(Path(folder) / "weights"))
            seconds = [timed(lambda kept=kept, t=training: kept.save(t.state())) for _ in range(ROUNDS)]
        every = [s / kept.every for s in seconds]
        out.append(line("checkpoint", f"a checkpoint of {label}", f"the {kept.every:g} s between two", every, at_most=0.02))
    return out


def together(device: str) -> list[dict]:
    """Twenty runs of digits that differ in their seeds, one after another against together."""
    out = []
    sgd = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9)
    for width, batch, at_least in ((128, 16, 4.0), (128, 32, 4.0), (128, 64, 4.0), (512, 64, None)):
        specs = [
            spec_of(
                "keskar.F1", "digits", batch, optimizer=sgd, options={"width": width}, seed=seed, updates=50, evaluate_every=50
            )
            for seed in range(20)
        ]

        def single(specs=specs) -> None:
            for spec in specs:
                fit(spec, device)

        what = f"twenty runs of F1 on digits, width {width}, batch {batch}, one after another"
        all_at_once = partial(replicas.fit, specs, device)
        rounds = 3 if at_least else 1  # of width 512 it takes half a minute
        out.append(ratio("replicas", what, "together", single, all_at_once, at_least=at_least, rounds=rounds))
    return out


def workers(device: str) -> list[dict]:
    """Weak scaling: updates of several workers of 32 images each against one of one; and our sum of gradients against DDP's.

    ResNet-8 on CIFAR-10's shape; as many workers as there are cores or GPUs, by twos.
    """
    out, places = [], torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    for size in (k for k in (2, 4, 8) if k <= places):
        with tempfile.TemporaryDirectory() as folder:
            members = [context.Process(target=_member, args=(rank, size, device, Path(folder))) for rank in range(size)]
            for member in members:
                member.start()
            for member in members:
                member.join()
            rounds = json.loads((Path(folder) / "seconds.json").read_text())
        alone, ours, theirs = (statistics.median(of) for of in zip(*rounds, strict=True))
        for what, against, i, j, seconds in (
            (f"an update of {size} workers of 32 images each", "of one of 32", 1, 0, alone),
            (f"an update of {size} workers, gradients added in order", "by DistributedDataParallel", 1, 2, theirs),
        ):
            found = line("workers", what, against, [row[i] / row[j] for row in rounds])
            out.append(found | {"milliseconds": round(1e3 * seconds, 1)})
    return out


def _parallel(model: nn.Module) -> nn.Module:
    """PyTorch's own engine on a network that lies in memory as ours does."""
    return nn.parallel.DistributedDataParallel(model.to(memory_format=models.memory_format(model)))


def _member(rank: int, size: int, device: str, folder: Path) -> None:
    """One of several workers; the first writes the seconds of an update alone, together, and by DDP, round by round."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    network = {"network": "hoffer.ResNet", "data": "cifar10", "options": {"depth": 8}}
    one = spec_of(**network, batch_size=32)
    alone = updates(one, device)
    ours = updates(spec_of(**network, batch_size=32 * size, slice_size=32), device)
    theirs = plain_updates(one, device, _parallel)
    crew, rounds = Workers(), []
    for _ in range(ROUNDS + 1):
        row = []
        for run in (alone, ours, theirs):
            crew.agreed(True)  # all begin together
            row.append(timed(run, 10) if crew.first or run is not alone else 0.0)
        rounds.append(row)
    if crew.first:
        (folder / "seconds.json").write_text(json.dumps(rounds[1:]))  # the first warms up
    torch.distributed.destroy_process_group()


def quick(device: str) -> list[dict]:
    """The training runs of a chapter's quick profile, by the sweep on two workers and by a plain DataLoader loop.

    Both whole, with the start of the workers, evaluations and records; the loop has torch's own number of threads.
    """
    name = "hoffer"
    study = papers.get(name).study(papers.settings(name, profile="quick"))
    runs = [job for job in study.jobs() if isinstance(job, Train)]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
            cache = jobs.Cache(Path(folder) / "weights")
            sweep.complete(runs, Store(Path(folder) / "results"), cache, workers=2, progress=nowhere)

    def plain() -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        for spec in runs:
            loader_run(spec, device)
        torch.set_num_threads(1)

    what = f"a plain DataLoader loop, the {len(runs)} runs of {name}'s quick profile"
    return [ratio("quick", what, "ours on two workers", plain, ours, at_least=5.0, rounds=1)]


def rates(device: str) -> list[dict]:
    """All rates and seeds of one batch of a sweep of Smith et al., by a plain DataLoader loop against together."""
    (f1,) = setups_of(papers.settings("smith", profile="quick")).values()
    encoder = setups_of(papers.settings("smith", profile="cpu"))["auto-encoder 30"]
    on_digits = f1.data.model_copy(update={"name": "digits.inputs"})
    out = []
    for n, of in {"F1": f1, "the auto-encoder": replace(encoder, data=on_digits)}.items():
        for batch in (16, 64):
            curves = (sweep[batch] for sweep in Sweeps(of).epochs.values())
            same = [run for curve in curves for seeds in curve.runs.values() for run in seeds][: replicas.MOST]

            def plain(same=same) -> None:
                for spec in same:
                    loader_run(spec, device)

            what = f"a plain DataLoader loop, {len(same)} runs of a sweep over rates of {n} on digits, batch {batch}"
            out.append(ratio("rates", what, "together", plain, partial(replicas.fit, same, device), at_least=4.0, rounds=2))
    return out


def loader_run(spec: Train, device: str) -> None:
    """A run as anyone would write it, with torch's DataLoader, evaluated as often."""
    data, task = load_data(spec, device), task_of(spec.data.name)
    model = initial_model(spec, data).to(device)
    opt = optimizer(spec.optimizer, model)
    loaders = {
        split: DataLoader(
            TensorDataset(part.x, part.y), spec.batch_size if split == "train" else 5000, shuffle=split == "train"
        )
        for split, part in data.splits.items()
    }
    update = 0
    for epoch in range(1, spec.epochs + 1):
        model.train()
        for x, y in loaders["train"]:
            if update == spec.updates:
                break
            opt.param_groups[0]["lr"] = schedule.of(spec, update)[0]
            update += 1
            opt.zero_grad()
            task.loss(model(x), y).backward()
            if spec.optimizer.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), spec.optimizer.clip_norm)
            opt.step()
        if epoch % spec.evaluate_every == 0 or epoch == spec.epochs:
            model.eval()
            with torch.no_grad():
                for split in ("train", "test") if epoch == spec.epochs else ("test",):
                    for x, y in loaders[split]:
                        float(task.score(model(x), y))


# ---------------------------------------------------------------- the command line


def command(*arguments: str, **environment: str) -> Callable[[], None]:
    """The command line in a process of its own."""
    full = [sys.executable, "-m", "lbgap", *arguments]
    run = partial(subprocess.run, full, env=os.environ | environment, stdout=subprocess.DEVNULL, check=True)
    return lambda: run() and None


def start(device: str) -> list[dict]:
    """Seconds until ``--help`` and ``status`` have answered, which import no torch."""
    del device
    out = []
    for arguments in (("--help",), ("status",)):
        seconds = [timed(command(*arguments)) for _ in range(3)]
        out.append(line("start", f"seconds of lbgap {arguments[0]}", "1 second", seconds, at_most=0.5))
    return out


RECORDS = 20_000


def records(device: str) -> list[dict]:
    """Seconds of ``status`` and ``verdicts`` where there are 20,000 records, the committed ones among them."""
    del device
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FILE.parent, folder, dirs_exist_ok=True)
        store = Store(folder)
        some = next(r for r in store if isinstance(r.job, Train) and r.job.start is None)
        for seed in range(RECORDS - sum(1 for _ in store)):
            other = replace(some, job=some.job.model_copy(update={"seed": 10**6 + seed}))
            store.path(other.key).parent.mkdir(exist_ok=True)
            store.path(other.key).write_text(other.to_json())
        out = []
        for name in ("status", "verdicts"):
            seconds = [timed(command(name, LBGAP_RESULTS=folder)) for _ in range(3)]
            out.append(line("records", f"seconds of lbgap {name}, {RECORDS:,} records", "1 second", seconds, at_most=3.0))
        return out


MEASURED = {
    "ghost": ghost,
    "precision": precision,
    "layout": layout,
    "memory": memory,
    "loop": loop,
    "sam": sam,
    "checkpoint": checkpoint,
    "replicas": together,
    "workers": workers,
    "quick": quick,
    "rates": rates,
    "start": start,
    "records": records,
}


def main(names: list[str], as_json: bool = False) -> None:
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
        for row in new:
            target = f", {row['target']}: {'met' if row['met'] else 'missed'}" if "target" in row else ""
            said = f"{row['what']} / {row['against']}: {row['ratio']:g} [{row['least']:g}, {row['greatest']:g}]{target}"
            print(said, file=sys.stderr if as_json else sys.stdout, flush=True)
        found += new or [row for row in stored["ratios"] if row["name"] == name]
    FILE.write_text(json.dumps(where | {"ratios": found}, indent=1) + "\n")
    if as_json:
        kept = ("name", "what", "against", "ratio", "target", "met")
        print(json.dumps([{key: row.get(key) for key in kept} for row in found], indent=1))


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--json"], "--json" in sys.argv[1:])
