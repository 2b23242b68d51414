"""What a notebook calls: parameters are refused in one sentence, committed records are read and never made, prose is filled."""

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from IPython.display import HTML, Markdown
from test_report import HUGE, LARGE, NAN, SMALL, accuracy, put, run, toy

from lbgap import chapter, pages, papers, prose, sweep, train, verdicts
from lbgap.chapter import Chapter, ParameterError
from lbgap.papers.paper import Cell, Paper, Published, Settings, Study, Table
from lbgap.records import Store


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What a page displays: the text of each piece, tags taken out, and figures as their panels' names."""
    out: list[str] = []

    def display(what) -> None:
        assert isinstance(what, HTML | Markdown)
        if panels := re.findall('<svg [^>]*aria-label="([^":]*):', what.data):
            out.append("figure: " + "; ".join(panels))
        else:
            out.append(html.unescape(re.sub("(?:<[^>]*>| )+", " ", re.sub("</?(?:a|span)[^>]*>", "", what.data))))

    for module in (chapter, pages):
        monkeypatch.setattr(module, "display", display)
    return out


@pytest.fixture
def results(store, monkeypatch) -> Store:
    """The store that pages read."""
    monkeypatch.setenv("LBGAP_RESULTS", str(store.folder))
    return store


@pytest.fixture
def page(results, monkeypatch):
    """Start a page of the toy paper of test_report.py."""
    of = Paper("chaptered", {}, Settings, lambda s: toy(s.profile), ("quick", "cpu", "paper"))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    return lambda **parameters: Chapter(of.name, parameters)


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be run."""

    def never(*args, **kwargs):
        raise AssertionError("a page of committed records trains nothing")

    monkeypatch.setattr(sweep, "complete", never)
    monkeypatch.setattr(train, "fit", never)


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"profil": "quick"},
            "profil is not a parameter of this chapter; accepted are profile, minutes, workers, seeds, networks",
        ),
        ({"profile": "quick", "sedes": 3}, "sedes is not a parameter of this chapter; accepted are profile, "),
        ({"profile": "fast"}, "profile is 'fast'; accepted are committed, quick, cpu, paper"),
        ({"profile": 3}, "profile is 3; accepted are committed, quick, cpu, paper"),
        ({"profile": "quick", "seeds": -1}, "seeds is -1; accepted is greater than or equal to 1"),
        ({"profile": "quick", "seeds": "many"}, "seeds is 'many'; accepted is a valid integer"),
        ({"profile": "cpu", "networks": '["F9"]'}, "networks contains 'F9'; profile cpu accepts F1, C1, C3"),
        ({"profile": "quick", "networks": ["C1"]}, "networks contains 'C1'; profile quick accepts F1"),
        (
            {"profile": "quick", "large_batch": 10**6},
            "batch_size is 1000000; digits with 1438 training examples accepts 1 to 1438",
        ),
        ({"profile": "quick", "learning_rate": -0.1}, "learning_rate is -0.1; accepted is greater than 0"),
        ({"profile": "quick", "epochs": 0}, "epochs is 0; accepted is greater than or equal to 1"),
        ({"profile": "quick", "minutes": 0}, "minutes is 0; accepted is a number above 0"),
        ({"profile": "quick", "minutes": "ten"}, "minutes is 'ten'; accepted is a number above 0"),
        ({"profile": "quick", "workers": 0}, "workers is 0; accepted is 1 or more"),
        ({"profile": "quick", "workers": 1.5}, "workers is 1.5; accepted is 1 or more"),
        ({"seeds": 3}, "seeds is 3; profile 'committed' only reads records and accepts no setting"),
        ({"profile": "committed", "networks": ["F1"]}, "networks is ['F1']; profile 'committed' only reads records"),
    ],
)
def test_a_bad_parameter_ends_in_one_sentence(results, untrained, parameters, sentence):
    with pytest.raises(ParameterError) as caught:
        Chapter("keskar", parameters)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert not results.folder.exists()


def test_a_notebook_shows_the_sentence_without_a_traceback():
    error = ParameterError("seeds is -1; accepted is 1 or more")
    assert error._render_traceback_() == ["ParameterError: seeds is -1; accepted is 1 or more"]


def test_values_that_arrive_as_strings_are_read():
    """papermill -p networks '["F1"]' and a YAML file's 1e-3 are strings."""
    written = Chapter("keskar", {"profile": "quick", "networks": '["F1"]', "learning_rate": "1e-2", "seeds": "2"})
    typed = Chapter("keskar", {"profile": "quick", "networks": ["F1"], "learning_rate": 0.01, "seeds": 2})
    assert [job.key for job in written.study.jobs()] == [job.key for job in typed.study.jobs()]
    assert {job.optimizer.learning_rate for job in written.study.jobs() if job.kind == "train"} == {0.01}
    assert written.own


def test_what_is_no_plain_value_of_the_notebook_is_no_parameter():
    """globals() of a notebook: modules, functions, IPython's own names, and None for what is left to the profile."""
    namespace = {"__name__": "__main__", "_": 3, "_i1": "x", "In": ["x"], "Out": {1: 2}, "Chapter": Chapter, "json": json}
    assert Chapter("keskar", namespace | {"seeds": None, "profile": None}).profile == "committed"
    assert Chapter("keskar", namespace | {"profile": "quick", "seeds": None}).study.profile == "quick"


def test_settings_that_change_no_run_are_not_ones_own():
    assert not Chapter("keskar", {"profile": "paper", "networks": ["C1"], "seeds": 2}).own
    assert Chapter("keskar", {"profile": "paper", "epochs": 3}).own


# ---------------------------------------------------------------- committed records


def test_a_committed_page_of_keskar_trains_nothing_and_says_so(results, untrained, shown):
    opened = Chapter("keskar", {})
    assert opened.study is None
    opened.box()
    assert re.search(r"Verdicts\W+of 14 claims, .*: \d+ not run; .*: \d+ not run\.", shown[-1])
    assert re.search(r"Records:\W+0 of \d+ jobs", shown[-1])
    opened.verdicts()
    for claim in (f"K{i}" for i in range(1, 15)):
        assert re.search(rf"\b{claim}\b", shown[-1])
    opened.questions()
    assert re.search(r"\bQ1\b.*not run", shown[-1])
    opened.prose("{Q2}")
    assert shown[-1] == "**not run**"
    for table in ("table2", "table3", "table4", "table6", "table7", "ruler"):
        before = len(shown)
        opened.table(table)
        text = " ".join(shown[before:])
        assert "Not run" in text
        assert f"python -m lbgap run keskar --profile cpu --only {table}" in text  # the smallest that lacks it
    for figure in ("curves", "distance", "paths", "batch_sweep", "along", "warm_start"):
        opened.figure(figure)
        assert f"--only {figure}" in shown[-1]
        before = len(shown)
        opened.records(figure)
        assert len(shown) == before
    opened.live()
    assert "Nothing was trained" in shown[-1]
    opened.live_figure("curves")
    assert not results.folder.exists()


def test_published_numbers_stand_in_the_table(results, shown):
    Chapter("keskar", {}).table("table2")
    assert "98.03 ± 0.07" in shown[0]
    assert "97.81 ± 0.07" in shown[0]


def test_a_table_shows_published_and_recorded_numbers(page, results, shown):
    put(results, SMALL, [90.0, 92.0, 94.0])
    put(results, LARGE, [80.0, 82.0, NAN])
    page().table("tab")
    text = " ".join(shown)
    assert "Table 2 of the paper" in text
    assert "98.00 ± 0.10" in text
    assert "92.00 ± 2.00" in text
    assert "81.00 ± 1.41 (1 diverged)" in text  # deviations -1 and 1: the root of 2
    assert "profile cpu, digits" in text
    assert re.search(r"Not run: b, c\.", text)


def test_rows_that_only_the_larger_profile_has_are_run_in_it(results, monkeypatch, shown):
    def study(settings: Settings) -> Study:
        of = {row: accuracy(b, settings.profile) for row, b in (("a", SMALL), ("b", LARGE))}
        rows = of if settings.profile == "paper" else of | {"b": None}
        cells = tuple(Cell(row, "SB", Published(50.0), quantity) for row, quantity in rows.items())
        return Study("larger", settings.profile, (Table("tab", "A table", "percent", cells, number=2),))

    of = Paper("larger", {}, Settings, study, ("cpu", "paper"))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    put(results, SMALL, [90.0, 92.0, 94.0])  # row a is there, though not with every seed
    Chapter(of.name, {}).table("tab")
    text = " ".join(" ".join(shown).split())
    assert "Not run: b. The whole table: python -m lbgap run larger --profile paper --only tab (10 jobs, " in text


def test_a_row_that_diverged_is_not_called_not_run(page, results, shown):
    put(results, HUGE, [NAN] * 5)
    page().table("tab")
    text = " ".join(shown)
    assert "(5 diverged)" in text
    assert re.search(r"Not run: a, c\.", text)


def test_a_figure_is_drawn_from_records_with_its_numbers(page, results, shown):
    put(results, SMALL, [90.0, 91.0])
    page().figure("fig")
    assert shown == ["figure: left"]
    page().records("fig")
    # seeds 0 and 1 begin at 2 and 3 and end at 1 and 2; Student's t is 12.706, half their distance 0.5
    assert "left SB 2 1 2.5 [-3.853, 8.853] 2 1.5 [-4.853, 7.853]" in " ".join(shown[1].split())
    assert f"left, SB 1 {run(SMALL, 0).key[:8]} 2 {run(SMALL, 1).key[:8]}" in " ".join(shown[1].split())
    assert "--profile cpu --only fig" in shown[1]


@pytest.mark.parametrize("show", ["table", "figure", "records"])
def test_a_misspelt_name_is_refused(page, shown, show):
    with pytest.raises(ValueError, match="figg"):
        getattr(page(), show)("figg")


def test_verdicts_show_effect_interval_n_and_profile(page, results, shown):
    put(results, SMALL, [90.0] * 5)
    put(results, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95])
    page().verdicts()
    text = " ".join(shown[0].split())
    # the interval of test_report.py's closed form: -1 -+ 0.0982
    assert re.search(r"T1 LB below SB holds here reduced: a -1 \[-1\.1, -0\.902\] a: LB - SB 5 cpu", text)
    assert re.search(r"T3 nobody runs this no code for it not run – 0", text)
    page().box()
    assert "reduced or under our readings: 1 hold, 1 not run" in shown[1]
    assert re.search(r"10 of 30 jobs", shown[1])
    assert "made up" in shown[1]


# ---------------------------------------------------------------- prose


def test_prose_is_filled_from_records(page, results, shown):
    put(results, SMALL, [90.0, 90.0, 90.0, 90.0, 90.0])
    put(results, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95])
    page().prose(
        "SB {tab:a:SB} (published {tab:a:SB:published}), huge {tab:b:XB}; T1 is {T1}: {T1:effect}; "
        "T3 {T3}; {cite:p}`keskar2017`"
    )
    assert shown == [
        "SB 90.00 ± 0.00 (published 98.00 ± 0.10), huge (not run); T1 is **holds here**: -1 [-1.1, -0.902]; "
        "T3 **not run**; {cite:p}`keskar2017`"
    ]


def test_prose_reads_points_of_figures_and_single_settings(page, results, shown):
    put(results, SMALL, [90.0] * 5)
    put(results, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95])
    page().prose("{fig:left:SB:1} then {fig:left:SB:2.0}; {T1:effect:LB - SB}; {tab:a:LB:interval}; {tab:b:XB:interval}")
    # the losses of seed s are 2 + s and 1 + s; LB's half interval is
    # Student's 2.776 times the root of 0.025 / 4 / 5
    assert shown == ["4 then 3; -1 [-1.1, -0.902]; +89 [88.9, 89.1]; (not run)"]


def test_a_page_judges_its_claims_once(page, results, shown, monkeypatch):
    """However many numbers its prose asks for; and again when this page itself may have added records."""
    put(results, SMALL, [90.0] * 5)
    put(results, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95])
    judged, judge = [], verdicts.judge_claim
    monkeypatch.setattr(verdicts, "judge_claim", lambda claim, *of: judged.append(claim.id) or judge(claim, *of))
    opened = page()
    for show in (opened.box, opened.verdicts, lambda: opened.prose("{T1} {T1:effect} {T3} {tab:a:SB}")):
        show()
    assert sorted(judged) == sorted(2 * [claim.id for claim in toy("cpu").claims]), "in each of the two profiles"


def test_a_paper_with_a_demonstration_alone_has_a_page(results, shown, monkeypatch):
    of = Paper("demonstrated", {}, Settings, lambda s: toy(s.profile), ("quick",))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    opened = Chapter(of.name, {})
    for show in (opened.verdicts, opened.box, lambda: opened.table("tab"), lambda: opened.figure("fig")):
        show()
    opened.records("fig")
    opened.prose("{tab:a:SB} {T1} {T1:effect} {fig:left:SB:1}")
    pages.front_page("demonstrated")
    pages.status_page("demonstrated")
    text = " ".join(shown)
    assert "demonstrated has profile quick alone; verdicts are given on cpu and paper" in text
    assert "python -m lbgap run demonstrated --profile quick --only tab" in text
    assert "(not run) **not run** – (not run)" in text


def test_prose_without_records_says_not_run(page, shown):
    page().prose("{tab:a:SB} {T1} {T1:effect} {T1:effect:LB - SB} {fig:left:SB:1}")
    assert shown == ["(not run) **not run** – – (not run)"]


@pytest.mark.parametrize("name", ["goyal", "hoffer", "keskar", "sam", "smith"])
def test_a_chapter_without_any_record_says_not_run_in_its_prose(name, results, shown):
    """As where a reader keeps records of his own in a folder that has none yet."""
    book = json.loads((Path(__file__).parents[1] / "book" / f"{name}.ipynb").read_text())
    page = {"chapter": Chapter(name, {})}
    for source in ("".join(cell["source"]) for cell in book["cells"]):
        if source.startswith("chapter.prose("):
            exec(source, page)
    assert len(shown) > 5 and "not run" in " ".join(shown)


def test_prose_reads_a_network_from_the_profile_that_has_it():
    """Where the paper's own profile speaks for a claim, the numbers of a smaller network are still those of its records."""
    store = Store(Path(__file__).parents[1] / "results")
    small, own = (
        verdicts.judge_claim(next(c for c in study.claims if c.id == "S5"), study.profile, store)
        for study in (papers.get("smith").study(papers.settings("smith", profile=profile)) for profile in ("cpu", "paper"))
    )
    assert own.on("F1") is None
    for name in ("S5:F1", "S5:effect:batch 128 - batch 16"):
        told = [re.sub("<[^>]*>", "", prose.Numbers("smith", store, [judged]).named(name)) for judged in (small, own)]
        assert told[0] == told[1] and "not run" not in told[0]


def test_prose_that_asks_for_a_point_that_a_figure_lacks_is_refused(page, results, shown):
    put(results, SMALL, [90.0] * 5)
    for rest in ("left:SB:3", "left:LB:1", "middle:SB:1", "left:SB", "left"):
        with pytest.raises(ValueError, match=f"^prose asks for fig:{rest}; figure fig has no such point$"):
            page().prose(f"{{fig:{rest}}}")
    assert shown == []


@pytest.mark.parametrize(
    "name", ["T9", "tabb:a:SB", "tab:z:SB", "tab:a:XB", "tab:a:SB:publishd", "T1:efect", "tab:a", "tab", "T1:effect:more"]
)
def test_prose_that_asks_for_what_is_not_there_is_refused(page, shown, name):
    with pytest.raises(ValueError, match=re.escape(name.split(":")[0])) as caught:
        page().prose(f"The number is {{{name}}}.")
    assert "\n" not in str(caught.value)
    assert shown == []


def test_an_edited_record_is_never_shown(page, results, shown):
    put(results, SMALL, [90.0] * 5)
    put(results, LARGE, [89.0] * 5)
    path = results.path(run(SMALL, 3).key)
    path.write_text(path.read_text().replace("90.0", "99.0"))
    opened = page()
    for show in (
        opened.verdicts,
        opened.box,
        lambda: opened.table("tab"),
        lambda: opened.figure("fig"),
        lambda: opened.prose("{tab:a:SB}"),
        lambda: pages.front_page("chaptered"),
        lambda: pages.status_page("chaptered"),
    ):
        with pytest.raises(ValueError, match=f"{path} was edited"):
            show()
    assert shown == []


# ---------------------------------------------------------------- this run


@pytest.fixture
def here(monkeypatch) -> list[int]:
    """Sweeps run in this process; the number of jobs of each is noted."""
    real, noted = sweep.complete, []

    def run_here(jobs, store, cache, minutes=None, workers=1, **rest):
        outcome = real(jobs, store, cache, minutes, 0, **rest)
        noted.append(outcome.done)
        return outcome

    monkeypatch.setattr(sweep, "complete", run_here)
    return noted


def test_a_live_page_runs_what_is_missing_shows_it_and_keeps_it_apart(results, shown, here, tmp_path):
    parameters = {"profile": "quick", "seeds": 1, "epochs": 1, "workers": 1}
    opened = Chapter("keskar", parameters)
    opened.live()
    assert here == [len(opened.study.jobs())]
    assert shown[0].startswith("**Live: yours.**")
    assert f"{here[0]} jobs were run" in shown[0]
    assert not results.folder.exists(), "own settings and quick runs are never among the committed records"
    scratch = Store(tmp_path / "cache" / "scratch")
    run_, *_ = [job for job in opened.study.jobs() if job.kind == "train"]
    accuracy = scratch.get(run_).results["final"]["test"]["batch"]["accuracy"]
    text = " ".join(shown)
    assert f"{accuracy:.2f}" in text
    assert "98.03" not in text, "published numbers of other data do not stand beside a demonstration"
    assert not re.search("replicated|contradicted|inconclusive", text)
    (log,) = (tmp_path / "cache" / "logs").iterdir()
    assert f"{here[0]}/{here[0]}" in log.read_text()
    assert log.name in shown[0]
    opened.live_figure("curves")
    assert shown[-1] == "figure: F1, training loss; F1, test accuracy"
    # a second page finds everything done
    Chapter("keskar", parameters).live()
    assert here[1] == 0
    # what has the same specification under another name is not computed again
    moved = Store(results.folder)
    for record in scratch:
        moved.put(record)
        scratch.path(record.key).unlink()
    Chapter("keskar", parameters).live()
    assert here[2] == 0 and scratch.get(run_) == moved.get(run_)
    # and the committed page knows nothing of it
    Chapter("keskar", {}).table("table2")
    assert f"{accuracy:.2f}" not in shown[-2] + shown[-1]


def test_a_page_says_when_jobs_fail(shown, here):
    with pytest.raises(RuntimeError, match="jobs failed: data set 'mnist' not found at "):
        Chapter("keskar", {"profile": "cpu", "networks": ["F1"], "epochs": 1, "seeds": 1}).live()


# ---------------------------------------------------------------- pages of all papers


def test_prose_of_several_papers_leads_to_their_pages(page, results, monkeypatch):
    put(results, SMALL, [90.0] * 5)
    told = []
    monkeypatch.setattr(pages, "display", lambda shown: told.append(shown.data))
    pages.prose("{chaptered:tab:a:SB} {cite:p}`x`")
    assert re.fullmatch(r"<a class='lbgap-number' href='chaptered.html#chaptered-tab-a-SB'>90[^<]*</a> {cite:p}`x`", told[0])
    with pytest.raises(ValueError, match="^prose asks for hofer:H1; it begins with a paper: "):
        pages.prose("{hofer:H1}")


def test_advice_is_that_of_the_papers_on_the_page(shown):
    pages.what_to_do("hoffer")
    text = " ".join(shown[0].split())
    assert "Take the small batch" in text and "Hoffer et al., 2017" in text and "reduced; n = 5" in text
    assert "Keskar" not in text


def test_the_front_page_and_the_state_are_those_of_the_records(page, results, shown):
    put(results, SMALL, [90.0] * 5)
    put(results, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95])
    pages.front_page()
    assert re.search(r"chaptered T1 LB below SB holds here", " ".join(shown[0].split()))
    pages.status_page()
    text = " ".join(shown[1].split())
    assert "chaptered cpu tab 10 5 " in text
    assert "paper tab 0 15 " in text
    assert "quick" not in text


def test_pages_of_a_paper_that_has_some_of_the_profiles(results, monkeypatch, shown):
    """It need not have a profile for a GPU, nor one whose records are committed."""
    for profiles in (("quick", "cpu"), ("quick",)):
        of = Paper(f"pages-of-{len(profiles)}", {}, Settings, lambda s: toy(s.profile), profiles)
        monkeypatch.setattr(papers, "papers", lambda of=of: {of.name: of})
        pages.front_page()
        pages.status_page()
        opened = Chapter(of.name, {})
        opened.verdicts()
        opened.box()
    of = Paper("pages-of-cpu", {}, Settings, lambda s: toy(s.profile), ("cpu",))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    Chapter(of.name, {}).table("tab")
    assert "python -m lbgap run pages-of-cpu --profile cpu --only tab" in " ".join(shown)


def test_numbers_are_exported(page, results, tmp_path):
    put(results, SMALL, [90.0, 92.0, 94.0])
    put(results, LARGE, [89.0])
    folder = tmp_path / "csv"
    folder.mkdir()
    pages.export(folder)
    of_the_paper = [f"chaptered-{name}{part}.csv" for name in ("fig", "ratios", "tab") for part in ("", "-seeds")]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*of_the_paper, "chaptered-claims-seeds.csv", "records.csv", "records.parquet"]
    )
    table = pd.read_csv(folder / "chaptered-tab.csv")
    (line,) = table[(table["row"] == "a") & (table["column"] == "SB")].to_dict("records")
    assert (line["mean"], line["std"], line["n"], line["published"]) == (92.0, 2.0, 3, 98.0)
    seeds = pd.read_csv(folder / "chaptered-tab-seeds.csv")
    small = [["a", "SB", s, 90.0 + 2 * s, run(SMALL, s).key] for s in range(3)]
    assert seeds[["row", "column", "seed", "value", "records"]].to_numpy().tolist() == [
        *small,
        ["a", "LB", 0, 89.0, run(LARGE, 0).key],
    ]
    points = pd.read_csv(folder / "chaptered-fig.csv")
    assert points[["panel", "x", "n"]].to_numpy().tolist() == [["left", 1, 3], ["left", 2, 3], ["right", 1, 1], ["right", 2, 1]]
    assert points["mean"].tolist() == [3, 2, 2, 1]
    claims = pd.read_csv(folder / "chaptered-claims-seeds.csv")
    assert claims[["claim", "side", "value"]].to_numpy().tolist()[:4] == [
        ["T1", "A", 89.0],
        *(["T1", "B", 90.0 + 2 * seed] for seed in range(3)),
    ]
    keys = {run(SMALL, 0).key, run(SMALL, 1).key, run(SMALL, 2).key, run(LARGE, 0).key}
    assert set(pd.read_parquet(folder / "records.parquet")["key"]) == set(pd.read_csv(folder / "records.csv")["key"]) == keys
