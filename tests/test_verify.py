"""Repeating recorded jobs: what was recorded honestly agrees, what was not differs, here and elsewhere."""

import json
import re
from dataclasses import replace

import pytest
import torch
from conftest import digits_run

from lbgap import cost, papers, verify
from lbgap.jobs import Cache, execute
from lbgap.records import Record, Store
from lbgap.spec import DataSpec, Measure, OptimizerSpec

HERE, ELSEWHERE = {}, {"device": "another processor"}


def altered(record: Record, *path: str, factor: float = 1.0, **provenance) -> Record:
    """The record with one number multiplied, as if it had been made so: its file has a valid digest."""
    results = json.loads(json.dumps(record.results))
    if path:
        *outer, last = path
        at = results
        for name in outer:
            at = at[name]
        at[last] *= factor
    return replace(record, results=results, provenance=record.provenance | provenance)


def checked(store: Store, **options) -> list[verify.Check]:
    """All checks of a store."""
    return list(verify.verify(store, **options))


@pytest.fixture
def recorded(store, cache) -> list[Record]:
    """Six runs in the store, longer than fifty updates."""
    return [store.put(execute(digits_run(seed=seed, epochs=5), cache, "cpu")) for seed in range(6)]


@pytest.fixture(scope="module")
def references(tmp_path_factory) -> list[Record]:
    """The records of the papers' reference jobs, made here."""
    cache = Cache(tmp_path_factory.mktemp("weights"))
    return [execute(job, cache, "cpu") for job in verify.reference_jobs()]


@pytest.fixture
def long(monkeypatch):
    """As if every job took long: only beginnings are repeated."""
    monkeypatch.setattr(verify, "CHEAP", 0.0)


# ---------------------------------------------------------------- with one arithmetic


def test_what_takes_seconds_is_repeated_whole_and_comes_out_identical(store, recorded):
    checks = checked(store, sample=6)
    assert {check.key for check in checks} == {record.key for record in recorded}
    assert {(c.verdict, c.compared, c.difference, c.note) for c in checks} == {("agrees", "all numbers", 0.0, "identical")}


def test_of_what_takes_long_the_beginning_is_repeated(store, recorded, long):
    checks = checked(store, sample=2)
    assert {(check.verdict, check.compared) for check in checks} == {("agrees", "updates 1, 10, 50")}
    # the same machine: nothing but the rounding of the record to six digits
    assert all(check.difference < 1e-5 for check in checks)
    assert {check.compared for check in checked(store, sample=2, full=True)} == {"all numbers"}


@pytest.mark.parametrize("update", ["1", "10", "50"])
@pytest.mark.parametrize("full", [False, True])
def test_a_wrong_loss_differs(store, cache, update, full, long):
    store.put(altered(execute(digits_run(epochs=5), cache, "cpu"), "loss_at", update, factor=1.01))
    (check,) = checked(store, full=full)
    assert check.verdict == "differs"
    assert check.difference == pytest.approx(0.01 / 1.01, rel=1e-3)


@pytest.mark.parametrize(
    "path", [("final", "test", "batch", "accuracy"), ("distance", "value", 3), ("curve", "train_loss", 0), ("updates",)]
)
def test_any_other_wrong_number_is_seen_by_a_whole_run_only(store, cache, path, long):
    store.put(altered(execute(digits_run(epochs=5), cache, "cpu"), *path, factor=0.99))
    (beginning,), (whole,) = checked(store), checked(store, full=True)
    assert beginning.verdict == "agrees"
    assert (whole.verdict, whole.note) == ("differs", "")
    assert whole.difference == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("full", [False, True])
def test_a_run_that_diverges_when_repeated_differs(store, cache, full):
    """Recorded as sound; its first loss is right, and then it overflows."""
    run = digits_run(optimizer=OptimizerSpec(name="sgd", learning_rate=1e12))
    sound = execute(digits_run(), cache, "cpu").results
    first = execute(run, cache, "cpu").results["loss_at"]["1"]
    provenance = execute(digits_run(), cache, "cpu").provenance
    store.put(Record(run, sound | {"loss_at": {"1": first, "10": 2.0}}, provenance))
    (check,) = checked(store, full=full)
    assert check.verdict == "differs"


def test_a_measurement_is_checked_by_its_runs_and_then_its_number(store, cache, long):
    """A path between two runs, the second of which was recorded wrongly; then its own number."""
    runs = [execute(digits_run(seed=seed, epochs=5), cache, "cpu") for seed in range(2)]
    path = execute(Measure(kind="path", arguments={"points": 5}, of=tuple(r.job.at() for r in runs)), cache, "cpu")
    for name, records, options, verdict, compared in (
        ("sound", [*runs, path], {}, "agrees", "updates 1, 10, 50"),
        ("parent", [runs[0], altered(runs[1], "loss_at", "10", factor=1.01), path], {}, "differs", "updates 1, 10, 50"),
        ("number", [*runs, altered(path, "test_loss", 2, factor=1.01)], {}, "agrees", "updates 1, 10, 50"),
        ("whole", [*runs, altered(path, "test_loss", 2, factor=1.01)], {"full": True}, "differs", "all numbers"),
        ("honest", [*runs, path], {"full": True}, "agrees", "all numbers"),
    ):
        other = Store(store.folder / name)
        for record in records:
            other.put(record)
        (check,) = [c for c in checked(other, sample=3, **options) if c.key == path.key]
        assert (check.kind, check.verdict, check.compared) == ("path", verdict, compared), name


def test_what_is_measured_on_a_replica_is_checked_as_one(store, cache):
    """By its run's first loss: alone the run ends elsewhere, and so does what is measured on it."""
    run = execute(digits_run(epochs=5), cache, "cpu", keep=[1])
    path = execute(Measure(kind="path", arguments={"points": 5}, of=(run.job.at(), run.job.at(1))), cache, "cpu")
    store.put(altered(run, replicas=4))
    store.put(altered(path, "test_loss", 2, factor=1.01))
    assert {(c.verdict, c.compared) for c in checked(store, sample=2)} == {("agrees", "update 1")}


def test_what_only_one_of_two_has_is_no_number_in_json(store, cache):
    record = execute(digits_run(epochs=5), cache, "cpu")
    del (held := altered(record)).results["curve"]["train_loss"][0]
    store.put(held)
    (check,) = checked(store, full=True)
    assert (check.verdict, check.compared, check.difference) == ("differs", "all numbers", None)
    json.dumps(check.as_dict(), allow_nan=False)


def test_runs_from_other_runs_weights_are_checked_by_these_and_then_whole(store, cache):
    first = store.put(execute(digits_run(epochs=2), cache, "cpu"))
    warm = store.put(_warm(first, cache))
    verdicts = {check.key: (check.verdict, check.compared) for check in checked(store)}
    assert verdicts == {record.key: ("agrees", "all numbers") for record in (first, warm)}


def _warm(first: Record, cache: Cache) -> Record:
    execute(first.job, cache, "cpu", keep=(1,))
    return execute(digits_run(seed=1, start=first.job.at(1)), cache, "cpu")


def test_a_job_is_repeated_with_the_threads_of_its_record(store, cache, long):
    """Sums over more threads are taken in another order."""
    record = store.put(execute(digits_run(batch_size=700, width=512, epochs=25), cache, "cpu"))
    verify.torch.set_num_threads(2)
    (check,) = checked(store)
    assert verify.torch.get_num_threads() == record.provenance["threads"] == 1
    assert (check.compared, check.verdict) == ("updates 1, 10, 50", "agrees")
    assert check.difference < 5e-6, "the rounding of the record to six digits"


# ---------------------------------------------------------------- elsewhere


def test_elsewhere_the_first_loss_alone_is_compared(store, cache):
    """Rounding is amplified from then on: the fiftieth may differ by a half."""
    true = execute(digits_run(epochs=5), cache, "cpu")
    rounded = altered(altered(true, "loss_at", "50", factor=1.5), "loss_at", "1", factor=1 + 5e-6)
    store.put(replace(rounded, provenance=true.provenance | ELSEWHERE))
    for full in (False, True):
        (check,) = checked(store, full=full)
        assert (check.verdict, check.compared) == ("agrees", "update 1")
        assert check.difference == pytest.approx(5e-6, rel=0.5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("provenance", [ELSEWHERE, {"torch": "1.0"}])
def test_elsewhere_the_first_loss_is_held_to_what_rounding_leaves(store, cache, precision, provenance):
    true = execute(digits_run(precision=precision), cache, "cpu")
    for times, verdict in ((0.5, "agrees"), (2.0, "differs")):
        other = Store(store.folder / verdict)
        other.put(altered(true, "loss_at", "1", factor=1 + times * verify.FIRST[precision], **provenance))
        assert [check.verdict for check in checked(other)] == [verdict]


# ---------------------------------------------------------------- reference jobs


def test_every_paper_has_reference_jobs_that_need_no_data_set():
    for name, paper in papers.papers().items():
        study = paper.study(papers.settings(name, profile="quick"))
        assert any(job.kind == "train" for job in study.reference), name
        assert {job.run.data.name for job in study.reference} == {"digits"}
        assert all(cost.seconds(job, "cpu") < 1 for job in study.reference), "short, so that rounding is hardly amplified"
    assert any(job.kind == "sharpness" for job in verify.reference_jobs())


def test_the_committed_references_come_out_again():
    """Of the committed records, without any data set: at least one of every chapter, whatever processor this is."""
    from lbgap import paths

    store = Store(paths.ROOT / "results")
    checks = [check for check in checked(store, sample=5) if check.verdict != "skipped"]
    assert {check.key for check in checks} == {job.key for job in verify.reference_jobs()}
    assert {check.verdict for check in checks} == {"agrees"}


@pytest.mark.parametrize("provenance", [HERE, ELSEWHERE])
def test_references_are_repeated_whole_wherever_they_were_made(store, references, provenance):
    for record in references:
        store.put(altered(record, **provenance))
    checks = checked(store, sample=0)
    assert [check.key for check in checks] == [record.key for record in references]
    assert {(check.verdict, check.compared) for check in checks} == {("agrees", "all numbers")}


@pytest.mark.parametrize("provenance", [HERE, ELSEWHERE])
@pytest.mark.parametrize(
    ("kind", "path", "factor"),
    [
        ("train", ("final", "test", "batch", "accuracy"), 1.01),
        ("train", ("loss_at", "1"), 1.001),
        ("train", ("curve", "train_loss", -1), 1.1),
        ("sharpness", ("value",), 1.1),
    ],
)
def test_an_edited_reference_is_caught_wherever_it_was_made(store, references, kind, path, factor, provenance):
    """Its digest was made anew: nothing but repeating it tells."""
    edited = next(record for record in references if record.job.kind == kind)
    for record in references:
        store.put(altered(record, *(path if record is edited else ()), factor=factor, **provenance))
    verdicts = {check.key: check.verdict for check in checked(store, sample=0)}
    assert verdicts.pop(edited.key) == "differs"
    # what measures the run's weights rests on the run
    assert {v for key, v in verdicts.items()} <= ({"agrees", "differs"} if path == ("loss_at", "1") else {"agrees"})


# ---------------------------------------------------------------- what is drawn


def test_a_sample_is_drawn_from_the_whole_store_and_repeatably(store, recorded, long):
    def draw(sample, seed):
        return [check.key for check in checked(store, sample=sample, seed=seed)]

    assert draw(2, 0) == draw(2, 0)
    assert len(set(draw(4, 1))) == 4
    assert len({key for seed in range(6) for key in draw(2, seed)}) > 2
    assert sorted(draw(100, 0)) == sorted(record.key for record in recorded)


def test_what_cannot_be_repeated_is_not_drawn(store, cache):
    """A measurement of a run that has no record, a diverged run, a GPU's record where there is none."""
    run = digits_run()
    true = execute(run, cache, "cpu")
    store.put(execute(Measure(kind="sharpness", arguments={"iterations": 1}, of=(run.at(),)), cache, "cpu"))
    store.put(execute(digits_run(seed=2, optimizer=OptimizerSpec(name="sgd", learning_rate=1e12)), cache, "cpu"))
    if not verify.torch.cuda.is_available():
        store.put(altered(execute(digits_run(seed=3), cache, "cpu"), device="NVIDIA H200"))
    assert checked(store, sample=100) == []
    store.put(true)
    assert {check.kind for check in checked(store, sample=100)} == {"train", "sharpness"}


def test_absent_data_are_named_once_and_others_drawn_instead(store, cache):
    other = execute(digits_run(), cache, "cpu")
    store.put(other)
    for seed in range(5):
        store.put(Record(digits_run(seed=seed, data=DataSpec(name="mnist"), updates=3), other.results, other.provenance))
    skipped, check = checked(store, sample=1)
    assert (skipped.verdict, check.key, check.verdict) == ("skipped", other.key, "agrees")
    assert "'mnist' not found" in skipped.note


def test_a_negative_sample_is_refused(store):
    with pytest.raises(ValueError, match="^sample is -1; accepted is 0 or more$"):
        checked(store, sample=-1)


def test_one_record_is_repeated_by_its_key(store, recorded):
    (check,) = checked(store, keys=[recorded[3].key[:6]])
    assert (check.key, check.verdict, check.note) == (recorded[3].key, "agrees", "identical")
    with pytest.raises(ValueError, match="^key is 'abc'; accepted is the key of a record in "):
        checked(store, keys=["abc"])


@pytest.mark.parametrize("what", ["diverged", "no run", "another device"])
def test_a_key_that_cannot_be_repeated_says_why(store, cache, what):
    run = digits_run()
    record = execute(run, cache, "cpu")
    if what == "no run":
        record = replace(record, job=Measure(kind="sharpness", of=(run.at(),)))
        sentence = f"which rests on run {run.key}; accepted is one whose runs have records"
    elif what == "diverged":
        record = replace(record, results=record.results | {"diverged": True})
        sentence = "accepted is one of a run that did not diverge"
    else:
        record = replace(record, provenance=record.provenance | {"device": "NVIDIA Imaginary"})
        sentence = "made on NVIDIA Imaginary; accepted is one made on a device that is here"
        if torch.cuda.is_available():
            pytest.skip("a GPU is here")
    store.put(record)
    with pytest.raises(ValueError, match=f"^key is '{record.key}'.*{re.escape(sentence)}$"):
        checked(store, keys=[record.key])
