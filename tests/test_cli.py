"""The command line: exit codes, sentences, machine-readable output, and a dry run that runs nothing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import digits_run

from lbgap import cli, cost, papers, sweep
from lbgap.jobs import execute
from lbgap.records import Store


@pytest.fixture
def lbgap(monkeypatch, capsys):
    """Run the command line in this process; gives exit code, output and errors."""

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["lbgap", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def results(store, monkeypatch) -> Store:
    """The store that commands work on."""
    monkeypatch.setenv("LBGAP_RESULTS", str(store.folder))
    return store


@pytest.fixture
def recorded(results, cache):
    """Two runs in the store."""
    return [results.put(execute(digits_run(seed=seed, epochs=5), cache, "cpu")) for seed in range(2)]


# ---------------------------------------------------------------- bad input

READING = ("status", "verdicts", "verify", "records pack p.jsonl")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("run keskr --profile cpu", "paper is 'keskr'; accepted are "),
        ("run keskar --profile fast", "profile is 'fast'; accepted is 'quick', 'cpu' or 'paper'"),
        ("run keskar --profile cpu --only table9", "only is 'table9'; nearest are table"),
        ("run keskar --profile cpu --only xyz", "only is 'xyz'; accepted are table2, table3, "),
        ("run keskar --profile cpu --networks F9", "networks contains 'F9'; profile cpu accepts F1, C1, C3\n"),
        ("run keskar --profile quick --networks C1", "networks contains 'C1'; profile quick accepts F1"),
        ("run keskar --profile cpu --seeds 0", "seeds is 0; accepted is greater than or equal to 1"),
        ("run keskar --profile cpu --minutes 0", "minutes is 0; accepted is a number above 0"),
        ("run keskar --profile cpu --minutes nan", "minutes is nan; accepted is a number above 0"),
        ("run keskar --profile cpu --workers 0", "workers is 0; accepted is 1 or more"),
        ("run keskar --profile cpu --seeds x", "seeds is 'x'; accepted is a whole number"),
        ("run keskar --profile cpu --minutes soon", "minutes is 'soon'; accepted is a number above 0"),
        ("run keskar", "profile is not given; keskar accepts quick, cpu, paper"),
        ("run", "the following arguments are required: PAPER"),
        ("run keskar --only", "argument --only: expected at least one argument"),
        ("walk", "argument COMMAND: invalid choice: 'walk'"),
        ("status --jsn", "unrecognized arguments: --jsn"),
        ("records", "the following arguments are required: COMMAND"),
        ("verify --sample 1.5", "sample is '1.5'; accepted is a whole number"),
        *((f"{command} --results nowhere", "results is nowhere; accepted is a folder of records") for command in READING),
        ("records pack .", "file is .; accepted is the name of a file, in a folder that is there"),
        ("records pack nowhere/p", "file is nowhere/p; accepted is the name of a file, in a folder that is there"),
        ("records merge .", "file is .; accepted is a file that 'records pack' wrote"),
        ("status keskr", "paper is 'keskr'; accepted are "),
        ("verdicts keskr", "paper is 'keskr'; accepted are "),
        ("verify --sample -1", "sample is -1; accepted is 0 or more"),
        ("records merge nowhere.jsonl", "file is nowhere.jsonl; accepted is a file that 'records pack' wrote"),
        ("data --fetch timit", "fetch is 'timit'; accepted are mnist, cifar10, cifar100"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_code_2(lbgap, results, arguments, sentence):
    code, out, errors = lbgap(*arguments.split())
    assert code == 2
    assert out == ""
    assert errors.startswith(f"lbgap: {sentence}")
    assert errors.count("\n") == 1
    assert not results.folder.exists()


def test_a_file_is_no_store(lbgap, tmp_path):
    (tmp_path / "file").write_text("")
    for command in (*READING, "run keskar --profile quick --dry-run", "records merge file"):
        code, _, errors = lbgap(*command.split(), "--results", tmp_path / "file")
        assert code == 2
        assert "Traceback" not in errors and errors.count("\n") == 1


def test_an_empty_store_does_not_replace_what_was_packed(lbgap, results, tmp_path):
    results.folder.mkdir()
    (tmp_path / "packed").write_text("kept")
    code, _, errors = lbgap("records", "pack", tmp_path / "packed")
    assert (code, errors) == (
        2,
        f"lbgap: results is {results.folder}, which holds no record; accepted is a folder of records\n",
    )
    assert (tmp_path / "packed").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packed", results.folder.name]


def test_a_paper_that_cannot_be_read_is_named(lbgap, monkeypatch, tmp_path):
    monkeypatch.setenv("LBGAP_PAPERS", str(tmp_path))
    (tmp_path / "odd.yaml").write_text("claims: []")
    for module, why in (
        (None, "FileNotFoundError"),
        ("x = ", "SyntaxError"),
        ("PROFILES = ()", "AttributeError: .*PaperSettings"),
        ("raise KeyError(1)", "KeyError: 1"),
    ):
        if module:
            (tmp_path / "odd.py").write_text(module)
        code, out, errors = lbgap("status")
        assert (code, out) == (2, "")
        assert re.match(rf"lbgap: paper is {tmp_path}/odd\.yaml, which cannot be read \({why}", errors)
        assert "lbgap.papers.odd" not in sys.modules


def test_a_folder_of_papers_that_is_not_there_is_named(lbgap, monkeypatch, tmp_path):
    monkeypatch.setenv("LBGAP_PAPERS", str(tmp_path / "nowhere"))
    code, _, errors = lbgap("status")
    assert code == 2
    assert errors == f"lbgap: LBGAP_PAPERS is {tmp_path / 'nowhere'}; accepted is a folder of papers\n"


def damage(results: Store, *records) -> None:
    """Cut the records' files short."""
    for record in records:
        path = results.path(record.key)
        path.write_text(path.read_text()[:100])


def test_damaged_records_are_all_named_and_the_rest_is_checked(lbgap, results, cache):
    first, second, sound = (results.put(execute(digits_run(seed=seed), cache, "cpu")) for seed in range(3))
    damage(results, first, second)
    code, out, errors = lbgap("verify")
    assert code == 1
    assert out.split()[:3] == [sound.key, "train", "agrees"]
    paths = sorted(str(results.path(record.key)) for record in (first, second))
    assert [line.split()[2] for line in errors.splitlines()] == paths
    assert errors.count("is truncated") == 2


def test_status_and_verdicts_do_without_damaged_records_and_say_so(lbgap, results, monkeypatch, tmp_path):
    real = sweep.complete
    monkeypatch.setattr(sweep, "complete", lambda jobs, store, minutes, workers, scheduler: real(jobs, store, workers=0))
    command = ("run", "keskar", "--profile", "quick", "--only", "K9", "--seeds", "1", "--results", results.folder)
    assert lbgap(*command)[0] == 0
    small, large = sorted(results, key=lambda record: record.job.batch_size)
    damage(results, small)
    sentence = f"lbgap: record {results.path(small.key)} is truncated or not a record; delete it or restore it\n"
    code, out, errors = lbgap("status", "keskar", "--json", "--results", results.folder)
    assert (code, errors) == (1, sentence)
    assert {(r["profile"], r["table"]): r["done"] for r in json.loads(out)}["quick", "K9"] == 1
    assert lbgap("verdicts", "keskar", "--results", results.folder)[0] == 0, "no verdict rests on it"
    # nothing is run in its place, and what needs it is not run
    code, out, errors = lbgap(*command[:3], "quick", "--only", "K9", "K4", "--seeds", "1", "--results", results.folder)
    assert code == 1
    assert out.startswith("2 done, 0 left, 3 failed"), "the sharpness of the large batch's run alone"
    assert errors.endswith(sentence)
    assert results.path(small.key).read_text().count("\n") < 10


def test_a_verdict_that_rests_on_a_damaged_record_names_it(lbgap, results):
    run = papers.get("keskar").study(papers.settings("keskar", profile="cpu")).jobs(["K1"])[0]
    path = results.path(run.key)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    code, out, errors = lbgap("verdicts", "keskar", "--json")
    assert code == 1
    assert len(json.loads(out)) == sum(len(papers.get("keskar").facts[of]) for of in ("claims", "questions"))
    assert errors == f"lbgap: record {path} is truncated or not a record; delete it or restore it\n"


@pytest.mark.parametrize("place", ["file", "file/below", "loop", "dangling", "/proc/none"])
def test_a_place_that_cannot_be_written_is_found_out_before_anything_runs(lbgap, monkeypatch, tmp_path, place):
    monkeypatch.setattr(sweep, "execute", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "far")
    folder = tmp_path / place
    code, out, errors = lbgap("run", "keskar", "--profile", "quick", "--only", "K9", "--seeds", "1", "--results", folder)
    assert (code, out) == (2, "")
    assert re.match(f"lbgap: results is {re.escape(str(folder))}(; accepted|, where nothing can be written \\()", errors)
    assert errors.count("\n") == 1
    assert "Errno" not in errors


def test_nor_is_a_cache_that_cannot_be_written(lbgap, results, monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "execute", None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LBGAP_CACHE", str(tmp_path / "file"))
    code, _, errors = lbgap("run", "keskar", "--profile", "quick", "--only", "K9", "--seeds", "1", "--results", results.folder)
    assert code == 2
    assert errors == f"lbgap: cache is {tmp_path}/file/weights, where nothing can be written (not a directory)\n"


def test_control_characters_of_an_argument_do_not_reach_the_terminal(lbgap, results):
    for command in (
        ["run", "\x1b[31mred\n"],
        ["status", "--\x1b]0;x\a"],
        ["data", "--fetch", "a\rb"],
        ["verify", "--sample", "\x1b"],
    ):
        code, out, errors = lbgap(*command)
        assert (code, out) == (2, "")
        assert errors.endswith("\n") and errors[:-1].isprintable()


def test_an_empty_name_is_no_data_set(lbgap):
    code, out, errors = lbgap("data", "--fetch", "")
    assert (code, out) == (2, "")
    assert errors.startswith("lbgap: fetch is ''; accepted are mnist, ")


def test_status_and_verdicts_take_no_torch(results):
    """What is recorded is counted, and judged, without loading what trains."""
    code = (
        "import sys\nfrom lbgap import cli\nfor a in (['status'], ['status', '--json'], ['verdicts']):\n"
        " g = cli.parser().parse_args(a); g.command(g)\nassert 'torch' not in sys.modules"
    )
    environment = os.environ | {"LBGAP_RESULTS": str(results.folder)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, check=True)


def test_help_is_there_at_once():
    """Neither torch nor anything else that takes long to load is imported for it."""
    code = "import sys, lbgap.cli; lbgap.cli.parser(); print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "pandas", "pydantic"} & set(loaded)
    assert "lbgap" in loaded


# ---------------------------------------------------------------- run


def test_a_dry_run_lists_jobs_count_operations_and_time_and_runs_nothing(lbgap, results, monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "complete", None)
    code, out, errors = lbgap("run", "keskar", "--profile", "quick", "--dry-run", "--workers", "2")
    assert (code, errors) == (0, "")
    jobs = papers.get("keskar").study(papers.settings("keskar", profile="quick")).jobs()
    *lines, last = out.splitlines()
    assert {line.split()[0] for line in lines} == {job.key for job in jobs}
    assert len(lines) == len(jobs)
    for job, line in {job: line for job in jobs for line in lines if line.startswith(job.key)}.items():
        assert job.kind in line
        assert "digits" in line
        assert f"{cost.operations(job):.2e} operations" in line
    assert last.startswith(f"{len(jobs)} jobs to run, for {len(jobs)} of profile quick")
    total = float(re.search(r"; ([0-9.e+]+) operations;", last)[1])
    assert total == pytest.approx(sum(map(cost.operations, jobs)), rel=5e-3)
    seconds = sum(cost.seconds(job) for job in jobs)
    assert f"about {cost.in_words(seconds)} on one CPU thread, {cost.in_words(seconds / 2)} with --workers 2" in last

    def ends(job) -> float:
        return cost.seconds(job) + max((ends(weights.run) for weights in job.parents), default=0.0)

    many = lbgap("run", "keskar", "--profile", "quick", "--dry-run", "--workers", "1000")[1]
    assert f" {cost.in_words(max(map(ends, jobs)))} with --workers 1000" in many, "children wait for their parents"
    assert not results.folder.exists()
    assert not (tmp_path / "cache").exists()


def test_a_dry_run_of_every_profile_and_part(lbgap, results):
    for profile, only in (("cpu", "table2/F1"), ("paper", "K3"), ("cpu", "batch_sweep")):
        jobs = papers.get("keskar").study(papers.settings("keskar", profile=profile)).jobs([only])
        code, out, _ = lbgap("run", "keskar", "--profile", profile, "--only", only, "--dry-run")
        assert code == 0
        listed = {line.split()[0] for line in out.splitlines()[:-1]}
        parents = {w.run.key for job in jobs for w in job.parents}
        assert {job.key for job in jobs} <= listed <= {job.key for job in jobs} | parents
        assert f"{len(listed)} jobs to run, for {len(jobs)} of profile {profile}" in out


def test_several_names_may_follow_one_option(lbgap, results):
    one = lbgap("run", "keskar", "--profile", "cpu", "--only", "K1", "K9", "--dry-run", "--networks", "C1", "C3")
    assert one[0] == 0
    other = "run keskar --profile cpu --only K1 --only K9 --dry-run --networks C1 --networks C3".split()
    assert one == lbgap(*other)
    assert one != lbgap("run", "keskar", "--profile", "cpu", "--only", "K1", "--dry-run", "--networks", "C1")
    assert one == lbgap("run", "--profile=cpu", "--only=K1", "--only=K9", "--networks", "C1", "C3", "--dry-run", "--", "keskar")


def test_a_run_records_and_a_second_finds_nothing_to_do(lbgap, results, monkeypatch):
    real = sweep.complete
    monkeypatch.setattr(sweep, "complete", lambda jobs, store, minutes, workers, scheduler: real(jobs, store, workers=0))
    command = ("run", "keskar", "--profile", "quick", "--only", "K9", "--seeds", "1", "--results", results.folder)
    code, out, _ = lbgap(*command)
    assert code == 0
    assert out.startswith("2 done, 0 left, 0 failed")
    assert {record.job.batch_size for record in results} == {16, 375}
    assert lbgap(*command)[1].startswith("0 done, 0 left, 0 failed")
    assert "0 jobs to run, for 2 of profile quick" in lbgap(*command, "--dry-run")[1]


def test_a_demonstration_stays_out_of_the_committed_records_and_status_counts_it(lbgap, results, monkeypatch, tmp_path):
    real = sweep.complete
    monkeypatch.setattr(sweep, "complete", lambda jobs, store, minutes, workers, scheduler: real(jobs, store, workers=0))
    assert lbgap("run", "keskar", "--profile", "quick", "--only", "K9", "--seeds", "1")[0] == 0
    assert not results.folder.exists()
    assert len(list(Store(tmp_path / "cache" / "scratch"))) == 2
    done = {(row["profile"], row["table"]): row["done"] for row in json.loads(lbgap("status", "keskar", "--json")[1])}
    assert done["quick", "K9"] == 2
    assert {n for (profile, _), n in done.items() if profile != "quick"} == {0}


def test_a_failed_job_makes_the_exit_code_1(lbgap, results, monkeypatch):
    real = sweep.complete
    monkeypatch.setattr(sweep, "complete", lambda jobs, store, minutes, workers, scheduler: real(jobs, store, workers=0))
    code, out, errors = lbgap("run", "keskar", "--profile", "cpu", "--only", "table2/F1", "--seeds", "1")
    assert code == 1
    assert "0 done, 0 left, 2 failed" in out
    assert errors.count("data set 'mnist' not found") == 1, "said once, not once a job"
    assert "2 jobs cannot run: data set 'mnist' not found" in errors


def test_a_dry_run_says_which_data_are_not_there(lbgap, results):
    code, out, errors = lbgap("run", "keskar", "--profile", "cpu", "--only", "table2/F1", "--seeds", "1", "--dry-run")
    assert (code, len(out.splitlines())) == (0, 3)
    assert errors.startswith("lbgap: data set 'mnist' not found at ") and errors.count("\n") == 1


def test_a_dry_run_names_the_network_its_rate_and_the_variant(lbgap, results):
    """Of Hoffer's ladder, whose rows have names of their own: the steps differ in rate, ghost batch norm and updates."""
    lines = lbgap("run", "hoffer", "--profile", "paper", "--only", "table1/ResNet44", "--seeds", "1", "--dry-run")[
        1
    ].splitlines()
    shown = [re.match(r"\S+  train +(\S+) +cifar10 +batch +(\d+)  rate (\S+) ", line).groups() for line in lines[:-1]]
    assert [batch for _, batch, _ in shown] == ["128", "4096", "4096", "4096", "4096"]
    assert {network for network, _, _ in shown} == {"ResNet44"}
    small, large, *scaled = (float(rate) for _, _, rate in shown)
    assert large == small
    assert scaled == pytest.approx([small * 32**0.5] * 3, rel=1e-3)
    assert ["ghost_batch_size 128" in line for line in lines[:-1]] == [False, False, False, True, True]
    lines = lbgap("run", "keskar", "--profile", "cpu", "--only", "robust", "--seeds", "1", "--dry-run")[1].splitlines()
    assert any("adversarial, size 0.25" in line for line in lines)
    assert any("epsilon 0.001" in line for line in lines)


# ---------------------------------------------------------------- status and verdicts


def test_status_is_json(lbgap, results):
    code, out, _ = lbgap("status", "keskar", "--json")
    assert code == 0
    rows = json.loads(out)
    assert all({"paper", "profile", "table", "done", "missing"} <= set(row) for row in rows)
    assert {row["paper"] for row in rows} == {"keskar"}
    assert {row["profile"] for row in rows} == {"quick", "cpu", "paper"}
    assert all(row["done"] == 0 and isinstance(row["missing"], int) for row in rows)
    for row in rows[:3]:
        study = papers.get("keskar").study(papers.settings("keskar", profile=row["profile"]))
        assert row["missing"] == len(study.jobs([row["table"]]))
    everything = json.loads(lbgap("status", "--json")[1])
    assert [row for row in everything if row["paper"] == "keskar"] == rows
    assert list(dict.fromkeys(row["paper"] for row in everything)) == list(papers.papers())


def test_status_in_words_has_a_line_for_each(lbgap, results):
    rows = json.loads(lbgap("status", "keskar", "--json")[1])
    code, out, _ = lbgap("status", "keskar")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        assert line.split()[:5] == ["keskar", row["profile"], row["table"], "0", "done"]
        assert f"{row['missing']} missing" in line


def test_verdicts_are_json(lbgap, results):
    code, out, _ = lbgap("verdicts", "keskar", "--json")
    assert code == 0
    rows = json.loads(out)
    facts = papers.get("keskar").facts
    assert [row["id"] for row in rows] == [*facts["claims"], *facts["questions"]]
    keys = {"id", "paper", "verdict", "scope", "central", "setting", "unit", "profile", "n", "effect", "interval"}
    assert all(keys <= set(row) for row in rows)
    assert {(row["verdict"], row["n"], row["effect"], row["interval"]) for row in rows} == {("not run", 0, None, None)}
    assert all(row["reason"] for row in rows)


def test_verdicts_in_words_have_a_line_for_each(lbgap, results):
    code, out, _ = lbgap("verdicts")
    assert code == 0
    asked = {name: paper.facts["claims"] | paper.facts.get("questions", {}) for name, paper in papers.papers().items()}
    claims = [(name, *claim) for name, of in asked.items() for claim in of.items()]
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [tuple(line.split()[:2]) for line in lines] == [claim[:2] for claim in claims]
    assert all(text in line for line, (*_, text) in zip(lines, claims, strict=True))
    assert sum("not run" in line for line in lines) == len(claims)


def test_results_may_lie_elsewhere(lbgap, results, recorded, tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(json.loads(lbgap("verify", "--json", "--results", tmp_path / "empty")[1])) == 0
    assert len(json.loads(lbgap("verify", "--json", "--results", results.folder)[1])) == 2


# ---------------------------------------------------------------- verify


def test_verify_agrees_with_fresh_records(lbgap, recorded):
    code, out, _ = lbgap("verify")
    assert code == 0
    assert sorted(line.split()[:3] for line in out.splitlines()) == sorted([r.key, "train", "agrees"] for r in recorded)
    code, out, _ = lbgap("verify", "--full", "--json", "--sample", "1")
    assert code == 0
    (check,) = json.loads(out)
    assert check["verdict"] == "agrees"
    assert check["key"] in {r.key for r in recorded}


def test_verify_differs_where_a_record_is_wrong(lbgap, results, cache):
    """The file is whole and its digest right; the numbers are not what this run gives."""
    true = execute(digits_run(epochs=5), cache, "cpu")
    losses = {update: loss * 1.1 for update, loss in true.results["loss_at"].items()}
    results.put(replace(true, results=true.results | {"loss_at": losses}))
    code, out, _ = lbgap("verify")
    assert code == 1
    assert out.split()[:3] == [true.key, "train", "differs"]
    assert json.loads(lbgap("verify", "--json")[1])[0]["verdict"] == "differs"


def test_a_check_of_nothing_is_no_success(lbgap, results):
    results.folder.mkdir()
    code, out, errors = lbgap("verify", "--json")
    assert (code, json.loads(out)) == (2, [])
    assert (
        errors
        == f"lbgap: results is {results.folder}, of which nothing could be repeated here; accepted is a folder of records\n"
    )


# ---------------------------------------------------------------- records


def test_a_folder_that_cannot_be_listed_is_not_packed_around(lbgap, recorded, results, tmp_path):
    (results.folder / "zz").symlink_to(results.folder / "zz")
    file = tmp_path / "packed"
    code, out, errors = lbgap("records", "pack", file)
    assert (code, out) == (2, "")
    assert errors.startswith(f"lbgap: folder {results.folder}/zz of records cannot be read (")
    assert not file.exists()


def test_records_are_packed_and_merged(lbgap, recorded, tmp_path):
    file, other = tmp_path / "packed", tmp_path / "other"
    code, out, _ = lbgap("records", "pack", file)
    assert (code, out) == (0, f"2 records in {file}\n")
    code, out, _ = lbgap("records", "merge", file, "--results", other)
    assert (code, out) == (0, "2 added, 0 already there, 0 in conflict\n")
    assert sorted(r.key for r in Store(other)) == sorted(r.key for r in recorded)
    assert lbgap("records", "merge", file, "--results", other)[1] == "0 added, 2 already there, 0 in conflict\n"


def test_a_conflict_is_listed(lbgap, recorded, tmp_path):
    other = Store(tmp_path / "other")
    other.put(replace(recorded[0], results=recorded[0].results | {"updates": 1}))
    lbgap("records", "pack", tmp_path / "packed")
    code, out, _ = lbgap("records", "merge", tmp_path / "packed", "--results", other.folder)
    assert code == 1
    assert out.splitlines()[0] == "1 added, 0 already there, 1 in conflict"
    assert recorded[0].key in out.splitlines()[1]
    assert other.get(recorded[0].job).results["updates"] == 1


def test_a_file_without_records_is_refused(lbgap, tmp_path):
    (tmp_path / "packed").touch()
    code, out, errors = lbgap("records", "merge", tmp_path / "packed", "--results", tmp_path / "other")
    assert (code, out) == (2, "")
    assert "which holds no record; accepted is a file that 'records pack' wrote" in errors


def test_a_bad_line_merges_nothing(lbgap, recorded, tmp_path):
    file, other = tmp_path / "packed", tmp_path / "other"
    lbgap("records", "pack", file)
    file.write_text(file.read_text() + "{}\n")
    code, out, errors = lbgap("records", "merge", file, "--results", other)
    assert (code, out) == (2, "")
    assert "packed, line 3" in errors
    assert not other.exists()


# ---------------------------------------------------------------- data


def test_data_sets_are_listed_with_where_they_are_looked_for(lbgap, tmp_path):
    code, out, _ = lbgap("data")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    pictures, texts = {"mnist", "cifar10", "cifar10.half", "cifar100", "imagenet"}, {"ptb", "wikitext2", "wikitext2.valid"}
    elsewhere = {"timit"} | pictures | texts
    assert set(lines) == {"digits", "topics"} | elsewhere
    assert all("embedded" in lines[name] for name in ("digits", "topics"))
    assert all(str(tmp_path / "data") in lines[name] for name in elsewhere)
