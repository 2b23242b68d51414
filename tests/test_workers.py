"""Several gloo processes against one that computes all slices: the same weights, the same record."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import digits_run
from torch import nn

import lbgap
from lbgap import cli, jobs, train, workers
from lbgap.jobs import Cache, Checkpoint
from lbgap.pauses import Stopped
from lbgap.records import Store, tidy
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec, Train
from lbgap.workers import Workers, present

SGD = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
DATA = DataSpec(name="digits", n_train=450, n_test=100)
# 50 updates of four slices, the last of each epoch of one slice of two; with dropout, whose masks must follow the slice
PLAIN = digits_run(64, updates=50, optimizer=SGD, slice_size=16, data=DATA, options={"width": 16, "dropout": 0.2})
SAM = PLAIN.model_copy(update={"sam": SamSpec(rho=0.05), "options": {"width": 16}})
APART = PLAIN.model_copy(update={"shuffling": "each slice", "normalised_by": "slice"})


def _member(rank: int, size: int, folder: Path, all_work: bool, work, *arguments) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        crew = Workers()
        if crew.first or all_work:
            work(*arguments)
        if crew.first and not all_work:
            crew.told(None)
        elif not all_work:
            train.follow(crew)
    finally:
        dist.destroy_process_group()


def together(size: int, folder: Path, work, *arguments, all_work: bool = False) -> None:
    """Have the first of so many processes do some work, and the others take part in it, or do the same."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lbgap.jobs"])
    members = [context.Process(target=_member, args=(rank, size, folder, all_work, work, *arguments)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(120)
    assert [member.exitcode for member in members] == [0] * size


def _train(specs: list[Train], folder: Path) -> None:
    for i, spec in enumerate(specs):
        states = {}
        result = train.fit(spec, on_weights=states.__setitem__)
        torch.save({"result": result, "weights": states[spec.epochs]}, folder / f"{i}.pt")


@pytest.mark.parametrize("size", [2, 3, 4])
def test_processes_end_with_the_weights_of_one(size, tmp_path):
    specs = [PLAIN, SAM, APART] if size == 2 else [PLAIN]
    together(size, tmp_path, _train, specs, tmp_path)
    for i, spec in enumerate(specs):
        found, states = torch.load(tmp_path / f"{i}.pt", weights_only=True), {}
        alone = train.fit(spec, on_weights=states.__setitem__)
        for name, value in states[spec.epochs].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-6)
        assert tidy(found["result"]) == tidy(alone)


def _by_ddp(spec: Train, file: Path) -> None:
    """The same run by PyTorch's own engine, without anything of ours but the first weights and the data."""
    torch.manual_seed(spec.seed)
    data, rank, n = train.load_data(spec), dist.get_rank(), spec.slice_size
    model = train.initial_model(spec, data)
    parallel, of = nn.parallel.DistributedDataParallel(model), spec.optimizer
    sgd = torch.optim.SGD(model.parameters(), of.learning_rate, of.momentum, weight_decay=of.weight_decay)
    order, batches = train.data_order(spec), []
    for _ in range(spec.updates):
        batches = batches or list(torch.randperm(len(data.train), generator=order).split(spec.batch_size))
        own = batches.pop(0)[n * rank : n * rank + n]
        sgd.zero_grad()
        F.cross_entropy(parallel(data.train.x[own]), data.train.y[own]).backward()
        sgd.step()
    if rank == 0:
        torch.save(model.state_dict(), file)


def test_slices_are_what_distributed_data_parallel_trains(tmp_path):
    """Up to rounding, since it adds the gradients of four in another order: 6e-7 was found, 1.4e-6 in the running averages."""
    spec = PLAIN.model_copy(update={"data": DATA.model_copy(update={"n_train": 448}), "options": {"width": 16}})
    states = {}
    train.fit(spec, on_weights=states.__setitem__)
    together(4, tmp_path, _by_ddp, spec, tmp_path / "ddp.pt", all_work=True)
    theirs, ours = torch.load(tmp_path / "ddp.pt", weights_only=True), states[spec.epochs]
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():  # the running averages too
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- put down, taken up, failed


def _put_down(spec: Train, folder: Path) -> None:
    with pytest.raises(Stopped, match="was put down$"):
        jobs.execute(spec, Cache(folder), deadline=time.monotonic())
    with pytest.raises(ValueError, match="^slice_size is 63; "):  # of this run alone
        jobs.execute(spec.model_copy(update={"slice_size": 63}), Cache(folder))
    # and the same processes go on with another run
    jobs.execute(spec.model_copy(update={"seed": 1, "updates": 3}), Cache(folder))


def test_what_several_put_down_one_takes_up(cache, tmp_path):
    together(2, tmp_path, _put_down, PLAIN, cache.folder)
    record = jobs.execute(PLAIN, cache)
    assert record.provenance["resumed"] == 1
    assert record.agrees(jobs.execute(PLAIN, Cache(tmp_path / "other")))


def test_a_process_alone_has_no_workers():
    assert present() is None
    with pytest.raises(ValueError, match="^workers are None; accepted are the processes of a group"):
        Workers()


@pytest.fixture
def launched(monkeypatch):
    """As torchrun starts the second process of two, of which no group is made; what it would be made with."""
    asked = {}
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: asked.update(backend=backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(workers, "Workers", lambda: SimpleNamespace(first=False))
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: asked.update(gpu=number))
    return asked


@pytest.mark.parametrize("gpus, expected", [(0, {"backend": "gloo"}), (2, {"backend": "cpu:gloo,cuda:nccl", "gpu": 1})])
def test_each_worker_has_a_gpu_of_its_own_by_nccl_or_gloo_without(launched, monkeypatch, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with workers.group():
        assert launched == expected


def test_more_workers_than_gpus_are_refused(launched, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="^nproc-per-node is above 1; with 1 GPU accepted is 1$"), workers.group():
        pass


# ---------------------------------------------------------------- torchrun

PAPER = """
from lbgap.papers.paper import Cell, Quantity, Settings, Study, Table, dig
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Train

PROFILES = ("quick",)
PaperSettings = Settings


def study(settings):
    run = Train(
        data=DataSpec(name="digits", n_train=448, n_test=100),
        model="keskar.F1",
        options={"width": 16},
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.1),
        batch_size=64,
        slice_size=16,
        updates=UPDATES,
        seed=0,
    )
    whole = run.model_copy(update={"slice_size": None, "updates": 10})
    loss = Measure(kind="sharpness", arguments={"iterations": 2}, of=(run.at(),))
    quantities = [Quantity(((job,),), dig("diverged")) for job in (whole, run)] + [Quantity(((loss,),), dig("value"))]
    cells = tuple(Cell("digits", f"column {i}", None, q, "digits") for i, q in enumerate(quantities))
    return Study("crew", settings.profile, (Table("table1", "Slices", "", cells, 1),), (), ())
"""
MAIN = """
import os, pathlib
from lbgap import cli, jobs
pathlib.Path(os.environ["HERE"], os.environ["RANK"]).write_text(str(os.getpid()))
jobs.Checkpoint.due = lambda self: self.job.slice_size is not None
cli.main()
"""


def start(home: Path, *arguments: str, size: int = 2) -> subprocess.Popen:
    """``torchrun ... run`` of a paper in slices, whose run in slices saves a checkpoint after every update."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(lbgap.__file__).parents[1]),
        "LBGAP_PAPERS": str(home / "papers"),
        "LBGAP_CACHE": str(home / "cache"),
        "HERE": str(home),
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command = [*launcher, home / "main.py", "run", "crew", "--profile", "quick", "--results", home / "results", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder of papers, and a program that says which process is which."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "crew.yaml").write_text("{}")
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def settle(home: Path, updates: int) -> None:
    """Have the run in slices take so many updates."""
    (home / "papers" / "crew.py").write_text(PAPER.replace("UPDATES", str(updates)))


def records(home: Path) -> dict[str, dict]:
    """Those that are written, by key."""
    files = sorted((home / "results").rglob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def test_a_worker_that_is_killed_ends_all_and_the_next_start_goes_on(home):
    settle(home, 150)
    process = start(home)
    checkpoints = home / "cache" / "checkpoints"
    while process.poll() is None and not list(checkpoints.glob("*.record.pt")):
        time.sleep(0.05)
    os.kill(int((home / "1").read_text()), signal.SIGKILL)
    begun = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - begun < 60
    assert process.returncode not in (0, None)
    assert "lbgap: one of 2 workers is gone, and the others end; what is recorded stays" in said
    assert not list(home.rglob("*.part")) and not [f for f in home.rglob(".*") if f.is_file()]
    before = records(home)
    assert len(before) == 1  # the run without slices, by the first alone

    process = start(home)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "2 done, 0 left, 0 failed" in said
    after = records(home)
    assert before.items() < after.items() and len(after) == 3
    divided = [r["provenance"] for r in after.values() if r["job"].get("slice_size")]
    assert [(p["workers"], p["resumed"]) for p in divided] == [(2, 1)]
    assert not any("workers" in r["provenance"] for r in after.values() if not r["job"].get("slice_size"))
    store, cache = Store(home / "results"), Cache(home / "elsewhere")
    run = next(r.job for r in store if getattr(r.job, "slice_size", None))
    assert store.get(run).results == jobs.execute(run, cache).results
    assert not Checkpoint(run, Cache(home / "cache" / "weights")).path.exists()


@pytest.mark.parametrize("option", ["workers", "scheduler"])
def test_other_processes_than_torchruns_are_refused(option):
    given = cli.parser().parse_args(["run", "keskar", "--profile", "quick", f"--{option}", "2"])
    with pytest.raises(ValueError, match=f"^{option} is 2; under torchrun accepted is "):
        cli._run(given, 2)
