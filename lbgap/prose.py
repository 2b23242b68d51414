"""Numbers from records in the sentences of a page: a name in, a link to the records out."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from lbgap import badges, render, report, trace
from lbgap.papers.paper import Case
from lbgap.records import Store
from lbgap.stats import Estimate, Finding
from lbgap.verdicts import Judged, beside, judge_claim

NAME = re.compile(r"(?<!:::)\{([^{}`]+)\}(?!`)")  # {cite:p} before a backtick is a role, :::{dropdown} a directive


def fill(template: str, named: Callable[[str], str]) -> str:
    """A template with what ``named`` makes of each ``{name}``."""
    return NAME.sub(lambda match: named(match[1]), template)


class Numbers:
    """What prose may ask for of one paper's committed records.

    ``table2:F1:test_LB`` is a cell's mean and deviation, with ``:published`` behind it the paper's, with ``:interval`` a
    difference's mean and 95% interval; ``K1`` is the verdict of a claim or a question, ``K1:F1`` that of one network's
    settings, ``K1:effect`` the central effect, ``K1:effect:last`` that of the one setting whose label has these words.
    ``curves:F1, test accuracy:SB:100`` is a figure's mean over seeds at that x. Each is a link to its place in the fold with
    every seed and its record (a published number: to its table).

    Args:
        judged: the paper's claims and questions.
        page: where the folds are, if on another page.
    """

    def __init__(self, paper: str, store: Store, judged: Iterable[Judged], page: str = ""):
        self.paper, self.store, self.page = paper, store, page
        self.judged = {j.claim.id: j for j in judged}

    def named(self, name: str) -> str:
        """What prose calls by a name, as HTML.

        Raises:
            ValueError: a name that is none of those above.
        """
        claim, _, rest = name.partition(":")
        if claim in self.judged:
            return self._of_claim(name, self.judged[claim], rest)
        if claim in {f.name for study in report.committed_studies(self.paper) for f in study.figures}:
            return self._point(name, claim, rest)
        return self._cell(name, claim, rest)

    def _of_claim(self, name: str, judged: Judged, rest: str) -> str:
        place = [judged.claim.id]
        if rest.startswith("effect:"):
            words = rest.removeprefix("effect:")

            def held(j: Judged) -> list[tuple[Case, Finding]]:
                return [(case, finding) for case, finding, _ in j.shown if words in case.label]

            of = self._with(judged, lambda j: len(held(j)) == 1)
            if of is None:
                raise ValueError(
                    f"prose asks for {name}; {len(held(judged))} settings of {place[0]} hold these words, accepted is one"
                )
            ((case, finding),) = held(of)
            if of is judged:  # the fold has the cases of the profile that speaks, and of another the claim alone
                place.append(case.label)
            text, known = badges.effect(case.rule, finding.estimate), finding.estimate
        else:
            text, known = self._verdict(name, judged, rest), any(f.estimate for _, f, _ in judged.shown)
        return self._linked(text, *place) if known else text

    def _verdict(self, name: str, judged: Judged, rest: str) -> str:
        if rest == "effect":
            return badges.central(judged)
        if not rest:
            return f"**{badges.in_words(judged)}**"
        if of := self._with(judged, lambda j: j.on(rest)):
            return f"**{badges.word(*of.on(rest))}**"
        raise self._unknown(name)

    def _with(self, judged: Judged, asked: Callable[[Judged], Any]) -> Judged | None:
        """A claim as a profile judges it that has what is asked: the one that speaks for the claim, before the others."""

        def candidates() -> Iterator[Judged]:
            yield judged
            others = []
            for study in report.committed_studies(self.paper):
                for claim in (*study.claims, *study.questions):
                    if claim.id == judged.claim.id:
                        others.append(judge_claim(claim, study.profile, self.store))
                        yield others[-1]
            for other in others[1:]:  # what profile paper has beside another has its name before it has a record, too
                yield replace(other, elsewhere=beside(other, others[0]))

        return next(filter(asked, candidates()), None)

    def _cell(self, name: str, table_name: str, rest: str) -> str:
        row, _, column = rest.removesuffix(":published").removesuffix(":interval").rpartition(":")
        if not row:
            raise self._unknown(name)
        table, frame = report.committed_table(self.paper, table_name, self.store)
        cell = frame[(frame["row"] == row) & (frame["column"] == column)]
        if cell.empty:
            rows = frame[frame["row"] == row]
            what, have = ("column", rows["column"]) if len(rows) else ("row", frame["row"])
            raise ValueError(f"prose asks for {name}; {what}s of {table.name} are: {'; '.join(dict.fromkeys(have))}")
        line = cell.iloc[0]
        if rest.endswith(":published"):
            return self._linked(render.number(line["published"], line["published_std"], table.digits), table_name)
        if not line["n"]:
            return "(not run)"
        if rest.endswith(":interval") and line["scale"] != "ratio":
            text = render.interval(Estimate(*line[["mean", "low", "high", "n"]]))
        else:
            text = render.mean(line, table.digits)
        return self._linked(text, table_name, row, column)

    def _point(self, name: str, figure_name: str, rest: str) -> str:
        figure, data, _ = report.committed_figure(self.paper, figure_name, self.store)
        if data.empty:
            return "(not run)"
        panel, line, x = (rest.split(":") + ["", ""])[:3]
        at = data[(data["panel"] == panel) & (data["line"] == line) & (data["x"].astype(str) == str(float(x or "nan")))]
        if at.empty:
            raise ValueError(f"prose asks for {name}; figure {figure_name} has no such point")
        mean = float(f"{trace.summary(figure, at)['mean'].item():.4g}")
        place = report.with_tick_names(figure, at)[["panel", "line", "x"]].iloc[0]
        rows = trace.rows(trace.of(self.paper, figure_name, self.store))
        return self._linked(f"{mean:,g}", figure_name, *place[: len(rows)])

    def _linked(self, text: str, *place: str | float) -> str:
        return render.to_records(text, trace.anchor(self.paper, *place), self.page)

    @staticmethod
    def _unknown(name: str) -> ValueError:
        return ValueError(
            f"prose asks for {name}; there is CLAIM, CLAIM:NETWORK, CLAIM:effect, CLAIM:effect:WORDS, TABLE:ROW:COLUMN and "
            "that with :published or :interval, FIGURE:PANEL:LINE:X"
        )
