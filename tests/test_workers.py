"""Several gloo processes against one that computes all slices: the same weights, the same record."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import digits_run

from lbgap import train
from lbgap.records import tidy
from lbgap.spec import DataSpec, OptimizerSpec, SamSpec, Train
from lbgap.workers import Workers, present

SGD = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
DATA = DataSpec(name="digits", n_train=450, n_test=100)
# 50 updates of four slices; with dropout, whose masks must follow the slice
PLAIN = digits_run(
    64,
    updates=50,
    optimizer=SGD,
    slice_size=16,
    data=DATA.model_copy(update={"n_train": 448}),
    options={"width": 16, "dropout": 0.2},
)
SAM = PLAIN.model_copy(update={"sam": SamSpec(rho=0.05), "options": {"width": 16}})


def _work(rank: int, size: int, spec: Train, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        states = {}
        result = train.run(spec, on_weights=states.__setitem__)
        torch.save({"result": result, "weights": states[spec.epochs]}, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def together(size: int, spec: Train, folder: Path) -> list[dict]:
    """What each of so many processes ends with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lbgap.train"])
    processes = [context.Process(target=_work, args=(rank, size, spec, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("spec, size", [(PLAIN, 2), (PLAIN, 4), (PLAIN, 3), (SAM, 2)], ids=["2", "4", "3 of 4", "sam, 2"])
def test_processes_end_with_the_weights_of_one(spec, size, tmp_path):
    states = {}
    alone = train.run(spec, on_weights=states.__setitem__)
    for found in together(size, spec, tmp_path):
        for name, value in states[spec.epochs].items():
            torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-6)
        assert tidy(found["result"]["loss_at"]) == tidy(alone["loss_at"])
        assert tidy(found["result"]["final"]) == tidy(alone["final"])


def test_a_process_alone_has_no_workers():
    assert present() is None
    with pytest.raises(ValueError, match="^workers are None; accepted are the processes of a group"):
        Workers()
