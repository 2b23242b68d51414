"""From a number to its records: every seed's value and keys, as the folds, the CSV files and `show` have them."""

import json
import re
import shlex
import subprocess
import sys
from html import unescape

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from test_report import LARGE, NAN, SMALL, T_2, paper, put, run  # noqa: F401

from lbgap import papers, paths, render, report, trace, verdicts
from lbgap.papers import papers as all_papers
from lbgap.papers.paper import Axis, Figure
from lbgap.records import Store


def keys(batch_size: int, seeds: range = range(5)) -> list[tuple[str, ...]]:
    """The keys of a batch size's runs."""
    return [(run(batch_size, seed).key,) for seed in seeds]


def test_a_table_leads_to_every_seed_and_its_record(store):
    put(store, SMALL, [90.0, 91.0, 92.0, 93.0, 94.0])
    put(store, LARGE, [89.0, NAN])
    found = trace.of("toy", "tab", store)
    assert found.places == ("row", "column")
    small = found.lines[found.lines["column"] == "SB"]
    assert small["value"].tolist() == [90.0, 91.0, 92.0, 93.0, 94.0]
    assert small["records"].tolist() == keys(SMALL)
    assert set(small["profile"]) == {"cpu"}
    large = found.lines[found.lines["column"] == "LB"]
    assert large["state"].tolist() == ["", "diverged"]
    assert np.isnan(large["value"].iloc[1])
    assert set(found.lines["row"]) == {"a"}, "what has no record is absent"


def test_what_is_shown_is_the_mean_of_what_it_leads_to(store):
    put(store, SMALL, [90.0, 91.5, 92.0])
    _, frame = report.committed_table("toy", "tab", store)
    shown = frame.set_index(["row", "column"]).loc[("a", "SB")]
    values = trace.of("toy", "tab", store).lines.groupby("column")["value"]
    assert (shown["mean"], shown["n"]) == (values.mean()["SB"], values.size()["SB"])


def test_a_ratio_names_the_records_of_both_runs(store):
    put(store, SMALL, [50.0])
    put(store, LARGE, [25.0])
    (line,) = trace.of("toy", "ratios/a", store).lines.to_dict("records")
    assert (line["value"], line["records"]) == (0.5, (run(LARGE, 0).key, run(SMALL, 0).key))


def test_a_claim_leads_to_both_sides_of_its_rule(store):
    put(store, SMALL, [90.0] * 5)
    put(store, LARGE, [89.0] * 5)
    lines = trace.of("toy", "T1", store).lines
    assert lines[["setting", "side"]].drop_duplicates().to_numpy().tolist() == [["a: LB - SB", "A"], ["a: LB - SB", "B"]]
    assert lines["records"].tolist() == keys(LARGE) + keys(SMALL)


def test_a_figure_leads_to_every_point(store):
    put(store, SMALL, [90.0, 91.0])
    found = trace.of("toy", "fig", store)
    assert found.lines[["panel", "line", "x", "seed", "value"]].to_numpy().tolist() == [
        ["left", "SB", float(x), seed, 3.0 - x + seed] for seed in (0, 1) for x in (1, 2)
    ]
    assert trace.rows(found) == ("panel", "line"), "a curve is held by one record a seed"


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("tabb", "name is 'tabb'; toy has tab, ratios, fig, T1, T2, T3"),
        ("tab/z", "row of tab is 'z'; accepted is one of: a"),
        ("fig/middle", "panel of fig is 'middle'; accepted is one of: left"),
        ("T3/x", "setting of T3 is 'x'; accepted is one of: no records"),
    ],
)
def test_an_unknown_name_ends_in_one_sentence(store, name, sentence):
    put(store, SMALL, [90.0])
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        trace.of("toy", name, store)


def test_the_command_computes_the_same_jobs_again(store):
    put(store, SMALL, [90.0] * 5)
    found = trace.of("toy", "tab/a", store)
    assert found.command("a") == "python -m lbgap run toy --profile cpu --only tab/a --results runs"
    assert found.command("a row") == "python -m lbgap run toy --profile cpu --only 'tab/a row' --results runs"
    assert shlex.split(found.command("SB's row"))[-3] == "tab/SB's row"
    study = papers.get("toy").study(papers.settings("toy", profile="cpu"))
    assert {key for (key,) in found.lines["records"]} <= {job.key for job in study.jobs(["tab/a"])}


# ---------------------------------------------------------------- points of figures


def test_points_are_summed_up_by_mean_and_interval_and_by_logarithms_on_a_logarithmic_axis():
    figure = Figure("f", "", (Axis("plain", "x", "y"), Axis("log", "x", "y", log_y=True)), ())
    points = [
        (panel, "SB", seed, 1.0, y) for panel, ys in (("plain", (1, 2, 3)), ("log", (1, 10, 100))) for seed, y in enumerate(ys)
    ]
    points.append(("log", "LB", 0, 1.0, 0.0))
    of = trace.summary(figure, pd.DataFrame(points, columns=["panel", "line", "seed", "x", "y"])).set_index(["panel", "line"])
    half = T_2 / np.sqrt(3)  # the deviation is 1, also that of the decimal logarithms
    np.testing.assert_allclose(
        of.loc[("plain", "SB"), ["mean", "low", "high"]].astype(float), [2, 2 - half, 2 + half], rtol=1e-6
    )
    logs = np.log10(of.loc[("log", "SB"), ["mean", "low", "high"]].astype(float))
    np.testing.assert_allclose(logs, [1, 1 - half, 1 + half], rtol=1e-6)
    assert np.isnan(of.loc[("log", "LB"), "mean"])
    assert of["n"].tolist() == [3, 3, 1]


# ---------------------------------------------------------------- folds and `show`


def seeds_of(text: str) -> dict[str, list[tuple[str, list[str]]]]:
    """By the id of a place, each seed's value and the keys that it links to."""
    out = {}
    for row in BeautifulSoup(text, "html.parser").select("table.seeds tbody tr"):
        cells = row.find_all("td")
        out[row.find("span", id=True)["id"]] = [
            (next(cell.stripped_strings), [link["href"] for link in cell.find_all("a")]) for cell in cells
        ]
    return out


def test_a_fold_has_each_seed_s_value_its_record_and_the_command(store):
    put(store, SMALL, [90.0, 91.0])
    put(store, LARGE, [NAN, 80.25])
    text = render.fold(trace.of("toy", "tab", store))
    of = {batch: [f"../results/{key[:2]}/{key}.json" for (key,) in keys(batch, range(2))] for batch in (SMALL, LARGE)}
    assert seeds_of(text) == {
        "toy-tab-a-SB": [("90", of[SMALL][:1]), ("91", of[SMALL][1:])],
        "toy-tab-a-LB": [("diverged", of[LARGE][:1]), ("80.25", of[LARGE][1:])],
    }
    assert "python -m lbgap run toy --profile cpu --only tab --results runs" in text
    assert all(f"downloads/toy-tab{part}.csv" in text for part in ("", "-seeds"))


def test_records_that_all_seeds_share_stand_once_and_of_many_the_first_is_named():
    """Values of seeds 0 and 1: chosen on each other's runs, each in its own order; and each from more runs of its own."""
    of = {
        "chosen": [("ab" * 8, "cd" * 8), ("cd" * 8, "ab" * 8)],
        "own": [tuple(f"{seed}{i:015x}" for i in range(render.MANY + 1)) for seed in range(2)],
    }
    lines = [("a", column, "cpu", seed, 1.0 + seed, "", of[column][seed]) for column in of for seed in range(2)]
    frame = pd.DataFrame(lines, columns=["row", "column", *trace.SEED_COLUMNS])
    found = trace.Trace("toy", "tab", "A table", ("row", "column"), frame)
    chosen, many = BeautifulSoup(render.seeds_table(found), "html.parser").select("tbody tr")
    assert [link.get_text() for link in chosen.th.find_all("a")] == ["abababab", "cdcdcdcd"]
    assert [cell.get_text() for cell in chosen.find_all("td")] == ["1", "2"]
    assert not many.th.find("a")
    for cell, held in zip(many.find_all("td"), of["own"], strict=True):
        assert [link["href"] for link in cell.find_all("a")] == [f"../results/{held[0][:2]}/{held[0]}.json"]
        assert f"and {render.MANY} more" in cell.get_text()


def test_show_prints_what_the_fold_has(store):
    put(store, SMALL, [90.0, 91.0])
    said = trace.text("toy", "tab/a", store).splitlines()
    assert [line.split() for line in said[2:4]] == [["a", "SB", "cpu", str(s), f"{90 + s}", run(SMALL, s).key] for s in (0, 1)]
    assert said[-1].endswith("python -m lbgap run toy --profile cpu --only tab/a --results runs")


def test_show_prints_a_record_by_the_beginning_of_its_key(store):
    put(store, SMALL, [90.0, 91.0])
    key = run(SMALL, 1).key
    said = trace.text(key[:6], None, store)
    assert said.startswith(f"{key}: train, ")
    assert "used by: toy tab" in said
    assert '"accuracy": 91.0' in said
    for wrong in ("zz", "0000", key[:3], "../" + key):
        with pytest.raises(ValueError, match=f"^key is '{re.escape(wrong)}'; accepted is the key of a record in "):
            trace.text(wrong, None, store)


# ---------------------------------------------------------------- the papers of the book


@pytest.fixture(scope="module")
def committed() -> Store:
    """The committed records."""
    return Store(paths.ROOT / "results")


@pytest.fixture
def real(monkeypatch):
    """The papers themselves, not the toy."""
    monkeypatch.setattr(papers, "papers", all_papers)


@pytest.mark.parametrize("name", sorted(all_papers()))
def test_of_every_table_figure_and_claim_each_value_is_that_of_its_records_and_each_place_has_an_id(real, committed, name):
    """Read anew from the files of the records, by the readers of the paper."""
    places, readers = [], {}
    for study in report.committed_studies(name):
        for table in study.tables:
            readers |= {(study.profile, table.name, *c.place): c.quantity for c in table.cells if c.quantity}
        for claim in (*study.claims, *study.questions):
            for s in claim.cases:
                beside = s.label.replace(s.network, f"{s.network}, {verdicts.AT_FULL_SIZE}", 1)
                for label in (s.label, beside) if study.profile == "paper" else (s.label,):
                    readers |= {(study.profile, claim.id, label, side): q for side, q in (("A", s.a), ("B", s.b)) if q}
    judged = [*verdicts.committed_verdicts(name, committed), *verdicts.committed_questions(name, committed)]
    read = {place: report.values(quantity, committed) for place, quantity in readers.items()}
    traces = [trace.of_claim(name, j, committed) for j in judged]
    traces += [trace.of(name, other, committed) for other in trace.names(name) if other not in {t.name for t in traces}]
    for found in traces:
        places += [found.anchor(*place) for place, _ in found.lines.groupby(list(trace.rows(found)), sort=False)]
        if "x" in found.places:
            continue
        for place in found.lines[[*found.places, "profile", "seed", "value", "records"]].itertuples(index=False):
            *where, profile, seed, value, held = place
            quantity = readers[profile, found.name, *where]
            (turn,) = [i for i, jobs in enumerate(quantity.jobs) if jobs[0].run.seed == seed]
            assert set(held) == {job.key for job in quantity.jobs[turn]}
            assert all((committed.folder / key[:2] / f"{key}.json").exists() for key in held)
            again = read[profile, found.name, *where][turn]
            assert again == value or (np.isnan(again) and np.isnan(value))
    assert len(places) == len(set(places)) > 0
    assert all(re.fullmatch(r"[\w.+-]+", place) for place in places)


def test_show_is_a_command(tmp_path, committed):
    key = next(iter(committed.folder.glob("??/*.json"))).stem
    command = [sys.executable, "-m", "lbgap", "show", key, "--results", str(committed.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(key)
    assert json.loads(done.stdout.partition("provenance: ")[2])["torch"]
    assert unescape(done.stdout) == done.stdout
