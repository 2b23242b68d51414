"""Repeating recorded runs: what was recorded honestly agrees, what was not differs."""

import json
from dataclasses import replace

import pytest
from conftest import digits_run

from lbgap.jobs import execute
from lbgap.records import Record
from lbgap.spec import DataSpec, Measure, OptimizerSpec
from lbgap.verify import verify


def altered(record: Record, *path: str, factor: float = 1.0, **provenance) -> Record:
    """The record with one number multiplied, as if it had been made so: its file has a valid digest."""
    results = json.loads(json.dumps(record.results))
    *outer, last = path
    at = results
    for name in outer:
        at = at[name]
    at[last] *= factor
    return replace(record, results=results, provenance=record.provenance | provenance)


@pytest.fixture
def recorded(store, cache) -> list[Record]:
    """Six runs in the store, longer than fifty updates."""
    return [store.put(execute(digits_run(seed=seed, epochs=5), cache, "cpu")) for seed in range(6)]


def test_fresh_records_agree(store, recorded):
    checks = list(verify(store, sample=6, device="cpu"))
    assert {check.key for check in checks} == {record.key for record in recorded}
    assert {check.verdict for check in checks} == {"agrees"}
    # the same machine: nothing but the rounding of the record to six digits
    assert all(check.loss_difference < 1e-5 for check in checks)


def test_whole_runs_come_out_identical(store, recorded):
    for check in verify(store, sample=2, full=True, device="cpu"):
        assert (check.verdict, check.note, check.accuracy_difference) == ("agrees", "identical", 0.0)


@pytest.mark.parametrize("update", ["1", "10", "50"])
def test_a_wrong_loss_differs(store, cache, update):
    store.put(altered(execute(digits_run(epochs=5), cache, "cpu"), "loss_at", update, factor=1.01))
    for full in (False, True):
        (check,) = verify(store, full=full, device="cpu")
        assert check.verdict == "differs"
        assert check.loss_difference == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_a_wrong_end_is_seen_by_a_whole_run_only(store, cache):
    true = execute(digits_run(epochs=5), cache, "cpu")
    wrong = altered(true, "final", "test", "batch", "accuracy", factor=0.9)
    store.put(wrong)
    (beginning,) = verify(store, device="cpu")
    assert beginning.verdict == "agrees"
    (whole,) = verify(store, full=True, device="cpu")
    assert whole.verdict == "differs"
    assert whole.accuracy_difference == pytest.approx(true.results["final"]["test"]["batch"]["accuracy"] * 0.1, rel=1e-4)
    assert whole.note != "identical"


@pytest.mark.parametrize("full", [False, True])
def test_a_run_that_diverges_when_repeated_differs(store, cache, full):
    """Recorded as sound; its first loss is right, and then it overflows."""
    run = digits_run(optimizer=OptimizerSpec(name="sgd", learning_rate=1e12))
    sound = execute(digits_run(), cache, "cpu").results
    first = execute(run, cache, "cpu").results["loss_at"]["1"]
    provenance = execute(digits_run(), cache, "cpu").provenance
    store.put(Record(run, sound | {"loss_at": {"1": first, "10": 2.0}}, provenance))
    (check,) = verify(store, full=full, device="cpu")
    assert check.verdict == "differs"


def test_a_sample_is_drawn_from_the_whole_store_and_repeatably(store, recorded):
    def draw(sample, seed):
        return [check.key for check in verify(store, sample=sample, seed=seed, device="cpu")]

    assert draw(2, 0) == draw(2, 0)
    assert len(set(draw(4, 1))) == 4
    assert len({key for seed in range(6) for key in draw(2, seed)}) > 2
    assert sorted(draw(100, 0)) == sorted(record.key for record in recorded)


def test_what_cannot_be_repeated_alone_is_not_drawn(store, cache):
    run = digits_run()
    true = execute(run, cache, "cpu")
    store.put(execute(digits_run(seed=1, start=run.at()), cache, "cpu"))
    store.put(execute(Measure(kind="sharpness", arguments={"iterations": 1}, of=(run.at(),)), cache, "cpu"))
    store.put(execute(digits_run(seed=2, optimizer=OptimizerSpec(name="sgd", learning_rate=1e12)), cache, "cpu"))
    store.put(altered(execute(digits_run(seed=3), cache, "cpu"), "loss_at", "1", device="NVIDIA H200"))
    assert list(verify(store, sample=100, device="cpu")) == []
    store.put(true)
    assert [check.key for check in verify(store, sample=100, device="cpu")] == [run.key]


def test_absent_data_is_a_reason_to_skip(store, cache):
    run = digits_run(data=DataSpec(name="mnist"), updates=3)
    other = execute(digits_run(), cache, "cpu")
    store.put(Record(run, other.results, other.provenance))
    (check,) = verify(store, device="cpu")
    assert check.verdict == "skipped"
    assert "'mnist' not found" in check.note


def test_no_sample_is_refused(store):
    with pytest.raises(ValueError, match="^sample is 0; accepted is 1 or more$"):
        next(verify(store, sample=0))
