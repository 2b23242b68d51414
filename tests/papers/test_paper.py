"""The shared description of a paper: which jobs a study needs and in which order, settings as they arrive, discovery."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import digits_run

from lbgap import papers, verdicts
from lbgap.papers.paper import (
    Axis,
    Case,
    Cell,
    Claim,
    Figure,
    Published,
    Quantity,
    Series,
    Settings,
    Study,
    Table,
    best_on_the_others,
    claims,
    combined,
    difference,
    dig,
    side_by_side,
)
from lbgap.papers.recipe import published_table
from lbgap.stats import Difference


def runs(batch_size: int, seeds: int = 3):
    """One run a seed."""
    return tuple((digits_run(batch_size, seed),) for seed in range(seeds))


def first(results) -> float:
    """Any reader: nothing is read here."""
    return 0.0


def study() -> Study:
    """Rows a and b of a table, a figure of one run, a claim that compares the two with a third, more seeds than the rest."""
    cells = (
        Cell("a", "x", Published(1.0), Quantity(runs(100), first), network="a"),
        Cell("a", "y", None, Quantity(runs(200), first), network="a"),
        Cell("b", "x", Published(1.0, 0.1), Quantity(runs(300), first), network="b"),
        Cell("c", "x", Published(2.0), None),
    )
    axis = Axis("p", "x", "y")
    figure = Figure("fig", "", (axis,), (Series("p", "line", runs(200), lambda r: []),))
    claim = Claim("T1", "", (Case("s", Difference("below"), Quantity(runs(100, 4), first), Quantity(runs(400, 4), first)),))
    return Study("toy", "cpu", (Table("tab", "", "", cells),), (figure,), (claim, Claim("T2", "", reason="none")))


def batches(jobs) -> list[tuple[int, int]]:
    """Seed and batch size of each job, in order."""
    return [(job.seed, job.batch_size) for job in jobs]


def test_jobs_come_once_and_seed_by_seed():
    """A sweep that is cut short has whole rounds: no job of a seed comes before all those of the seeds below."""
    seeds = [seed for seed, _ in batches(study().jobs())]
    assert seeds == sorted(seeds)
    assert sorted(batches(study().jobs())) == [
        (s, b) for s in range(4) for b in (100, 200, 300, 400) if s < 3 or b in (100, 400)
    ]


@pytest.mark.parametrize(
    ("only", "wanted"),
    [(["tab"], {100, 200, 300}), (["tab/a"], {100, 200}), (["fig"], {200}), (["tab/b", "fig"], {200, 300}), (["T2"], set())],
)
def test_only_some_jobs(only, wanted):
    assert set(batches(study().jobs(only))) == {(seed, b) for seed in range(3) for b in wanted}


def test_claims_gather_their_own_rules_in_the_papers_order():
    texts = {"T1": "one", "T2": "two", "T3": "three", "T4": "four"}
    rules = [
        (k, Case(label, Difference("below"), Quantity(runs(100), first)))
        for k, label in (("T3", "x"), ("T1", "y"), ("T3", "z"))
    ]
    one, two, three, four = claims(
        texts, iter(rules), needed={"T3": 1}, reasons={"T2": "none", "T3": "-"}, notes={"T1": "note"}
    )
    assert [c.text for c in (one, two, three, four)] == list(texts.values())
    assert [[s.label for s in c.cases] for c in (one, two, three, four)] == [["y"], [], ["x", "z"], []]
    assert (one.needed, one.note, three.needed, three.note) == (None, "note", 1, "")
    # a reason is given where nothing was run, and always then
    assert (one.reason, two.reason, three.reason) == ("", "none", "")
    assert four.reason
    assert [c.id for c in claims(texts, iter(rules), only=("T2", "T3"))] == ["T2", "T3"]


def chosen_among(choices: list[int], values: dict[tuple[int, int], float | None]) -> list[float]:
    """What each seed shows of the best of ``choices`` (batch sizes), where ``values`` are those of (seed, batch size)."""
    quantity = best_on_the_others([Quantity(runs(b, 5), dig("value")) for b in choices])
    assert quantity.reads_diverged
    assert [jobs[0].seed for jobs in quantity.jobs] == list(range(5))

    def record(job) -> dict:
        value = values[job.seed, job.batch_size]
        return {"diverged": True} if value is None else {"value": value}

    return [quantity.read(*map(record, jobs)) for jobs in quantity.jobs]


def test_the_best_choice_is_made_on_the_other_seeds():
    """Against a loop over made-up numbers: each seed shows its own under the choice that is best on the others' mean."""
    table = np.random.default_rng(0).normal(90, 3, (5, 4))
    values = {(seed, 100 * (i + 1)): table[seed, i] for seed in range(5) for i in range(4)}
    expected = [table[seed, np.delete(table, seed, axis=0).mean(axis=0).argmax()] for seed in range(5)]
    assert expected != list(table.max(axis=1))
    assert chosen_among([100, 200, 300, 400], values) == expected


def test_where_every_choice_diverged_on_another_seed_there_is_no_number():
    values = {(seed, b): None if (seed, b) in ((0, 100), (1, 200)) else 90.0 for seed in range(5) for b in (100, 200)}
    assert np.isnan(chosen_among([100, 200], values)).all()


def test_a_choice_under_which_another_seed_diverged_is_not_made():
    """The first is best by far, and one run under it diverged: to the other seeds it is out, to its own it is not."""
    values = {(seed, b): None if (seed, b) == (0, 100) else {100: 99.0, 200: 50.0}[b] for seed in range(5) for b in (100, 200)}
    found = chosen_among([100, 200], values)
    assert math.isnan(found[0])
    assert found[1:] == [50.0] * 4


def numbers(*of_seeds: tuple[float | None, ...], batch_size: int = 100) -> tuple:
    """A quantity of so many records a seed, which adds them up; and their results by job (None: diverged)."""
    jobs = tuple(tuple(digits_run(batch_size + i, seed) for i in range(len(values))) for seed, values in enumerate(of_seeds))
    results = {
        job: {"diverged": True} if value is None else {"value": value}
        for seed, values in enumerate(of_seeds)
        for job, value in zip(jobs[seed], values, strict=True)
    }
    return Quantity(jobs, lambda *r: sum(x["value"] for x in r)), results


def per_seed(quantity: Quantity, results: dict) -> list[float]:
    """The quantity's number of each seed."""
    return [quantity.value(*(results[job] for job in jobs)) for jobs in quantity.jobs]


def test_combined_quantities_are_read_each_by_its_own_reader_of_its_own_records():
    """Two records a seed of the one, one of the other, which is read upside down."""
    of_two, first_results = numbers((1.0, 2.0), (3.0, 4.0))
    of_one, more = numbers((5.0,), (8.0,), batch_size=300)
    upside_down = Quantity(of_one.jobs, lambda r: -r["value"])
    results = first_results | more
    both = combined(lambda a, b: a * b, of_two, upside_down)
    assert per_seed(both, results) == [3.0 * -5.0, 7.0 * -8.0]
    assert per_seed(combined(lambda a, b: a + b, both, of_two), results) == [-12.0, -49.0]


def test_a_run_that_diverged_is_judged_by_the_quantity_that_it_belongs_to():
    """A difference to a quantity that has a number for such runs has one too; to one that has none, it has none."""
    plain, results = numbers((1.0,), (None,), (3.0,))
    other, more = numbers((10.0,), (20.0,), (None,), batch_size=300)
    tolerant = Quantity(other.jobs, lambda r: -1.0 if "diverged" in r else r["value"], reads_diverged=True)
    found = per_seed(difference(tolerant, plain), results | more)
    assert (found[0], found[2]) == (9.0, -4.0)
    assert math.isnan(found[1])
    assert [math.isnan(v) for v in per_seed(difference(other, plain), results | more)] == [False, True, True]


def test_choices_may_be_of_several_records_and_read_each_in_its_own_way():
    """The first is a mean of two records, the second upside down: against a loop over the numbers that they show."""
    table = np.array([[95.0, 85.0, 91.0], [90.0, 92.0, 89.0], [88.0, 94.0, 92.5], [91.0, 90.0, 90.5], [60.0, 92.0, 89.0]])
    two, results = numbers(*((a, b) for a, b, _ in table))
    one, more = numbers(*((-c,) for *_, c in table), batch_size=300)
    choices = [Quantity(two.jobs, lambda a, b: (a["value"] + b["value"]) / 2), Quantity(one.jobs, lambda r: -r["value"])]
    shown = np.stack([table[:, :2].mean(axis=1), table[:, 2]], axis=1)
    expected = [shown[seed, np.delete(shown, seed, axis=0).mean(axis=0).argmax()] for seed in range(5)]
    assert set(expected) & set(shown[:, 0]) and set(expected) & set(shown[:, 1]), "both are chosen by some seed"
    assert per_seed(best_on_the_others(choices), results | more) == pytest.approx(expected)


def test_quantities_of_other_numbers_of_seeds_are_not_combined():
    with pytest.raises(ValueError, match="^jobs are of 3, 4 seeds; accepted is one number of seeds$"):
        side_by_side(runs(100, 3), runs(200, 4))


def test_a_job_bears_the_name_that_the_paper_gives_its_network():
    assert set(study().networks().values()) == {"a", "b"}
    assert {job.batch_size for job, network in study().networks().items() if network == "b"} == {300}


@pytest.mark.parametrize("name", sorted(papers.papers()))
def test_a_papers_jobs_come_seed_by_seed(name):
    """Also where a number is chosen on the other seeds; the profile cpu is run in one sitting after another."""
    study = papers.get(name).study(papers.settings(name, profile="cpu"))
    seeds = [job.run.seed for job in study.jobs()]
    assert seeds == sorted(seeds)
    assert len(set(seeds)) > 1


def test_a_claim_needs_both_sides():
    assert set(batches(study().jobs(["T1"]))) == {(seed, b) for seed in range(4) for b in (100, 400)}


@pytest.mark.parametrize("name", ["zzz", "X9", ""])
def test_an_unknown_name_is_refused(name):
    """Rows are left out of the names that are accepted, which a study has by the hundred."""
    with pytest.raises(ValueError, match=f"^only is '{name}'; accepted are tab, fig, T1, T2$"):
        study().jobs([name])


@pytest.mark.parametrize(("name", "nearest"), [("tab/c", "tab/b, tab/a, tab"), ("fgi", "fig"), ("tabb", "tab/b, tab, tab/a")])
def test_of_a_misspelt_name_the_nearest_are_said(name, nearest):
    with pytest.raises(ValueError, match=f"^only is '{name}'; nearest are {nearest}$"):
        study().jobs([name])


@pytest.mark.parametrize("seeds", [0, -1, 101, 10**9])
def test_the_number_of_seeds_is_bounded(seeds):
    with pytest.raises(ValueError, match=f"^seeds is {seeds}; accepted is (greater|less) than or equal to"):
        Settings(profile="cpu", seeds=seeds)


# ---------------------------------------------------------------- readers


def test_dig_reads_one_field_and_nan_of_a_diverged_run():
    results = {"diverged": False, "final": {"test": {"batch": {"accuracy": 97}}}, "value": "inf"}
    assert dig("final.test.batch.accuracy")(results) == 97.0
    assert dig("value")(results) == math.inf
    assert math.isnan(dig("final.test.batch.accuracy")({"diverged": True}))
    with pytest.raises(KeyError):
        dig("final.train.batch.accuracy")(results)


# ---------------------------------------------------------------- settings


class ToySettings(Settings):
    """Something to set beside the profile."""

    networks: tuple[str, ...] | None = None
    rate: float | None = None


def test_settings_arrive_as_strings_and_numbers():
    written = ToySettings(profile="cpu", networks='["a", "b"]', rate="1e-3", seeds="3")
    assert written == ToySettings(profile="cpu", networks=["a", "b"], rate=0.001, seeds=3)
    assert written.networks == ("a", "b")
    assert ToySettings(profile="cpu", networks="a").networks == ("a",)


def test_none_is_as_good_as_absent():
    assert ToySettings(profile="cpu", networks=None, seeds=None) == ToySettings(profile="cpu")


@pytest.mark.parametrize(
    ("values", "own"),
    [({}, False), ({"networks": ["a"]}, False), ({"seeds": 2}, False), ({"rate": 0.1}, True), ({"seeds": 2, "rate": 1}, True)],
)
def test_settings_are_ones_own_when_they_change_a_run(values, own):
    assert ToySettings(profile="paper", **values).own is own


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"profile": "fast"}, "profile is 'fast'; accepted is 'quick', 'cpu' or 'paper'"),
        ({"profile": "cpu", "rat": 3}, "rat is not known to ToySettings; accepted are profile, seeds, networks, rate"),
        ({"profile": "cpu", "rate": "quick"}, "rate is 'quick'; accepted is a valid number"),
        ({"seeds": 3}, "profile is missing; ToySettings needs it"),
    ],
)
def test_bad_settings_end_in_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        ToySettings(**values)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- discovery

MODULE = """
from lbgap.papers.paper import Settings, Study

PROFILES = ("cpu",)
PaperSettings = Settings


def study(settings):
    return Study("{name}", settings.profile)
"""


@pytest.fixture
def extra(tmp_path, monkeypatch):
    """A folder with one paper."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "discovered.py").write_text(MODULE.format(name="discovered"))
    (folder / "discovered.yaml").write_text("claims: {D1: something}\n")
    (folder / "notes.py").write_text("raise AssertionError('a module without facts is no paper')\n")
    monkeypatch.setenv("LBGAP_PAPERS", str(folder))
    return folder


def test_papers_are_discovered(extra, monkeypatch):
    assert list(papers.papers())[:2] == ["keskar", "hoffer"], "in the order in which they appeared"
    shipped = {path.stem for path in Path(papers.__file__).parent.glob("*.yaml")}
    assert set(papers.papers()) == shipped | {"discovered"}
    found = papers.get("discovered")
    assert found.facts == {"claims": {"D1": "something"}}
    assert found.profiles == ("cpu",)
    assert found.study(papers.settings("discovered", profile="cpu")) == Study("discovered", "cpu")
    monkeypatch.delenv("LBGAP_PAPERS")
    assert "discovered" not in papers.papers()


def test_a_paper_without_the_profile_says_which_it_has(extra):
    with pytest.raises(ValueError, match="^profile is 'paper'; discovered accepts cpu$"):
        papers.settings("discovered", profile="paper")


def test_an_unknown_paper_is_refused():
    with pytest.raises(ValueError, match="^paper is 'keskr'; accepted are .*keskar"):
        papers.get("keskr")


@pytest.mark.parametrize("name", ["keskar", "recipe"])
def test_a_paper_that_takes_the_name_of_ours_is_refused(extra, name):
    for kind in (".py", ".yaml"):
        (extra / "discovered").with_suffix(kind).rename((extra / name).with_suffix(kind))
    with pytest.raises(ValueError, match=f"^paper is .*{name}.yaml, whose name is that of .*; accepted is another name$"):
        papers.papers()


def test_a_published_table_may_have_any_name():
    facts = {"tables": {"t1": {"title": "a", "unit": "b", "columns": ["c"], "rows": {}}}}
    facts["tables"]["table7"] = facts["tables"]["t1"]
    assert [published_table(facts, name, {}, {}).number for name in facts["tables"]] == [None, 7]


def test_a_folder_that_is_not_there_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LBGAP_PAPERS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="^LBGAP_PAPERS is .*nowhere; accepted is a folder of papers$"):
        papers.papers()


def test_the_best_may_be_chosen_by_another_quantity():
    """Two choices, three seeds: by the validation numbers of the others, whatever the test numbers are."""
    test = {"a": (1.0, 2.0, 3.0), "b": (10.0, 20.0, 30.0)}
    validation = {"a": (5.0, 5.0, 0.0), "b": (0.0, 0.0, 7.0)}

    def quantity(name, numbers):
        jobs = tuple((digits_run(seed=seed, width=len(name) + ord(name[0])),) for seed in range(3))
        return Quantity(jobs, lambda r, numbers=numbers: numbers[r["seed"]])

    def results(q, seed):
        return [{"seed": job.seed} for job in q.jobs[seed]]

    best = best_on_the_others(*([quantity(c, of[c]) for c in ("a", "b")] for of in (test, validation)))
    # others of seed 0: a has 2.5, b 3.5; of seed 1 the same; of seed 2: a has 5, b 0
    assert [best.value(*results(best, seed)) for seed in range(3)] == [10.0, 20.0, 3.0]


# ---------------------------------------------------------------- rules and their history


@pytest.mark.parametrize("name", [name for name, of in papers.papers().items() if of.history])
def test_the_history_ends_in_the_rules_in_force(name):
    """After a change of a rule, ``python tools/history.py`` adds the entry."""
    history, rules = papers.get(name).history, verdicts.rules_in_force(name)
    facts = papers.get(name).facts
    assert list(history) == list(rules) == [*facts["claims"], *facts["questions"]]
    assert {claim: entries[-1]["rules"] if entries else [] for claim, entries in history.items()} == rules
    for entries in history.values():
        dates = [entry["date"] for entry in entries]
        assert dates == sorted(dates)
        assert all(entry["why"] and entry["moved"] for entry in entries)
