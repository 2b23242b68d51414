"""Every shipped paper keeps the contract, and a paper that breaks one rule of it is told so in one sentence."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import digits_run

from lbgap import papers
from lbgap.papers.paper import Axis, Case, Cell, Claim, Figure, Paper, Published, Quantity, Series, Settings, Study, Table, dig
from lbgap.records import Store
from lbgap.spec import DataSpec, Measure
from lbgap.stats import Difference

FACTS = {
    "tables": {"table1": {"title": "A", "unit": "percent", "columns": ["SB", "LB"], "rows": {"F1": [[97, 0.5], 96]}}},
    "claims": {"T1": "One", "T2": "Two"},
    "questions": {"Q1": "And?"},
}


@pytest.mark.parametrize("name", papers.names())
def test_every_shipped_paper_keeps_the_contract(name):
    papers.check(papers.get(name))


# ---------------------------------------------------------------- a paper that keeps it, and one fault at a time


def quantity(batch: int, seeds: int, **changes) -> Quantity:
    """Accuracy of a run a seed."""
    return Quantity(tuple((digits_run(batch, seed, **changes),) for seed in range(seeds)), dig("final.test.batch.accuracy"))


def rule(label: str, seeds: int, others: int | None = None) -> Case:
    """Large batch against small."""
    sides = quantity(300, seeds), quantity(50, others or seeds)
    return Case(label, Difference("below"), *sides, network="F1", where="digits", central=True)


def sound(settings: Settings) -> Study:
    """A study that breaks no rule."""
    quick = settings.profile == "quick"
    seeds = settings.seeds or (1 if quick else 5)
    small, large = quantity(50, seeds), quantity(300, seeds)
    cells = (Cell("F1", "SB", Published(97, 0.5), small, "digits"), Cell("F1", "LB", Published(96), large, "digits"))
    line = Series("curve", "LB", large.jobs, lambda r: ())
    run = digits_run(50)
    return Study(
        "toy",
        settings.profile,
        (
            Table("table1", "A", "percent", cells, 1),
            Table("own", "Ours", "percent", (Cell("F1", "LB", None, large, "digits"),)),
        ),
        (Figure("curves", "Curves", (Axis("curve", "x", "y"),), (line,)),),
        (Claim("T1", "One", (rule("F1: LB - SB", seeds),)), *(() if quick else (Claim("T2", "Two", reason="no network"),))),
        () if quick else (Claim("Q1", "And?", (rule("F1: LB - SB", seeds),)),),
        (run, Measure(kind="sharpness", of=(run.at(),))) if quick else (),
    )


PAPER = Paper("toy", FACTS, Settings, sound, ("quick", "cpu"))


def with_facts(**changes) -> Paper:
    """Other facts of the published table."""
    return replace(PAPER, facts=FACTS | {"tables": {"table1": FACTS["tables"]["table1"] | changes}})


def in_profile(profile: str, change: Callable[[Study], Study]) -> Paper:
    """One profile's study changed."""

    def study(settings: Settings) -> Study:
        made = sound(settings)
        return change(made) if settings.profile == profile else made

    return replace(PAPER, study=study)


def in_cell(**changes) -> Callable[[Study], Study]:
    """The first cell of the first table changed."""

    def change(study: Study) -> Study:
        table, *others = study.tables
        first, *cells = table.cells
        return replace(study, tables=(replace(table, cells=(replace(first, **changes), *cells)), *others))

    return change


def in_claim(**changes) -> Callable[[Study], Study]:
    """The first claim changed."""
    return lambda study: replace(study, claims=(replace(study.claims[0], **changes), *study.claims[1:]))


def in_figure(**changes) -> Callable[[Study], Study]:
    """The figure changed."""
    return lambda study: replace(study, figures=(replace(study.figures[0], **changes),))


def seeds_elsewhere(settings: Settings) -> Study:
    """Where fewer seeds are asked for, the runs are others."""
    made = sound(settings)
    return replace(made, tables=(), reference=(digits_run(77),)) if settings.seeds else made


def broken(settings: Settings) -> Study:
    """No study at all."""
    raise KeyError("F1")


CPU, QUICK = "profile cpu: ", "profile quick: "
ELSEWHERE = DataSpec(name="mnist")
FAULTS = {
    "a column twice": (with_facts(columns=["SB", "SB"]), "table1 of the YAML has the column SB twice"),
    "a short row": (
        with_facts(rows={"F1": [[97, 0.5]]}),
        "row F1 of table1 of the YAML has 1 entries; accepted are 2, one a column",
    ),
    "a negative deviation": (
        with_facts(rows={"F1": [[97, -0.5], 96]}),
        "row F1 of table1 of the YAML has the entry [97, -0.5]; accepted is a mean, or [mean, deviation]",
    ),
    "no unit": (with_facts(unit=""), "table1 of the YAML has no unit"),
    "a claim without words": (
        replace(PAPER, facts=FACTS | {"claims": {"T1": "One", "T2": None}}),
        "T2 among the claims of the YAML is None; accepted is its text",
    ),
    "an unknown profile": (replace(PAPER, profiles=("cpu", "gpu")), "PROFILES has 'gpu'; accepted are quick, cpu, paper"),
    "no profile": (replace(PAPER, profiles=()), "PROFILES is empty; accepted are some of quick, cpu, paper"),
    "a profile twice": (replace(PAPER, profiles=("cpu", "cpu")), "PROFILES has cpu twice"),
    "settings of its own kind": (
        replace(PAPER, settings=dict),
        "PaperSettings is <class 'dict'>; accepted is a class derived from lbgap.papers.paper.Settings",
    ),
    "a study that cannot be made": (replace(PAPER, study=broken), CPU + "its study cannot be made (KeyError: 'F1')"),
    "other runs with fewer seeds": (
        replace(PAPER, study=seeds_elsewhere),
        CPU + "with seeds 1 there are 1 jobs that the profile does not have; accepted are some of its own",
    ),
    "a question that nobody asks": (
        replace(PAPER, facts=FACTS | {"questions": {"Q1": "And?", "Q2": "Or?"}}),
        "question Q2 of the YAML is asked in no profile",
    ),
    "another paper's name": (
        in_profile("cpu", lambda s: replace(s, paper="other")),
        CPU + "paper of the study is 'other'; accepted is 'toy', the name of its files",
    ),
    "nothing to run": (in_profile("quick", lambda s: Study("toy", "quick")), QUICK + "there is nothing to run"),
    "a name twice": (
        in_profile("cpu", in_figure(name="own")),
        CPU + "the name own is there twice among tables, figures, claims and questions",
    ),
    "a name that is a place": (
        in_profile("cpu", in_figure(name="own/F1")),
        CPU + "the name 'own/F1' cannot be asked for; accepted are letters, digits, - and _, and not 'reference'",
    ),
    "a cell twice": (in_profile("cpu", in_cell(column="LB")), CPU + "table1 has the cell F1, LB twice"),
    "a number without words": (
        in_profile("cpu", in_cell(words="")),
        CPU + "table1 has no words for what makes the number of F1, SB",
    ),
    "words without a number": (
        in_profile("cpu", in_cell(quantity=None)),
        CPU + "table1 has words for what makes F1, SB, and no quantity",
    ),
    "a published number of its own": (
        in_profile("cpu", in_cell(published=Published(98, 0.5))),
        CPU + "table1 publishes (98, 0.5) at F1, SB; the YAML has (97, 0.5)",
    ),
    "a published number left out": (
        in_profile("cpu", in_cell(published=None)),
        CPU + "table1 lacks the published number of F1, SB",
    ),
    "a published table that is not in the YAML": (
        in_profile("cpu", lambda s: replace(s, tables=(s.tables[0], replace(s.tables[1], number=2)))),
        CPU + "own has the number 2 and is not in the YAML; accepted is None for a table of ours",
    ),
    "an empty panel": (
        in_profile("cpu", in_figure(panels=(Axis("curve", "x", "y"), Axis("more", "x", "y")))),
        CPU + "figure curves has no line in its panel more",
    ),
    "a line without a panel": (
        in_profile("cpu", in_figure(panels=())),
        CPU + "figure curves has a line in curve, no panel of it",
    ),
    "a panel twice": (
        in_profile("cpu", in_figure(panels=(Axis("curve", "x", "y"), Axis("curve", "x", "y")))),
        CPU + "figure curves has the panel curve twice",
    ),
    "a claim left out": (
        in_profile("cpu", lambda s: replace(s, claims=s.claims[:1])),
        CPU + "claims are T1; the YAML has T1, T2",
    ),
    "a claim of its own": (in_profile("quick", in_claim(id="T9")), QUICK + "T9 is not among the claims of the YAML"),
    "other words": (in_profile("cpu", in_claim(text="Uno")), CPU + "T1 has another text than in the YAML"),
    "neither rule nor reason": (
        in_profile("cpu", in_claim(cases=())),
        CPU + "T1 has neither rules nor a reason why it is not run",
    ),
    "rules and a reason": (in_profile("cpu", in_claim(reason="no")), CPU + "T1 has rules and a reason why it is not run"),
    "more cases than there are": (in_profile("cpu", in_claim(needed=2)), CPU + "T1 needs 2 of its cases; accepted is 1 to 1"),
    "a label twice": (in_profile("cpu", in_claim(cases=(rule("F1", 5), rule("F1", 5)))), CPU + "T1 has the case 'F1' twice"),
    "sides of other seeds": (
        in_profile("cpu", in_claim(cases=(rule("F1", 5, 6),))),
        CPU + "T1, 'F1' compares 5 seeds with 6; accepted is one number of seeds",
    ),
    "too few seeds": (in_profile("cpu", in_claim(cases=(rule("F1", 4),))), CPU + "T1, 'F1' has 4 seeds; a verdict takes 5"),
    "no central effect": (
        in_profile("cpu", in_claim(cases=(replace(rule("F1", 5), central=False),))),
        CPU + "T1 names no central effect",
    ),
    "a rule without words": (
        in_profile("cpu", in_claim(cases=(replace(rule("F1", 5), where=""),))),
        CPU + "T1, 'F1' has no words for what was run",
    ),
    "a rule on no network": (
        in_profile("cpu", in_claim(cases=(replace(rule("F1", 5), network=""),))),
        CPU + "T1, 'F1' does not begin with its network, ''",
    ),
    "a second reading alone": (
        in_profile("cpu", in_claim(cases=(rule("F2", 5), replace(rule("F1, peak", 5), reading="peak")))),
        CPU + "T1, 'F1, peak' is a second reading (peak) of no rule",
    ),
    "seeds of other numbers of jobs": (
        in_profile("cpu", in_cell(quantity=Quantity(((digits_run(50),), (digits_run(50, 1), digits_run(50, 2))), max))),
        CPU + "table1, F1, SB reads 1, 2 jobs a seed; accepted is one number above 0",
    ),
    "a demonstration on files": (
        in_profile("quick", in_cell(quantity=quantity(50, 1, data=ELSEWHERE))),
        QUICK + "data set mnist is a file; accepted is one that needs none",
    ),
    "a demonstration without a rule": (
        in_profile("quick", in_claim(cases=(), reason="none")),
        QUICK + "T1 has no rule; a demonstration leaves it out",
    ),
    "reference jobs elsewhere": (
        in_profile("cpu", lambda s: replace(s, reference=(digits_run(50),))),
        CPU + "there are reference jobs; accepted are those of profile quick",
    ),
    "a reference measurement alone": (
        in_profile("quick", lambda s: replace(s, reference=s.reference[1:])),
        QUICK + f"reference job {sound(Settings(profile='quick')).reference[1].key} measures a run that is none; "
        "accepted are measurements of reference runs",
    ),
}


def test_a_sound_paper_has_no_fault():
    assert papers.faults(PAPER) == []
    papers.check(PAPER)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_said(name):
    paper, sentence = FAULTS[name]
    assert sentence in papers.faults(paper)
    with pytest.raises(ValueError) as caught:
        papers.check(paper)
    assert str(caught.value).splitlines() == papers.faults(paper)


def test_a_job_that_is_another_when_it_is_read_is_found(monkeypatch):
    """No job of this version is; the reader is made to forget the seed."""
    monkeypatch.setattr("lbgap.papers.contract.job_from_json", lambda values: digits_run(50))
    found = papers.faults(PAPER)
    job = digits_run(50, 1)
    assert f"profile cpu: job {job.key} is job {digits_run(50).key} when it is read again" in found
    assert not any(f"job {digits_run(50).key} is" in fault for fault in found)


@pytest.mark.parametrize("name", papers.papers())
def test_what_a_shipped_paper_asks_for_is_what_was_recorded(name):
    """A recipe that changed by accident asks for runs that nobody made: of profile cpu every one is there."""
    study, store = papers.get(name).study(papers.settings(name, profile="cpu")), Store()
    assert [job.key for job in study.jobs() if store.get(job) is None] == []
