"""One job in, one record out: what a record holds is what the parts below say, repeatable, and nothing else is touched."""

import io
import json
import math
import platform
import subprocess
import sys

import pytest
import torch
from conftest import digits_run
from torch.nn.functional import cross_entropy

from lbgap import jobs, measure, models, sweep, train
from lbgap.data import load
from lbgap.evaluate import batch_norm_reading
from lbgap.jobs import Cache, execute
from lbgap.papers.paper import Quantity, dig
from lbgap.records import Record, tidy
from lbgap.report import values
from lbgap.spec import DataSpec, Measure, OptimizerSpec

DIVERGES = OptimizerSpec(name="sgd", learning_rate=1e12)


def sharpness_of(*runs, epoch=None, **arguments) -> Measure:
    """A short sharpness measurement."""
    return Measure(kind="sharpness", arguments={"iterations": 2} | arguments, of=tuple(r.at(epoch) for r in runs))


def network(run, cache, epoch=None) -> torch.nn.Sequential:
    """The network of a run, filled from the cache."""
    model = models.build(run.model, (1, 8, 8), 10, **run.options)
    model.load_state_dict(cache.get(run.at(epoch)))
    return model


# ---------------------------------------------------------------- this process

FAULTS = """
import resource, torch
from lbgap import jobs

def faults(mebibytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(mebibytes * 2**18).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(256)
given_back = faults(128)
jobs.keep_freed_memory()
faults(256)
print(given_back, faults(128))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    """A tensor smaller than the last one touches no new page; before, all of its pages were new."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back >= 64  # even with pages of 2 MiB
    assert kept < given_back / 10


LANGUAGE = """
import json, resource, sys
from pathlib import Path
from lbgap import jobs
from lbgap.spec import DataSpec, OptimizerSpec, Train

if sys.argv[2] == "given back":
    jobs.keep_freed_memory = lambda: None
data, sgd = DataSpec(name="topics", n_train=30_000, n_test=1000), OptimizerSpec(name="sgd", learning_rate=1.0)
options = {"width": 8, "depth": 1}
run = Train(data=data, model="smith.LSTM", options=options, optimizer=sgd, batch_size=256, updates=5, seed=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
results = jobs.execute(run, jobs.Cache(Path(sys.argv[1]))).results
print(json.dumps([results, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_language_model_is_the_same_with_a_fraction_of_the_page_faults(tmp_path):
    """The outputs of 256 streams are tensors of 40 MB, made anew for every segment."""
    run = [sys.executable, "-c", LANGUAGE, tmp_path]
    (kept, few), (given_back, many) = (
        json.loads(subprocess.run([*run, how], capture_output=True, text=True, check=True).stdout)
        for how in ("kept", "given back")
    )
    assert kept == given_back
    assert few < many / 3


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(jobs, "GLIBC", "libc.that.is.not.there")
    jobs.keep_freed_memory()


# ---------------------------------------------------------------- the cache of weights


def test_weights_come_back_bit_for_bit(cache, rng):
    run = digits_run()
    state = {"a": torch.randn(3, 4), "count": torch.tensor(7), "empty": torch.zeros(0), "nan": torch.tensor(float("nan"))}
    assert run.at(1) not in cache
    cache.put(run.at(1), state)
    assert run.at(1) in cache
    assert run.at(2) not in cache
    assert digits_run(seed=1).at(1) not in cache
    again = cache.get(run.at(1))
    assert again.keys() == state.keys()
    for name, value in state.items():
        assert again[name].dtype == value.dtype
        assert again[name].numpy().tobytes() == value.numpy().tobytes()


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_weights_that_were_cut_off_are_none(cache, left):
    run = digits_run(epochs=1)
    execute(run, cache)
    whole = cache.path(run.at()).read_bytes()
    cache.path(run.at()).write_bytes(whole[:left])
    assert run.at() not in cache
    with pytest.raises(jobs.WeightsMissing):
        cache.get(run.at())


def test_a_hole_in_the_weights_is_seen_before_they_are_used(cache, store):
    """A power cut may leave a file of full length with zeros in it: the run is repeated for its weights."""
    run = digits_run(epochs=1)
    sharp = execute(sharpness_of(run, iterations=1), cache) if execute(run, cache) else None
    path = cache.path(run.at())
    whole = path.read_bytes()
    assert cache.sound(run.at()) and not cache.sound(run.at(0))
    path.write_bytes(whole[:-600] + bytes(400) + whole[-200:])
    assert run.at() in cache and not cache.sound(run.at())
    store.put(execute(run, Cache(cache.folder / "other")))
    sweep.complete([sharp.job], store, cache, workers=0, device="cpu", progress=io.StringIO())
    assert store.get(sharp.job).results == sharp.results
    assert cache.sound(run.at())


def test_absent_weights_are_an_error(cache):
    run = digits_run()
    missing = f"^weights of run {run.key} after epoch 3 are not in {cache.folder}$"
    for ask in (
        lambda: cache.get(run.at()),
        lambda: execute(sharpness_of(run), cache, "cpu"),
        lambda: execute(digits_run(seed=1, start=run.at()), cache, "cpu"),
    ):
        with pytest.raises(FileNotFoundError, match=missing):
            ask()


def test_a_crash_while_writing_weights_leaves_none(cache, monkeypatch):
    def crash(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError("the disk is gone")

    monkeypatch.setattr(jobs, "save_file", crash)
    with pytest.raises(OSError, match="the disk is gone"):
        cache.put(digits_run().at(), {"a": torch.zeros(1)})
    assert digits_run().at() not in cache


# ---------------------------------------------------------------- training


def test_a_run_is_repeatable_and_its_record_survives_its_file(cache, store, tmp_path):
    run = digits_run()
    first, again = execute(run, cache, "cpu"), execute(run, jobs.Cache(tmp_path / "another"), "cpu")
    assert first.agrees(again)
    assert store.put(first).agrees(first)
    assert store.get(run) == first


def test_a_run_records_what_training_returns(cache):
    run = digits_run()
    record = execute(run, cache, "cpu")
    returned = train.fit(run)
    assert returned.pop("checksum") == record.provenance["data"] == load("digits").checksum
    assert record.results == tidy(returned)
    assert record.job == run


def test_the_recorded_end_is_that_of_the_kept_weights(cache):
    """Loss and accuracy of the weights in the cache, computed here, are those in the record."""
    run = digits_run()
    record = execute(run, cache, "cpu")
    data, model = load("digits"), network(run, cache)
    for split, part in (("train", data.train), ("test", data.test)):
        for reading in ("batch", "running"):
            with batch_norm_reading(model, reading), torch.no_grad():
                logits = model(part.x).double()
            expected = {
                "loss": cross_entropy(logits, part.y).item(),
                "accuracy": 100 * (logits.argmax(1) == part.y).double().mean().item(),
            }
            assert record.results["final"][split][reading] == pytest.approx(expected, rel=1e-5)


def test_weights_are_kept_at_the_end_and_where_asked(cache):
    run = digits_run(epochs=4)
    execute(run, cache, "cpu", keep=(0, 2))
    assert [epoch for epoch in range(5) if run.at(epoch) in cache] == [0, 2, 4]
    torch.manual_seed(run.seed)
    fresh = models.build(run.model, (1, 8, 8), 10, **run.options).state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in cache.get(run.at(0)).items())


def test_a_run_cut_at_an_epoch_is_the_beginning_of_the_longer_run(cache):
    long, short = digits_run(epochs=4), digits_run(epochs=2)
    execute(long, cache, "cpu", keep=(2,))
    execute(short, cache, "cpu")
    after, end = cache.get(long.at(2)), cache.get(short.at())
    assert all(torch.equal(after[name], end[name]) for name in end)


def test_a_warm_start_begins_at_the_other_runs_weights(cache):
    """Recorded loss before the first update: the loss, on some first batch, of the weights it was started from."""
    parent = digits_run(epochs=3)
    execute(parent, cache, "cpu", keep=(1,))
    whole = load("digits").train
    losses = {}
    for epoch in (1, 3):
        child = digits_run(seed=5, batch_size=1438, epochs=1, start=parent.at(epoch))
        record = execute(child, cache, "cpu")
        model = network(parent, cache, epoch).train()
        losses[epoch] = record.results["loss_at"]["1"]
        # one batch holds the whole set, so its order does not matter
        assert losses[epoch] == pytest.approx(cross_entropy(model(whole.x), whole.y).item(), rel=1e-4)
    assert losses[1] != losses[3]


def test_the_seed_decides_the_order_of_the_data_unless_another_does(cache):
    """From the same weights, the first loss is that of the first batch: it tells one order from another."""
    parent = digits_run()
    execute(parent, cache, "cpu")

    def first_loss(seed: int, data_seed: int | None = None) -> float:
        child = digits_run(seed=seed, start=parent.at(), updates=1, data_seed=data_seed)
        return execute(child, cache, "cpu").results["loss_at"]["1"]

    own = [first_loss(seed) for seed in range(5)]
    assert len(set(own)) == 5
    assert len({first_loss(seed, data_seed=7) for seed in range(5)}) == 1
    assert len({first_loss(0, data_seed=order) for order in range(5)}) == 5


# ---------------------------------------------------------------- measuring


def test_a_sharpness_record_is_the_measure_on_the_kept_weights(cache):
    run, data = digits_run(), load("digits").train
    execute(run, cache, "cpu", keep=(1,))
    for epoch in (1, None):
        for arguments in ({"epsilon": 1e-3}, {"epsilon": 5e-4, "space": "random", "p": 5, "seed": 3}):
            record = execute(sharpness_of(run, epoch=epoch, **arguments), cache, "cpu")
            loss = measure.mean_cross_entropy(data.x, data.y)
            direct = measure.sharpness(network(run, cache, epoch), loss, iterations=2, **arguments)
            assert record.results == tidy(direct.as_dict())
            assert record.results["value"] > 0


def test_the_order_in_memory_changes_no_measurement(cache):
    """Convolutional networks are measured channels last; here the same weights in the usual order."""
    data = DataSpec(name="digits", n_train=60, n_test=20)
    run = digits_run(model="keskar.C1", options={}, data=data, batch_size=30, epochs=1)
    execute(run, cache, "cpu")
    record = execute(sharpness_of(run, epsilon=1e-3), cache, "cpu")
    part = load("digits", 60, 20).train
    usual = models.build("keskar.C1", (1, 8, 8), 10)
    usual.load_state_dict(cache.get(run.at()))
    assert all(p.is_contiguous() for p in usual.parameters())
    direct = measure.sharpness(usual, measure.mean_cross_entropy(part.x, part.y), epsilon=1e-3, iterations=2)
    assert record.results["loss"] == pytest.approx(direct.loss, rel=1e-5)
    assert record.results["value"] == pytest.approx(direct.value, rel=1e-3)
    assert direct.value > 0


def test_sharpness_starts_from_the_loss_the_run_ended_with(cache):
    run = digits_run()
    final = execute(run, cache, "cpu").results["final"]["train"]
    for reading in ("batch", "running"):
        record = execute(sharpness_of(run, batch_norm=reading), cache, "cpu")
        assert record.results["loss"] == pytest.approx(final[reading]["loss"], rel=1e-5)


@pytest.mark.parametrize("shape", ["linear", "curvilinear"])
def test_a_path_begins_and_ends_at_its_runs(cache, shape):
    runs = digits_run(128), digits_run(719)
    ends = [execute(run, cache, "cpu").results["final"] for run in runs]
    job = Measure(kind="path", arguments={"shape": shape, "low": 0.0, "high": 1.0, "points": 3}, of=tuple(r.at() for r in runs))
    results = execute(job, cache, "cpu").results
    assert results["alpha"] == [0.0, 0.5, 1.0]
    for split in ("train", "test"):
        for quantity in ("loss", "accuracy"):
            found = [results[f"{split}_{quantity}"][i] for i in (0, -1)]
            # one ends at cos(pi / 2), which is 6e-17 and not 0
            assert found == pytest.approx([end[split]["batch"][quantity] for end in ends], rel=1e-4)


# ---------------------------------------------------------------- divergence


def test_a_diverged_run_is_a_record_without_weights(cache, store):
    run = digits_run(optimizer=DIVERGES)
    record = execute(run, cache, "cpu")
    assert record.results["diverged"] is True
    assert record.results["updates"] < run.updates
    assert not math.isfinite(float(record.results["loss_at"]["10"]))
    assert run.at() not in cache
    assert store.put(record).agrees(record)


def test_what_depends_on_a_diverged_run_is_a_record_like_one(cache):
    """A run that could not begin has the fields of one that did, all of them empty."""
    parent = digits_run(optimizer=DIVERGES)
    began = execute(parent, cache, "cpu").results
    child = execute(digits_run(seed=1, start=parent.at()), cache, "cpu", parent_diverged=True).results
    assert child["diverged"] is True
    assert set(child) <= set(began)
    assert {"updates", "loss_at", "curve", "final", "distance"} <= set(child)
    assert child["curve"].keys() == began["curve"].keys()
    assert child["distance"].keys() == began["distance"].keys()
    assert not any(child["curve"].values())
    assert execute(sharpness_of(parent), cache, "cpu", parent_diverged=True).results == {"diverged": True}


# ---------------------------------------------------------------- what is left as it was


def test_a_job_leaves_the_global_generator_as_it_was(cache, rng):
    run = digits_run()
    before = torch.get_rng_state()
    for job in (run, sharpness_of(run), sharpness_of(run, space="random", p=3)):
        execute(job, cache, "cpu")
        assert torch.equal(torch.get_rng_state(), before)


def test_one_thread_a_job_on_a_processor(cache):
    torch.set_num_threads(2)
    try:
        record = execute(digits_run(), cache, "cpu")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert record.provenance["threads"] == 1


def test_provenance_says_where_a_record_comes_from(cache):
    record = execute(digits_run(), cache, "cpu")
    assert record.provenance["torch"] == torch.__version__
    assert record.provenance["seconds"] >= 0
    assert record.provenance["begun"].endswith("+00:00")
    assert {"version", "python", "device"} <= {name for name, value in record.provenance.items() if value}
    assert isinstance(record, Record)


def test_a_quantity_may_read_how_long_the_processor_was_busy(cache, store):
    """The number is its provenance's, and no result."""
    run = digits_run(epochs=1)
    record = execute(run, cache)
    store.put(record)
    assert 0 < record.provenance["processor_seconds"]
    assert "processor_seconds" not in record.results
    quantity = Quantity(((run,),), dig("provenance.processor_seconds"))
    assert values(quantity, store) == [record.provenance["processor_seconds"]]
