"""The contract between a paper and everything that shows it; scikit-learn's ``check_estimator`` is the model.

Each rule is a function that yields a sentence for every place where a paper breaks it. Nothing is trained, no record read.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from lbgap.papers.paper import Cell, Claim, Paper, Profile, Quantity, Settings, Study
from lbgap.sources import DataMissing, locate
from lbgap.spec import Job, Measure, job_from_json
from lbgap.stats import MIN_SEEDS

NAME = re.compile(r"[A-Za-z0-9_-]+")  # asked for on a command line, in prose, and as a file
SAMPLE = 50  # jobs of a profile that are written and read again


def check(paper: Paper) -> None:
    """Hold a paper to the contract.

    Raises:
        ValueError: what is wrong, a sentence a line.
    """
    if found := faults(paper):
        raise ValueError("\n".join(found))


def faults(paper: Paper) -> list[str]:
    """Every sentence that says what of the contract a paper does not keep; where it keeps it, none."""
    found = [*_facts_are_well_formed(paper), *_profiles_are_known(paper)]
    studies = {}
    for profile in dict.fromkeys(p for p in paper.profiles if p in get_args(Profile)):
        try:
            studies[profile] = paper.study(paper.settings(profile=profile))
            studies[profile].jobs()
            fewer = paper.study(paper.settings(profile=profile, seeds=1))
            found += [f"profile {profile}: {fault}" for fault in _fewer_seeds_change_no_run(studies[profile], fewer)]
        except Exception as error:  # a paper's module may fail in any way
            studies.pop(profile, None)
            found.append(f"profile {profile}: its study cannot be made ({type(error).__name__}: {error})")
    for (profile, study), rule in itertools.product(studies.items(), RULES):
        found += [f"profile {profile}: {fault}" for fault in rule(paper, study)]
    return [*found, *_every_question_is_asked(paper, studies.values())]


# ---------------------------------------------------------------- the paper itself


def _facts_are_well_formed(paper: Paper) -> Iterator[str]:
    """Of a published table a row has an entry a column: a mean, or a mean and a deviation. Claims are texts by id."""
    for name, table in paper.facts.get("tables", {}).items():
        yield from (f"{name} of the YAML has no {key}" for key in ("title", "unit", "columns", "rows") if not table.get(key))
        columns = table.get("columns") or ()
        yield from (f"{name} of the YAML has the column {column} twice" for column in _twice(columns))
        for row, entries in (table.get("rows") or {}).items():
            if len(entries) != len(columns):
                yield f"row {row} of {name} of the YAML has {len(entries)} entries; accepted are {len(columns)}, one a column"
            for entry in entries:
                if not _is_published(entry):
                    yield f"row {row} of {name} of the YAML has the entry {entry}; accepted is a mean, or [mean, deviation]"
    for part in ("claims", "questions"):
        for id_, text in paper.facts.get(part, {}).items():
            if not (isinstance(text, str) and text):
                yield f"{id_} among the {part} of the YAML is {text!r}; accepted is its text"


def _is_published(entry: Any) -> bool:
    numbers = entry if isinstance(entry, list) else [entry]
    sound = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    return sound and len(numbers) in (1, 2) and (len(numbers) == 1 or numbers[1] >= 0)


def _profiles_are_known(paper: Paper) -> Iterator[str]:
    known = get_args(Profile)
    if not paper.profiles:
        yield f"PROFILES is empty; accepted are some of {', '.join(known)}"
    yield from (f"PROFILES has {p!r}; accepted are {', '.join(known)}" for p in paper.profiles if p not in known)
    yield from (f"PROFILES has {p} twice" for p in _twice(paper.profiles))
    if not (isinstance(paper.settings, type) and issubclass(paper.settings, Settings)):
        yield f"PaperSettings is {paper.settings!r}; accepted is a class derived from lbgap.papers.paper.Settings"


def _every_question_is_asked(paper: Paper, studies: Iterable[Study]) -> Iterator[str]:
    """Our questions have texts in the YAML, and each of these is asked in some profile."""
    asked = {question.id for study in studies for question in study.questions}
    yield from (f"question {q} of the YAML is asked in no profile" for q in paper.facts.get("questions", {}) if q not in asked)


def _fewer_seeds_change_no_run(study: Study, fewer: Study) -> Iterator[str]:
    other = set(fewer.jobs()) - set(study.jobs())
    if other:
        yield f"with seeds 1 there are {len(other)} jobs that the profile does not have; accepted are some of its own"


# ---------------------------------------------------------------- a study


def _it_is_the_one_asked_for(paper: Paper, study: Study) -> Iterator[str]:
    if study.paper != paper.name:
        yield f"paper of the study is '{study.paper}'; accepted is '{paper.name}', the name of its files"
    if not study.jobs():
        yield "there is nothing to run"


def _names_are_unique(paper: Paper, study: Study) -> Iterator[str]:
    """Tables, figures, claims and questions are asked for by name alone."""
    parts = (study.tables, study.figures, study.claims, study.questions)
    names = [getattr(part, "name", None) or part.id for part in itertools.chain(*parts)]
    yield from (f"the name {name} is there twice among tables, figures, claims and questions" for name in _twice(names))
    for name in names:
        if name == "reference" or not NAME.fullmatch(name):
            yield f"the name '{name}' cannot be asked for; accepted are letters, digits, - and _, and not 'reference'"


def _cells_say_what_made_them(paper: Paper, study: Study) -> Iterator[str]:
    for table in study.tables:
        cells = [cell.place for cell in table.cells]
        yield from (f"{table.name} has the cell {row}, {column} twice" for row, column in _twice(cells))
        for cell in table.cells:
            if cell.quantity and not cell.words:
                yield f"{table.name} has no words for what makes the number of {', '.join(cell.place)}"
            if cell.words and not cell.quantity:
                yield f"{table.name} has words for what makes {', '.join(cell.place)}, and no quantity"


def _published_numbers_are_the_papers(paper: Paper, study: Study) -> Iterator[str]:
    """A table with a number is one of the YAML; in a committed profile it has every published number, and no other."""
    for table in study.tables:
        if table.number is None:
            continue
        if table.name not in paper.facts.get("tables", {}):
            yield f"{table.name} has the number {table.number} and is not in the YAML; accepted is None for a table of ours"
            continue
        cells = {cell.place: cell for cell in table.cells}
        published = _published(paper, table.name)
        for place, cell in cells.items():
            given = _entry(cell)
            if given is not None and given != published.get(place):
                yield f"{table.name} publishes {given} at {', '.join(place)}; the YAML has {published.get(place)}"
        if study.profile != "quick":
            for place in published:
                if place not in cells or _entry(cells[place]) is None:
                    yield f"{table.name} lacks the published number of {', '.join(place)}"


def _published(paper: Paper, table: str) -> dict[tuple[str, str], tuple]:
    of = paper.facts["tables"][table]
    return {
        (row, column): tuple(entry) if isinstance(entry, list) else (entry,)
        for row, entries in of["rows"].items()
        for column, entry in zip(of["columns"], entries, strict=False)
    }


def _entry(cell: Cell) -> tuple | None:
    of = cell.published
    return None if of is None else (of.mean,) if of.std is None else (of.mean, of.std)


def _lines_are_in_panels(paper: Paper, study: Study) -> Iterator[str]:
    for figure in study.figures:
        panels, drawn = [axis.name for axis in figure.panels], {series.panel for series in figure.series}
        yield from (f"figure {figure.name} has the panel {panel} twice" for panel in _twice(panels))
        yield from (f"figure {figure.name} has no line in its panel {panel}" for panel in panels if panel not in drawn)
        yield from (f"figure {figure.name} has a line in {panel}, no panel of it" for panel in sorted(drawn - set(panels)))


def _claims_are_the_papers(paper: Paper, study: Study) -> Iterator[str]:
    """Claims and questions have the ids and texts of the YAML; a committed profile has every claim, in its order."""
    claims = paper.facts.get("claims", {})
    if study.profile != "quick" and [claim.id for claim in study.claims] != list(claims):
        yield f"claims are {', '.join(c.id for c in study.claims) or 'none'}; the YAML has {', '.join(claims) or 'none'}"
    for part, of in (("claims", study.claims), ("questions", study.questions)):
        texts = paper.facts.get(part, {})
        for claim in of:
            if claim.id not in texts:
                yield f"{claim.id} is not among the {part} of the YAML"
            elif claim.text != texts[claim.id]:
                yield f"{claim.id} has another text than in the YAML"


def _claims_can_be_judged(paper: Paper, study: Study) -> Iterator[str]:
    """By rules on cases with labels of their own, whose sides have the same seeds, in a committed profile enough of them."""
    for claim in (*study.claims, *study.questions):
        if bool(claim.cases) == bool(claim.reason):
            yield f"{claim.id} has {'rules and a reason' if claim.cases else 'neither rules nor a reason'} why it is not run"
        if claim.needed is not None and not 1 <= claim.needed <= len(claim.cases):
            yield f"{claim.id} needs {claim.needed} of its cases; accepted is 1 to {len(claim.cases)}"
        yield from (f"{claim.id} has the case '{label}' twice" for label in _twice(s.label for s in claim.cases))
        yield from (f"{claim.id}, '{label}' {fault}" for label, fault in _seeds_at_fault(claim, study.profile != "quick"))


def _seeds_at_fault(claim: Claim, committed: bool) -> Iterator[tuple[str, str]]:
    for case in claim.cases:
        seeds = [len(q.jobs) for q in case.quantities]
        if len(set(seeds)) > 1:
            yield case.label, f"compares {seeds[0]} seeds with {seeds[1]}; accepted is one number of seeds"
        elif committed and seeds[0] < MIN_SEEDS:
            yield case.label, f"has {seeds[0]} seeds; a verdict takes {MIN_SEEDS}"


def _claims_say_what_they_show(paper: Paper, study: Study) -> Iterator[str]:
    """In a committed profile a claim has its central effect; a rule says on which network, and what was run; a second reading
    has a first.
    """
    for claim in (*study.claims, *study.questions):
        if study.profile != "quick" and claim.cases and not any(case.central for case in claim.cases):
            yield f"{claim.id} names no central effect"
        first = {(case.label, case.rule) for case in claim.cases if not case.reading}
        for case in claim.cases:
            if not (case.network and case.label.startswith(case.network)):
                yield f"{claim.id}, '{case.label}' does not begin with its network, '{case.network}'"
            if not case.where:
                yield f"{claim.id}, '{case.label}' has no words for what was run"
            if case.reading and (case.label.replace(f", {case.reading}", ""), case.rule) not in first:
                yield f"{claim.id}, '{case.label}' is a second reading ({case.reading}) of no rule"


def _jobs_are_read_together(paper: Paper, study: Study) -> Iterator[str]:
    """A number of a seed is read of jobs, as many for each seed."""
    for where, quantity in _quantities(study):
        sizes = {len(jobs) for jobs in quantity.jobs}
        if len(sizes) != 1 or 0 in sizes:
            yield f"{where} reads {', '.join(map(str, sorted(sizes))) or 'no'} jobs a seed; accepted is one number above 0"


def _quantities(study: Study) -> Iterator[tuple[str, Quantity]]:
    for table in study.tables:
        yield from ((f"{table.name}, {', '.join(c.place)}", c.quantity) for c in table.cells if c.quantity)
    for claim in (*study.claims, *study.questions):
        yield from ((f"{claim.id}, '{s.label}'", q) for s in claim.cases for q in s.quantities)


def _jobs_survive_json(paper: Paper, study: Study) -> Iterator[str]:
    """A job that was written into a record is the same job when it is read."""
    jobs = study.jobs()
    for job in jobs[:: max(1, len(jobs) // SAMPLE)]:
        try:
            again = job_from_json(json.loads(json.dumps(job.canonical())))
        except ValueError as error:
            yield f"job {job.key} cannot be read again ({error})"
        else:
            if again != job:
                yield f"job {job.key} is job {again.key} when it is read again"


def _quick_is_a_demonstration(paper: Paper, study: Study) -> Iterator[str]:
    """It needs no data set that is not embedded; the claims it has, it shows something of."""
    if study.profile == "quick":
        yield from (f"data set {name} is a file; accepted is one that needs none" for name in _of_files(study.jobs()))
        yield from (f"{claim.id} has no rule; a demonstration leaves it out" for claim in study.claims if not claim.cases)


def _reference_runs_anywhere(paper: Paper, study: Study) -> Iterator[str]:
    """Reference jobs belong to profile quick, whose data are embedded, and a measurement's runs are among them."""
    if study.reference and study.profile != "quick":
        yield "there are reference jobs; accepted are those of profile quick"
    for job in study.reference:
        if isinstance(job, Measure) and not all(weights.run in study.reference for weights in job.of):
            yield f"reference job {job.key} measures a run that is none; accepted are measurements of reference runs"


def _of_files(jobs: Iterable[Job]) -> Iterator[str]:
    for name in dict.fromkeys(job.run.data.name for job in jobs):
        try:
            embedded = locate(name) is None
        except DataMissing:
            embedded = False
        if not embedded:
            yield name


RULES: tuple[Callable[[Paper, Study], Iterator[str]], ...] = (
    _it_is_the_one_asked_for,
    _names_are_unique,
    _cells_say_what_made_them,
    _published_numbers_are_the_papers,
    _lines_are_in_panels,
    _claims_are_the_papers,
    _claims_can_be_judged,
    _claims_say_what_they_show,
    _jobs_are_read_together,
    _jobs_survive_json,
    _quick_is_a_demonstration,
    _reference_runs_anywhere,
)


def _twice(values: Iterable[Any]) -> list:
    """What is there more than once, in order."""
    return [value for value, times in Counter(values).items() if times > 1]
