"""What a notebook calls: parameters in; tables, verdicts and figures out. Nothing is computed here but what is missing."""

import html
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown, display

from lbgap import badges, cost, papers, paths, plots, render, report, sweep, trace, verdicts
from lbgap.jobs import Cache, default_device
from lbgap.papers.paper import Figure, Study
from lbgap.prose import Numbers, fill
from lbgap.records import Store
from lbgap.verdicts import Judged

COMMITTED = "committed"
RUN_PARAMETERS = ("minutes", "workers")
# What IPython itself puts beside a notebook's own names.
_IPYTHON = {"In", "Out"}


class _Sentence(Exception):
    """An error of which a notebook shows the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ParameterError(_Sentence, ValueError):
    """A chapter was started with a parameter it does not accept."""


class JobsFailed(_Sentence, RuntimeError):
    """Some of what a chapter was to run failed."""


class Chapter:
    """One paper's page. Its first call, right after the parameters cell, is ``Chapter("keskar", globals())``.

    Every plain value in the notebook's namespace is taken for a parameter, so that a misspelt one, which papermill
    would pass over, is refused here.

    Raises:
        ParameterError: an unknown name or a value that is not accepted, in one sentence.
    """

    def __init__(self, paper: str, namespace: dict[str, Any]):
        self.paper = papers.get(paper)
        given = {
            k: v
            for k, v in namespace.items()
            if not k.startswith("_")
            and k not in _IPYTHON
            and isinstance(v, str | int | float | bool | list | tuple | dict | None)
        }
        accepted = ["profile", *RUN_PARAMETERS, *(f for f in self.paper.settings.model_fields if f != "profile")]
        for name in given:
            if name not in accepted:
                raise ParameterError(f"{name} is not a parameter of this chapter; accepted are {', '.join(accepted)}")
        self.minutes, self.workers = given.pop("minutes", None), given.pop("workers", None)
        if self.workers is None:
            self.workers = 1 if default_device() == "cuda" else min(8, os.cpu_count() or 1)
        try:
            sweep.check_limits(self.minutes, self.workers)
        except ValueError as error:
            raise ParameterError(str(error)) from None
        self.profile = given.pop("profile", None) or COMMITTED
        given = {k: v for k, v in given.items() if v is not None}
        self.store, self.live_store = Store(), None
        self._verdicts: tuple[list[Judged], list[Judged]] | None = None
        self.study, self.own, self.demonstration = None, False, False
        self._tables: list[str] = []  # as they come on the page: their numbers
        if self.profile == COMMITTED:
            if given:
                raise ParameterError(
                    f"{next(iter(given))} is {next(iter(given.values()))!r}; profile 'committed' only reads "
                    f"records and accepts no setting (choose a profile: {', '.join(self.paper.profiles)})"
                )
            return
        if self.profile not in self.paper.profiles:
            raise ParameterError(f"profile is {self.profile!r}; accepted are {COMMITTED}, {', '.join(self.paper.profiles)}")
        try:
            settings = papers.settings(paper, profile=self.profile, **given)
            self.study, self.own, self.demonstration = self.paper.study(settings), settings.own, settings.demonstration
            self.live_store = Store(paths.results(self.demonstration))
            paths.writable("cache", paths.cache())
            self.study.jobs()  # a batch larger than the data is found here, before anything runs
        except ValueError as error:
            raise ParameterError(str(error)) from None

    # ------------------------------------------------------------ committed records

    def _judged(self) -> tuple[list[Judged], list[Judged]]:
        """The paper's claims and our questions, judged once a page: prose asks for them again and again."""
        if self._verdicts is None:
            judge = verdicts.committed_verdicts, verdicts.committed_questions
            self._verdicts = tuple(committed(self.paper.name, self.store) for committed in judge)
        return self._verdicts

    def verdicts(self) -> None:
        """The verdicts of every claim by scope; folded away its settings, seeds and records, and the rules' history."""
        judged, _ = self._judged()
        rules = verdicts.history(self.paper.name, self.store)
        display(HTML(self._verdict_tables(judged) + (badges.history_details(rules) if rules else "")))

    def questions(self) -> None:
        """The same of what we ask beyond the paper, whose history stands with that of the claims."""
        _, asked = self._judged()
        display(HTML(self._verdict_tables(asked)))

    def _verdict_tables(self, judged: list[Judged]) -> str:
        table = badges.verdict_table([(self.paper.name, j) for j in judged], folds="here")
        folds = badges.settings_details(judged, self.paper.name) + render.claims_fold(self.paper.name, judged, self.store)
        return table + folds

    def box(self) -> None:
        """Verdicts counted, n, compute: the numbers of the summary box."""
        judged, _ = self._judged()
        jobs = {job for study in report.committed_studies(self.paper.name) for job in study.jobs()}
        records = [r for r in map(self.store.get, jobs) if r]
        hours = sum(r.provenance["seconds"] for r in records) / 3600
        devices = ", ".join(sorted({r.provenance["device"] for r in records})) or "none"
        display(
            Markdown(
                f"**Verdicts** of {len(judged)} claims, one for each scope, {badges.counts(judged)}.  \n"
                f"**Records:** {len(records)} of {len(jobs)} jobs, {hours:.1f} hours of computing, one thread a job, on: "
                f"{devices}."
            )
        )

    def table(self, name: str) -> None:
        """A table: published rows beside ours, then what is not run and what it would cost, and the records behind it."""
        table, frame = report.committed_table(self.paper.name, name, self.store)
        if name not in self._tables:
            self._tables.append(name)
        shown = render.table(table, frame, self.paper.name, self._tables.index(name) + 1)
        display(HTML(shown + self._not_run(name, frame) + self._fold(name)))

    def figure(self, name: str) -> None:
        """A figure from committed records; where there are none, the command that makes them."""
        figure, data, _ = report.committed_figure(self.paper.name, name, self.store)
        if data.empty:
            display(HTML(f"<p class='lbgap-note'>Not run yet. {self._command(name)}</p>"))
        else:
            self._show(figure, data)

    def records(self, name: str) -> None:
        """The fold of a figure, or of a table, claim or figure that the page speaks of without showing it."""
        if fold := self._fold(name):
            display(HTML(fold))

    def _fold(self, name: str) -> str:
        found = trace.of(self.paper.name, name, self.store)
        if found.lines.empty:
            return ""
        above = ""
        if "x" in found.places:
            figure, data, _ = report.committed_figure(self.paper.name, name, self.store)
            above = render.figure_numbers(report.with_tick_names(figure, trace.summary(figure, data)))
        elif "row" in found.places:
            above = render.settings_line(report.committed_table(self.paper.name, name, self.store)[1])
        return render.fold(found, above)

    def prose(self, template: str) -> None:
        """Markdown with numbers from records, named as :class:`lbgap.prose.Numbers` says.

        Each is a link to its place in the fold with every seed and its record, which the page must have. A role (``{cite:p}``
        and a backtick) is left alone.

        Raises:
            ValueError: a name that is none of these.
        """
        numbers = Numbers(self.paper.name, self.store, [j for of in self._judged() for j in of])
        display(Markdown(fill(template, numbers.named)))

    # ------------------------------------------------------------ this run

    def live(self) -> None:
        """Run what is missing of the chosen profile and show it; with committed records alone, say so."""
        if self.study is None:
            display(Markdown("Nothing was trained for this page: it shows committed records only."))
            return
        store, jobs = self.live_store, self.study.jobs()
        if self.own:  # what was computed before, with the same settings under the profile's own name, is not computed again
            for job in jobs:
                if job not in store and (record := self.store.get(job)):
                    store.put(record)
        log = paths.cache() / "logs" / f"{self.paper.name}-{self.profile}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stream:
            outcome = sweep.complete(jobs, store, Cache(), self.minutes, self.workers, progress=stream)
        self._verdicts = None  # the run may have added to the committed records
        shown = os.path.relpath(log, paths.ROOT) if log.is_relative_to(paths.ROOT) else log.name
        what = "yours" if self.own else self.profile
        display(
            Markdown(
                f"**Live: {what}.** {outcome.done} jobs were run for this page, {outcome.left} are left; progress is "
                f"in `{shown}`."
            )
        )
        self._show_study(self.study, store)
        if outcome.failed:
            raise JobsFailed(f"{len(outcome.failed)} jobs failed: {next(iter(outcome.failed.values()))}")

    def _show_study(self, study: Study, store: Store) -> None:
        for table in study.tables:
            frame = report.table_frame(table, self.profile, store)
            if frame["n"].sum():
                frame = frame[frame.groupby("row")["n"].transform("sum") > 0]
                if self.demonstration:  # published values belong to the paper's own settings
                    table, frame = replace(table, number=None), frame.assign(published=float("nan"))
                display(HTML(render.table(table, frame) + render.settings_line(frame)))
        judged = [verdicts.judge_claim(c, study.profile, store) for c in study.claims]
        judged = [j for j in judged if any(f.estimate for _, f in j.findings)]
        if judged:
            what = "a demonstration, not a verdict" if self.demonstration else f"profile {self.profile}"
            title = f"<p class='lbgap-title'>What the claims' rules see (live; {what})</p>"
            display(HTML(title + badges.settings_table(judged, verdicts=not self.demonstration, label="Rules, live")))

    def live_figure(self, name: str) -> None:
        """A figure of the chosen profile, from what :meth:`live` ran."""
        if self.study is None:
            display(Markdown("Run with a profile to see this figure."))
            return
        figures = {f.name: f for f in self.study.figures}
        if name not in figures:
            raise ValueError(f"figure is '{name}'; this profile has {', '.join(figures)}")
        data = report.figure_frame(figures[name], self.live_store)
        if data.empty:
            display(Markdown("Nothing of this figure is recorded yet."))
        else:
            self._show(figures[name], data, "live-")

    # ------------------------------------------------------------ pieces

    def _command(self, name: str, rows: Iterable[str] = ()) -> str:
        """How to run what is missing of a table or figure, in the smallest profile that lacks some of it, and its cost.

        Where ``rows`` of a table are named, in the smallest profile that lacks some of these. Empty where no job would help.
        """
        asked = {f"{name}/{row}" for row in rows} or {name}
        for study in reversed(report.committed_studies(self.paper.name)):
            needed = [job for group, per in study.groups() if group in asked for seeds in per for seed in seeds for job in seed]
            if any(job not in self.store for job in needed):
                break
        jobs = report.with_parents([j for j in study.jobs([name]) if j not in self.store], self.store)
        if not jobs:
            return ""
        profile = study.profile
        device = "cuda" if profile == "paper" else "cpu"
        seconds = sum(cost.seconds(j, device) for j in jobs)
        return (
            f"<code>python -m lbgap run {self.paper.name} --profile {profile} --only {name}</code> "
            f"({len(jobs)} jobs, about {cost.in_words(seconds)} on one {'GPU' if device == 'cuda' else 'CPU thread'})"
        )

    def _not_run(self, name: str, frame: pd.DataFrame) -> str:
        ran = (frame["n"] + frame["diverged"]).groupby(frame["row"], sort=False).sum()
        absent = [row for row, n in ran.items() if n == 0]
        if not absent:
            return ""
        rows = html.escape(render.rows_in_words(absent, frame))
        whole = f" The whole table: {command}." if (command := self._command(name, absent)) else ""
        return f"<p class='lbgap-note'>Not run: {rows}.{whole}</p>"

    def _show(self, figure: Figure, data: pd.DataFrame, prefix: str = "") -> None:
        points = trace.summary(figure, data)
        drawings = []
        for i, (axis, canvas) in enumerate(plots.draw(figure, data).items()):
            words = render.panel_words(axis, points[points["panel"] == axis.name])
            drawings.append(plots.svg(canvas, f"{prefix}{self.paper.name}-{figure.name}-{i}", words))
        display(HTML(render.panels(figure, drawings)))
