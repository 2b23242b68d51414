"""The store: whole records or none, nothing edited is read, nothing written is lost."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import digits_run

from lbgap import catalogue
from lbgap.records import BadRecord, Record, Store, merge, pack, tidy
from lbgap.spec import Measure

PROVENANCE = {"version": "0", "torch": "2", "device": "a processor", "threads": 1, "seconds": 1.5, "data": "ab"}


def record(seed: int = 0, loss: float = 0.25, **provenance) -> Record:
    """A made-up record of a run."""
    results = {"diverged": False, "loss_at": {"1": loss}, "curve": {"epoch": [1, 2], "test_loss": [loss, 0.5]}}
    return Record(digits_run(seed=seed), results, PROVENANCE | provenance)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- one record


def test_a_record_comes_back_as_it_was_put(store):
    put = record()
    assert put.job not in store
    assert store.get(put.job) is None
    assert store.put(put) == put
    assert put.job in store
    assert store.get(put.job) == put
    assert list(store) == [put]
    key = put.job.key
    assert list(files(store.folder)) == [f"{key[:2]}/{key}.json"]


def test_numbers_of_numpy_and_torch_are_written_as_numbers(store):
    values = {"whole": np.int64(3), "single": np.float32(0.5), "truth": np.bool_(True), "tensor": torch.tensor(2.5)}
    expected = {"whole": 3, "single": 0.5, "truth": True, "tensor": 2.5}
    assert tidy(values) == expected and json.loads(json.dumps(tidy(values))) == expected


def test_a_record_file_says_what_it_is(store):
    """A reader without this library finds the whole job and the results in the file."""
    put = store.put(record())
    body = json.loads(store.path(put.key).read_text())
    assert body["job"] == put.job.canonical() | {"kind": "train", "semantics": put.job.semantics}
    assert body["results"] == put.results
    assert body["provenance"] == put.provenance


def test_an_empty_store_has_no_records(tmp_path):
    assert list(Store(tmp_path / "nowhere")) == []


def test_the_first_of_two_writers_wins(store):
    first, second = record(loss=0.25), record(loss=0.75)
    store.put(first)
    before = files(store.folder)
    assert store.put(second) == first
    assert store.get(first.job) == first
    assert files(store.folder) == before


def test_records_agree_on_results_whoever_made_them():
    assert record().agrees(record(device="another", seconds=9.0))
    assert not record(loss=0.25).agrees(record(loss=0.250001))
    assert not record(seed=0).agrees(record(seed=1))


def test_records_of_replicas_agree_with_single_ones_up_to_the_rounding_of_the_first_losses():
    def of(first: float, tenth: float, diverged: bool = False, **provenance) -> Record:
        return Record(digits_run(), {"diverged": diverged, "loss_at": {"1": first, "10": tenth}, "final": tenth}, provenance)

    alone = of(2.5, 1.5)
    for other, agrees in (
        (of(2.5, 1.5), True),
        (of(2.5 * (1 + 9e-6), 1.5 * (1 + 9e-4)), True),
        (of(2.5 * (1 + 2e-5), 1.5), False),
        (of(2.5, 1.5 * (1 + 2e-3)), False),
        (of(2.5, 1.5, diverged=True), False),
    ):
        together = Record(other.job, other.results, {"replicas": 4})
        assert together.agrees(alone) is alone.agrees(together) is agrees
    assert not alone.agrees(of(2.5, 1.5 * (1 + 9e-4)))


@pytest.mark.parametrize("call", ["fsync", "chmod", "link"])
def test_a_crash_while_writing_leaves_nothing(store, monkeypatch, call):
    def crash(*args, **kwargs):
        raise OSError("the disk is gone")

    kept = store.put(record(seed=1))
    before = files(store.folder)
    with monkeypatch.context() as broken:
        broken.setattr(os, call, crash)
        with pytest.raises(OSError, match="the disk is gone"):
            store.put(record())
    assert files(store.folder) == before
    assert list(store) == [kept]
    assert store.put(record()) == record()


def test_a_file_system_without_links_holds_records_too(store, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EOPNOTSUPP, "operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    kept = store.put(record())
    assert store.put(Record(kept.job, {"value": 9.0}, {})) == kept, "what is there stays"
    assert list(files(store.folder)) == [str(store.path(kept.key).relative_to(store.folder))]
    assert list(Store(store.folder)) == [kept]


def test_what_a_killed_writer_left_is_not_a_record(store, tmp_path):
    kept = store.put(record())
    text = store.path(kept.key).read_text()
    store.path(kept.key).with_name(f".{kept.key}.xyz.part").write_text(text[:40])
    assert list(store) == [kept]
    assert pack(store, tmp_path / "packed") == 1
    assert store.get(kept.job) == kept


# ---------------------------------------------------------------- bad records


def test_a_truncated_record_is_named_and_refused(store, rng):
    kept = store.put(record())
    path = store.path(kept.key)
    text = path.read_text()
    for cut in {0, 1, len(text) - 2, *rng.integers(0, len(text) - 2, 20).tolist()}:
        path.write_text(text[:cut])
        for read in (lambda s: s.get(kept.job), list):
            with pytest.raises(BadRecord) as caught:
                read(Store(store.folder))
            assert str(path) in str(caught.value)
            assert "truncated" in str(caught.value)


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00\x01", b"[]", b"3", b"{}", b'{"digest": "00"}', b"\0" * 300])
def test_a_file_that_is_no_record_is_named_and_refused(store, garbage):
    path = store.path(record().key)
    path.parent.mkdir(parents=True)
    path.write_bytes(garbage)
    with pytest.raises(BadRecord) as caught:
        store.get(record().job)
    assert str(path) in str(caught.value)


def test_every_edit_is_found(store):
    """Each leaf of the file changed by itself, and each entry taken away."""
    kept = store.put(record())
    path = store.path(kept.key)
    text = path.read_text()

    def leaves(value, at=()):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield (*at, name)
            if isinstance(value[name], dict | list):
                yield from leaves(value[name], (*at, name))

    edits = 0
    for *outer, last in list(leaves(json.loads(text))):
        for new in (lambda parent, name: parent.__setitem__(name, 17), lambda parent, name: parent.pop(name)):
            body = json.loads(text)
            parent = body
            for name in outer:
                parent = parent[name]
            new(parent, last)
            path.write_text(json.dumps(body, indent=1))
            with pytest.raises(BadRecord) as caught:
                Store(store.folder).get(kept.job)
            assert str(path) in str(caught.value)
            edits += 1
    assert edits > 40
    path.write_text(text)
    assert Store(store.folder).get(kept.job) == kept


def test_layout_alone_is_no_edit(store):
    """The digest is of the values: another indentation or order of names is the same record."""
    kept = store.put(record())
    path = store.path(kept.key)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert Store(store.folder).get(kept.job) == kept


def test_a_store_sees_what_others_do_to_its_folder(store):
    """A record that was read before may be edited, taken away and put back behind the store's back."""
    kept = store.put(record())
    path = store.path(kept.key)
    text = path.read_text()
    path.write_text(text.replace("0.25", "0.125"))
    with pytest.raises(BadRecord):
        store.get(kept.job)
    path.unlink()
    assert store.get(kept.job) is None
    path.write_text(text)
    assert store.get(kept.job) == kept


def test_a_record_under_another_name_is_refused(store):
    kept, other = store.put(record()), record(seed=1)
    path = store.path(other.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(store.path(kept.key).read_text())
    for read in (lambda: store.get(other.job), lambda: list(store)):
        with pytest.raises(BadRecord, match=f"{path}.*belongs to job {kept.key}"):
            read()


def test_a_record_of_a_job_this_version_does_not_know_is_named(store):
    """Whole and unedited, but written by another version: the sentence still names the file."""
    kept = record()

    class Foreign:
        kind, semantics = "train", 1

        def canonical(self):
            return kept.job.canonical() | {"invented_later": True}

    text = Record(Foreign(), kept.results, kept.provenance).to_json()
    path = store.path(kept.key)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(BadRecord) as caught:
        store.get(kept.job)
    assert str(path) in str(caught.value)
    assert "invented_later" in str(caught.value)


def test_a_file_that_is_no_pack_is_refused_as_such(store, tmp_path):
    (tmp_path / "README.md").write_text("# a title\n")
    sentence = f"record {tmp_path}/README.md, line 1 is truncated or not a record; accepted is a file that 'records pack' wrote"
    with pytest.raises(BadRecord, match=f"^{sentence}$"):
        merge(store, tmp_path / "README.md")


def test_a_deeply_nested_file_is_named(store):
    path = store.path(record().key)
    path.parent.mkdir(parents=True)
    path.write_text("[" * 200_000)
    with pytest.raises(BadRecord, match=f"^record {path} is truncated or not a record"):
        store.get(record().job)


def broken(path: Path, fault: str) -> None:
    """Put something in the place of a record that cannot be read as one."""
    if fault == "folder":
        path.mkdir(parents=True)
    elif fault == "place":
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.write_text("")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to({"loop": path, "dangling": path.with_name("gone")}[fault])


@pytest.mark.parametrize("fault", ["folder", "loop", "dangling", "place"])
def test_what_cannot_be_read_is_named_and_no_record(store, fault):
    """A folder or a link in the place of a file, a file in the place of the folder: not as if there were no record."""
    kept = store.put(record(seed=1))
    path = store.path(record().key)
    broken(path, fault)
    for read in (lambda: store.get(record().job), lambda: list(store)):
        with pytest.raises(BadRecord, match=f"{path.parent}.* (cannot be read|is a link to nothing)") as caught:
            read()
        assert "Errno" not in str(caught.value)
    tolerant = Store(store.folder, tolerant=True)
    assert tolerant.get(record().job) is None
    assert list(tolerant) == [kept]
    assert tolerant.get(kept.job) == kept
    assert all(str(path.parent) in str(error) for error in tolerant.damaged.values())
    if fault != "folder":
        with pytest.raises((OSError, BadRecord), match=f"record {path}"):
            store.put(record())


def test_every_damaged_record_is_named_at_once(store):
    kept = [store.put(record(seed)) for seed in range(5)]
    for one in kept[:3]:
        store.path(one.key).write_text("{}")
    with pytest.raises(BadRecord) as caught:
        list(store)
    assert all(str(store.path(one.key)) in str(caught.value) for one in kept[:3])
    tolerant = Store(store.folder, tolerant=True)
    assert sorted(r.key for r in tolerant) == sorted(r.key for r in kept[3:])
    assert set(tolerant.damaged) == {store.path(one.key) for one in kept[:3]}
    assert [tolerant.get(one.job) for one in kept] == [None] * 3 + kept[3:]


def test_a_folder_taken_away_while_a_record_is_written_is_made_again(store, monkeypatch):
    made = []

    def once(*arguments, **options):
        made.append(arguments)
        if len(made) == 1:
            shutil.rmtree(store.folder)
        return mkstemp(*arguments, **options)

    mkstemp = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", once)
    assert store.put(record()) == record()
    assert len(made) == 2


@pytest.mark.parametrize("link", ["loop", "gone"])
def test_a_link_to_nothing_is_no_store(tmp_path, link):
    (tmp_path / "results").symlink_to(tmp_path / {"loop": "results", "gone": "gone"}[link])
    with pytest.raises(ValueError, match="^results is .*results; accepted is a folder of records$"):
        Store(tmp_path / "results")


# ---------------------------------------------------------------- pack and merge


@pytest.fixture
def other(tmp_path) -> Store:
    """A second store."""
    return Store(tmp_path / "other")


def test_packing_and_merging_copies_a_store(store, other, tmp_path):
    for seed in range(5):
        store.put(record(seed))
    file = tmp_path / "packed.jsonl"
    assert pack(store, file) == 5
    assert len(file.read_text().splitlines()) == 5
    out = merge(other, file)
    assert sorted(out.added) == sorted(r.key for r in store)
    assert (out.same, out.conflicts) == ([], [])
    assert files(other.folder) == files(store.folder)


def test_merging_twice_changes_nothing(store, other, tmp_path):
    for seed in range(3):
        store.put(record(seed))
    pack(store, tmp_path / "packed")
    merge(other, tmp_path / "packed")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in other.folder.rglob("*.json")}
    again = merge(other, tmp_path / "packed")
    assert sorted(again.same) == sorted(r.key for r in store)
    assert (again.added, again.conflicts) == ([], [])
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in other.folder.rglob("*.json")} == before


def test_merging_is_a_union_in_either_order(store, other, tmp_path):
    for seed in (0, 1, 2):
        store.put(record(seed))
    for seed in (2, 3):
        other.put(record(seed))
    pack(store, tmp_path / "a")
    pack(other, tmp_path / "b")
    merge(store, tmp_path / "b")
    merge(other, tmp_path / "a")
    assert files(store.folder) == files(other.folder)
    assert {r.job.seed for r in store} == {0, 1, 2, 3}


def test_numbers_measured_on_replicas_are_no_conflict(store, other, tmp_path):
    """The run trained alone here and among replicas there: what is measured on it differs as the run does."""
    job = Measure(kind="noise_scale", of=(digits_run(epochs=2).at(),), arguments={})

    def of(folder: Store, value: float, **provenance) -> None:
        results = {"diverged": False, "loss_at": {"1": 2.5}, "final": value}
        folder.put(Record(job.run, results, PROVENANCE | provenance))
        folder.put(Record(job, {"value": value}, PROVENANCE))

    of(store, 1.0)
    of(other, 1.001, replicas=4)
    pack(other, tmp_path / "theirs")
    out = merge(store, tmp_path / "theirs")
    assert (out.conflicts, set(out.same)) == ([], {job.key, job.run.key})
    alone = Store(tmp_path / "alone")
    of(alone, 1.001)
    pack(alone, tmp_path / "alone.jsonl")
    assert set(merge(store, tmp_path / "alone.jsonl").conflicts) == {job.key, job.run.key}


def test_what_is_damaged_here_stops_no_merge(store, other, tmp_path):
    for seed in range(3):
        other.put(record(seed))
    pack(other, tmp_path / "theirs")
    store.put(record(1))
    store.path(record(1).key).write_text("{")
    tolerant = Store(store.folder, tolerant=True)
    out = merge(tolerant, tmp_path / "theirs")
    assert set(out.added) == {record(0).key, record(2).key} and not out.same and not out.conflicts
    assert set(tolerant.damaged) == {store.path(record(1).key)}


def test_where_numbers_differ_the_older_record_stays_and_is_listed(store, other, tmp_path):
    mine, theirs = record(0, loss=0.25), record(0, loss=0.5)
    store.put(mine)
    other.put(theirs)
    other.put(record(1))
    pack(other, tmp_path / "theirs")
    before = files(store.folder)
    out = merge(store, tmp_path / "theirs")
    assert out.conflicts == [mine.key]
    assert out.added == [record(1).key]
    assert store.get(mine.job) == mine
    assert before.items() <= files(store.folder).items()


@pytest.mark.parametrize("fault", ["edited", "cut", "empty"])
def test_one_bad_line_and_nothing_is_merged(store, other, tmp_path, fault):
    for seed in range(3):
        store.put(record(seed))
    file = tmp_path / "packed"
    pack(store, file)
    lines = file.read_text().splitlines()
    lines[1] = {"edited": lines[1].replace("0.25", "0.24"), "cut": lines[1][:-1], "empty": ""}[fault]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadRecord, match="packed, line 2 "):
        merge(other, file)
    assert list(other) == []


def test_a_bad_record_is_not_packed(store, tmp_path):
    path = store.path(store.put(record()).key)
    path.write_text(path.read_text().replace("0.25", "0.24"))
    with pytest.raises(BadRecord, match="edited"):
        pack(Store(store.folder), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


# ---------------------------------------------------------------- numbers


def test_floats_keep_six_significant_digits(rng):
    for value in (rng.standard_normal(300) * 10.0 ** rng.integers(-30, 30, 300)).tolist():
        kept = tidy(value)
        assert len(Decimal(repr(kept)).normalize().as_tuple().digits) <= 6
        # half a unit of the sixth digit
        assert abs(Decimal(kept) - Decimal(value)) <= Decimal(1).scaleb(Decimal(value).adjusted() - 5) / 2
        assert tidy(kept) == kept


def test_tidy_is_json_and_keeps_what_it_need_not_change():
    value = {1: (np.float64(1 / 3), True, 12345678, "text", None), "b": {"c": [float("nan"), float("inf"), -float("inf")]}}
    out = tidy(value)
    assert out == {"1": [0.333333, True, 12345678, "text", None], "b": {"c": ["nan", "inf", "-inf"]}}
    assert json.loads(json.dumps(out, allow_nan=False)) == out
    assert [float(v) for v in out["b"]["c"][1:]] == [float("inf"), -float("inf")]


# ---------------------------------------------------------------- two at once

WRITER = """
import sys, time
from pathlib import Path
from test_records import record
from lbgap.records import Store
folder, loss = Path(sys.argv[1]), float(sys.argv[2])
(folder / sys.argv[2]).touch()
while not (folder / "go").exists():
    time.sleep(0.001)
for seed in range(60):
    Store(folder / "results").put(record(seed, loss))
"""


def test_two_processes_may_write_one_store(tmp_path):
    """Both write sixty records under the same keys, with numbers of their own: each record is wholly one writer's."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, loss], env=environment) for loss in ("0.25", "0.75")]
    while not all((tmp_path / loss).exists() for loss in ("0.25", "0.75")):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [writer.wait(120) for writer in writers] == [0, 0]
    held = list(Store(tmp_path / "results"))
    assert {r.job.seed for r in held} == set(range(60))
    assert all(r in (record(r.job.seed, 0.25), record(r.job.seed, 0.75)) for r in held)
    assert len(files(tmp_path / "results")) == 60


def test_the_table_of_records_has_numbers_where_a_run_diverged(store, tmp_path):
    """Weights that are no numbers are so many words in JSON; a run that could not begin has no distance at all."""
    for seed, distances in enumerate(([1.0, 2.5], [1.0, math.nan], [])):
        results = tidy({"diverged": not distances, "distance": {"update": [1, 2], "value": distances}})
        store.put(Record(digits_run(seed=seed), results, PROVENANCE))
    frame = catalogue.frame(store).sort_values("seed")
    assert frame["distance"].to_numpy(float, na_value=math.nan) == pytest.approx([2.5, math.nan, math.nan], nan_ok=True)
    catalogue.write(frame, tmp_path)
    assert pd.read_parquet(tmp_path / "records.parquet")["distance"].notna().sum() == 1
