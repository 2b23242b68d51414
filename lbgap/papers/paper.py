"""The one description every paper is given in: quantities read from records, tables and figures and claims made of them.

A paper is data. Nothing here is computed or drawn; the jobs of a study are those its quantities need.
"""

import difflib
import itertools
import json
import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lbgap.spec import Job
from lbgap.stats import Rule
from lbgap.values import Frozen

Profile = Literal["quick", "cpu", "paper"]
# How a rule tests its claim: with the paper's own network, data and settings, to the extent that it states them; with the same
# protocol on less data, a smaller network or fewer epochs; or in a way that a constant or reading decides which it leaves open.
Scope = Literal["paper", "reduced", "reading"]
SCOPES: tuple[Scope, ...] = ("paper", "reduced", "reading")


Jobs = tuple[tuple[Job, ...], ...]  # for each seed, the jobs whose records are read together, its own first


def seed_of(jobs: tuple[Job, ...]) -> int:
    """The seed whose value is read from these jobs, as its runs know it: 5 for the first of fresh seeds that follow five."""
    return jobs[0].run.seed if jobs else 0


def side_by_side(*jobs: Jobs) -> Jobs:
    """For each seed the jobs of all of them, in order: what a quantity of several runs reads.

    Raises:
        ValueError: another number of seeds in one than in another.
    """
    if len({len(seeds) for seeds in jobs}) > 1:
        raise ValueError(f"jobs are of {', '.join(str(len(seeds)) for seeds in jobs)} seeds; accepted is one number of seeds")
    return tuple(tuple(job for part in seed for job in part) for seed in zip(*jobs, strict=True))


@dataclass(frozen=True)
class Quantity:
    """A number per seed: ``read(*results)`` of the records of ``jobs[seed]``.

    Where one of the runs diverged there is no number, unless ``read`` says itself what one is then (``reads_diverged``).
    ``pooled``: one number of all seeds together, such as an end of an interval over them; ``jobs`` then has one entry.
    ``is_ratio``: its mean over seeds is the geometric one, and its interval that of the logarithms.
    """

    jobs: Jobs
    read: Callable[..., float]
    reads_diverged: bool = False
    pooled: bool = False
    is_ratio: bool = False

    def value(self, *results: dict) -> float:
        """The number of one seed, from the results of its records; NaN where a run diverged."""
        if not self.reads_diverged and any(r.get("diverged") for r in results):
            return math.nan
        return self.read(*results)


def combined(f: Callable[..., float], *quantities: Quantity) -> Quantity:
    """``f`` of the numbers of several quantities, seed by seed; each is read of its own records, by its own reader.

    Where one of them has no number, because a run diverged, ``f`` is given NaN for it.
    """

    def read(*results: dict) -> float:
        rest = iter(results)
        return f(*(q.value(*itertools.islice(rest, len(q.jobs[0]))) for q in quantities))

    return Quantity(side_by_side(*(q.jobs for q in quantities)), read, reads_diverged=True)


def difference(a: Quantity, b: Quantity) -> Quantity:
    """a - b for each seed."""
    return combined(operator.sub, a, b)


def ratio(a: Quantity, b: Quantity) -> Quantity:
    """a / b for each seed, of numbers that are not negative: infinite where b alone is 0, undefined where both are."""
    return replace(combined(lambda a, b: a / b if b != 0 else math.inf if a > 0 else math.nan, a, b), is_ratio=True)


def constant(like: Quantity, value: float = 0.0) -> Quantity:
    """One number for every seed of another quantity, which a rule compares with it."""
    return Quantity(like.jobs, lambda *_: value, reads_diverged=True)


def best_on_the_others(choices: Sequence[Quantity], by: Sequence[Quantity] | None = None) -> Quantity:
    """Each seed's number under that choice whose mean over the other seeds is highest.

    To choose by the very number that is then reported would flatter whatever offers more choices. A choice under which
    one of the other seeds diverged is not made; where that leaves none, the seed has no number.

    Args:
        by: for each choice the quantity whose mean over the other seeds decides, where it is another one than is reported.
    """

    def chosen(*numbers: float) -> float:
        own, *others = np.reshape(numbers, (-1, len(choices)))
        means = np.mean(others, axis=0) if others else np.full(len(choices), math.nan)
        return own[np.nanargmax(means)] if np.isfinite(means).any() else math.nan

    # seed 0 beside all the others, seed 1 beside all the others, ...: the same seeds, each time one further
    turns = range(len(choices[0].jobs))
    of = (q for turn in turns for q in (choices if turn == 0 or by is None else by))
    places = (turn for turn in turns for _ in choices)
    return combined(chosen, *(replace(q, jobs=q.jobs[turn:] + q.jobs[:turn]) for q, turn in zip(of, places, strict=True)))


@dataclass(frozen=True)
class Published:
    """A mean and, where the paper gives one, its standard deviation."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        words: what produced our number.
        network: the one that it is of, as the paper names it.
        reading: the name of a second reading of the column, which stands in a line beneath it.
    """

    row: str
    column: str
    published: Published | None
    quantity: Quantity | None
    words: str = ""
    network: str = ""
    reading: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Row and column, the reading behind the latter: what files, links and prose call the cell."""
        return self.row, f"{self.column} {self.reading}".rstrip()


@dataclass(frozen=True)
class Table:
    """A table of the paper (``number``) or of ours (None)."""

    name: str
    title: str
    unit: str
    cells: tuple[Cell, ...]
    number: int | None = None
    digits: int = 2


@dataclass(frozen=True)
class Axis:
    """One panel of a figure; ``ticks`` names the places 0, 1, 2, ... on the x axis.

    With ``fit_from`` each line has its fit a + b log x from that x on beside it, and b in the legend.
    """

    name: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[str, ...] = ()
    fit_from: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one line in one panel, per seed: ``read(*results)`` gives (x, y) pairs; of several, (line, x, y)."""

    panel: str
    line: str | None  # None: of several lines
    jobs: Jobs
    read: Callable[..., Iterable[tuple]]

    def points(self, *results: dict) -> list[tuple[str, float, float]]:
        """(line, x, y) of one seed, from the results of its records."""
        found = self.read(*results)
        return [(line, float(x), float(y)) for line, x, y in (found if self.line is None else ((self.line, *p) for p in found))]


def published(panel: str, *points: tuple[float, float], line: str = "published") -> Series:
    """What the paper reports, as points of a panel that shows some of ours: no record is behind them."""
    return Series(panel, line, ((),), lambda: points)


@dataclass(frozen=True)
class Figure:
    """A figure's data; plots.py draws any of them, caption and alt text stand beside it in the chapter.

    ``mark``: lines with a band from the lowest to the highest seed, single points, lines with 95% intervals, or a heat map,
    whose rows are the lines, from the lowest up, whose columns are the ticks, and whose colour is y.
    """

    name: str
    title: str
    panels: tuple[Axis, ...]
    series: tuple[Series, ...]
    mark: Literal["line", "point", "interval", "heat"] = "line"


@dataclass(frozen=True)
class Case:
    """A rule on one case of a claim; the label begins with the network.

    Attributes:
        network: the one that the case is about.
        scope: how the rule tests the claim.
        where: in words, what was run.
        central: whether this is the effect that a reader of the claim should see.
        published: the effect that the paper reports, on the rule's own scale, or the range that it names.
        unit: of the effect, where it is neither a ratio nor a rank correlation.
        reading: the name of a second reading of a rule, which stands beside the claim's verdict and does not enter it.
        given: a case without whose effect the rule asks nothing; it is asked where that one is replicated.
        unasked: why the effect is shown and not judged.
    """

    label: str
    rule: Rule
    a: Quantity
    b: Quantity | None = None
    network: str = ""
    scope: Scope = "reduced"
    where: str = ""
    central: bool = False
    published: float | tuple[float, float] | None = None
    unit: str = "points"
    reading: str = ""
    given: "Case | None" = None
    unasked: str = ""

    @property
    def text(self) -> str:
        """The label without the network, and the rule: what the case has in common with those of other networks."""
        where = f", where there is: {self.given.text}" if self.given else ""
        return f"{self.label.removeprefix(self.network).lstrip(':, ')}: {self.rule}{where}"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What the case reads."""
        return tuple(q for q in (self.a, self.b) if q) + (self.given.quantities if self.given else ())


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, judged on ``needed`` of its cases (None: on all), or the reason why it is not run.

    ``note`` is what a reader must know beside the verdict.
    """

    id: str
    text: str
    cases: tuple[Case, ...] = ()
    needed: int | None = None
    reason: str = ""
    note: str = ""


def claims(
    texts: Mapping[str, str],
    rules: Iterable[tuple[str, Case]],
    only: Collection[str] = (),
    needed: Mapping[str, int] | None = None,
    reasons: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> tuple[Claim, ...]:
    """A paper's claims in its order, each with those of the ``rules`` (id, case) that are its own.

    Args:
        texts: what the paper claims, by id.
        only: ids of the claims to make; all of them where empty.
        needed: by id, of how many cases a claim must hold; of all of them where an id is absent.
        reasons: by id, why a claim that no rule bears on is not run.
        notes: by id, what a reader must know beside the verdict.
    """
    of: dict[str, list[Case]] = {claim: [] for claim in only or texts}
    for claim, case in rules:
        if claim in of:
            of[claim].append(case)
    return tuple(
        Claim(
            claim,
            texts[claim],
            tuple(cases),
            (needed or {}).get(claim),
            "" if cases else (reasons or {}).get(claim, "nothing that is run here bears on it"),
            (notes or {}).get(claim, ""),
        )
        for claim, cases in of.items()
    )


def own_questions(texts: Mapping[str, str], rules: Iterable[tuple[str, Case]]) -> tuple[Claim, ...]:
    """What is asked beyond a paper: as :func:`claims`, but also what is run as in the paper is our reading, not its claim."""
    return claims(texts, ((asked, replace(c, scope="reading") if c.scope == "paper" else c) for asked, c in rules))


@dataclass(frozen=True)
class Study:
    """What one profile of a paper (or a re-runner's own settings) computes and shows.

    ``questions`` are ours, where ``claims`` are the paper's; both are judged by rules alike.
    ``reference``, of profile quick: short runs on embedded data, and measurements of them, whose records are committed so
    that ``verify`` can repeat them anywhere; of so few updates that another processor's rounding hardly shows.
    """

    paper: str
    profile: Profile
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    questions: tuple[Claim, ...] = ()
    reference: tuple[Job, ...] = ()

    def groups(self) -> Iterator[tuple[str, list[Jobs]]]:
        """(name of a table, a table's row, a figure, a claim or a question, its jobs per seed), in the order to run them in."""
        for table in self.tables:
            yield table.name, [c.quantity.jobs for c in table.cells if c.quantity]
            for row in dict.fromkeys(c.row for c in table.cells if c.quantity):
                yield f"{table.name}/{row}", [c.quantity.jobs for c in table.cells if c.quantity and c.row == row]
        for figure in self.figures:
            yield figure.name, [s.jobs for s in figure.series]
        for claim in (*self.claims, *self.questions):
            yield claim.id, [q.jobs for s in claim.cases for q in s.quantities]
        if self.reference:
            yield "reference", [(self.reference,)]

    def networks(self) -> dict[Job, str]:
        """The network of each job that a table has, as the paper names it, and of the runs that are measured."""
        out = {}
        for cell in (cell for table in self.tables for cell in table.cells if cell.quantity and cell.network):
            for job in (job for jobs in cell.quantity.jobs for job in jobs):
                for of in (job, *(weights.run for weights in job.parents)):
                    out.setdefault(of, cell.network)
        return out

    def jobs(self, only: Iterable[str] = ()) -> list[Job]:
        """Every job once, seed by seed, so that a sweep cut short is a smaller complete one.

        The seed is that of the job's run: a quantity may list, beside a seed's own jobs, those of other seeds.

        Args:
            only: names of tables, rows ("table2/F1"), figures or claims (all of them where empty).
        Raises:
            ValueError: a name that this study does not have.
        """
        only, groups = set(only), dict(self.groups())
        for name in sorted(only - set(groups)):
            near = difflib.get_close_matches(name, groups, n=3)
            others = [group for group in groups if "/" not in group]
            raise ValueError(
                f"only is '{name}'; " + (f"nearest are {', '.join(near)}" if near else f"accepted are {', '.join(others)}")
            )
        chosen = [jobs for name, per in groups.items() if not only or name in only for jobs in per]
        rounds = itertools.zip_longest(*chosen, fillvalue=())
        jobs = dict.fromkeys(job for seed in rounds for jobs in seed for job in jobs)
        return sorted(jobs, key=lambda job: job.run.seed)


# A field of settings: which of the profile's networks; recipe.named refuses one that it does not have.
Networks = Annotated[tuple[str, ...], Field(min_length=1)] | None


class Settings(Frozen):
    """What a re-runner may set; a paper's module subclasses it. Lists and numbers may arrive as strings."""

    profile: Profile
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None

    def __init__(self, **values):
        values = {k: _parsed(v) for k, v in values.items() if v is not None}
        if isinstance(values.get("networks"), str):  # one name alone
            values["networks"] = [values["networks"]]
        super().__init__(**values)

    @property
    def own(self) -> bool:
        """Whether anything was set that the profile fixes (choosing fewer networks or seeds changes no run)."""
        return bool(set(self.canonical()) - {"profile", "networks", "seeds"})

    @property
    def demonstration(self) -> bool:
        """Whether what is run is no size of the paper's experiment: profile quick, or a re-runner's own settings."""
        return self.profile == "quick" or self.own


def _parsed(value: Any) -> Any:
    """A JSON list written as a string (papermill -p, a shell) becomes the list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


@dataclass(frozen=True)
class Paper:
    """A paper: its facts (YAML), what may be set, its studies, and when the rules of its claims were fixed or changed.

    ``history`` has the entries of each claim, oldest first: ``date``, ``rules`` (see :attr:`Case.text`), ``why``, and
    what it ``moved`` of a verdict. It is ``history.yaml`` in the paper's package.
    """

    name: str
    facts: dict[str, Any]
    settings: type[Settings]
    study: Callable[[Settings], Study]
    profiles: tuple[Profile, ...]
    history: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


def dig(path: str) -> Callable[..., float]:
    """A reader of one field of one record: ``dig("final.test.batch.accuracy")``; NaN where the run diverged."""

    def read(results: dict) -> float:
        if results.get("diverged"):
            return float("nan")
        for part in path.split("."):
            results = results[part]
        return float(results)

    return read
