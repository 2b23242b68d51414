"""Verdicts as a reader sees them: badges, the table of claims, every setting, the history of the rules. Strings out."""

import html
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from lbgap.papers.paper import Case, Scope
from lbgap.render import details, interval, styled, to_records
from lbgap.stats import Estimate, Finding, Ratio, Rule, Trend, Verdict, combine
from lbgap.trace import anchor
from lbgap.verdicts import Judged, against_published, bounds

HERE = {"replicated": "holds here", "contradicted": "does not hold here"}
SCOPE_WORDS: dict[Scope, str] = {"paper": "the paper's own setting", "reduced": "reduced", "reading": "our reading"}
AGAINST = {
    "": "",
    "inside": "inside",
    "beyond": "outside, ours beyond",
    "short": "outside, ours short",
    "opposite": "outside, opposite",
}


def word(verdict: Verdict, scope: Scope) -> str:
    """A verdict in words: only what was run as in the paper is called replicated or contradicted."""
    return verdict if scope == "paper" else HERE.get(verdict, verdict)


def badge(verdict: Verdict, scope: Scope) -> str:
    """A verdict as a coloured word, filled for the paper's own scope and hollow for the others."""
    hollow = "" if scope == "paper" else " hollow"
    return f"<span class='verdict verdict-{verdict.replace(' ', '-')}{hollow}'>{word(verdict, scope)}</span>"


def in_words(judged: Judged) -> str:
    """The verdicts of a claim for a sentence: of several scopes those of each network, where it is not one for all."""
    if len(judged.scopes) < 2:
        return "".join(word(v, s) for s, v in judged.scopes.items()) or judged.verdict
    of: dict[str, dict[str, None]] = {}
    for scope in judged.scopes:
        for network, verdict in networks(judged, scope).items():
            of.setdefault(word(verdict, scope), {})[network] = None
    return ", ".join(of if len(of) == 1 else (f"{said} ({', '.join(on)})" for said, on in of.items()))


def networks(judged: Judged, scope: Scope) -> dict[str, Verdict]:
    """The networks that a claim was judged on in one scope, each with its own verdict."""
    of: dict[str, list[Finding]] = {}
    for case, finding in judged.counted:
        if case.scope == scope:
            of.setdefault(case.network, []).append(finding)
    return {network: combine(findings) for network, findings in of.items()}


def badges(judged: Judged) -> str:
    """A badge a scope, the paper's own first, with its networks; then what another reading of the same rule turns."""
    lines = []
    for scope, verdict in judged.scopes.items():
        on = networks(judged, scope)
        alike = ", ".join(n for n, v in on.items() if v == verdict)
        names = "; ".join(filter(None, [alike, *(f"{n} {word(v, scope)}" for n, v in on.items() if v != verdict)]))
        lines.append(f"{badge(verdict, scope)}<br><small>{SCOPE_WORDS[scope]}: {html.escape(names)}</small>")
    for case, finding in judged.second_readings:
        name = case.label.replace(f", {case.reading}", "").split(":")[0]
        lines.append(f"<small>{html.escape(f'{case.reading}: {name}')} {word(finding.verdict, case.scope)}</small>")
    return "<br>".join(lines) or badge(judged.verdict, "paper")


def counts(judged: Iterable[Judged]) -> str:
    """How many claims have which verdict, in the paper's own settings and in ours."""
    judged = list(judged)
    parts = []
    for title, scopes in (
        ("in the paper's own settings", ("paper",)),
        ("reduced or under our readings", ("reduced", "reading")),
    ):
        found = [word(j.scopes[s], s) for j in judged for s in scopes if s in j.scopes]
        many = {
            "replicated": "replicated",
            "holds here": "hold",
            "contradicted": "contradicted",
            "does not hold here": "do not hold",
        }
        many |= {"inconclusive": "inconclusive", "not run": "not run"}
        if found:
            parts.append(f"{title}: " + ", ".join(f"{found.count(w)} {words}" for w, words in many.items() if w in found))
    return "; ".join(parts)


# ---------------------------------------------------------------- effects


def effect(rule: Rule, e: Estimate | None) -> str:
    """An effect with its interval: "-0.22 [-0.3, -0.1]"; "× 13 [11, 15]" for ratios, "rank corr. -0.9 [-1, -0.8], p = 0.02".

    A dash where there is none, or where it is not a number.
    """
    if e is None or np.isnan(e.effect):
        return "–"
    mark = "× " if isinstance(rule, Ratio) else "rank corr. " if isinstance(rule, Trend) else ""
    return mark + interval(e, signed=not isinstance(rule, Ratio)) + ("" if e.p is None else f", p = {e.p:.2g}")


def central(judged: Judged) -> str:
    """The effect that a claim is shown by."""
    return effect(judged.central[0].rule, judged.central[1].estimate) if judged.central else "–"


def published(case: Case, finding: Finding) -> str:
    """The effect that the paper reports, and whether our interval holds it."""
    if case.published is None:
        return ""
    low, high = bounds(case.published)
    ratio = isinstance(case.rule, Ratio)
    text = f"{'× ' if ratio else ''}{low:{'' if ratio else '+'},.3g}" + (f" to {high:,.3g}" if high != low else "")
    answer = AGAINST[against_published(case, finding)]
    size = "" if case.scope == "paper" or not answer else ", at full size"
    return f"{text}{size}" + (f"<br><small>{answer}</small>" if answer else "")


# ---------------------------------------------------------------- tables

CELLS = {"claim": "text", "rule": "text", "why": "text", "verdict": "badges", "effect [95%]": "effect"}


def _table(lines: list[dict[str, str]], named_by: list[str], label: str) -> str:
    """Lines of HTML under their columns' names, in a frame of its own; ``named_by`` are the columns that name a line."""
    frame = pd.DataFrame(lines).set_index(named_by)
    of = {c: CELLS[c] for c in frame.columns if c in CELLS}
    return styled(frame, label, classes="claims", columns=of, sparse=False)


def _beneath(text: str, *notes: str) -> str:
    """A text, and under it what is smaller."""
    return text + "".join(f"<br><small>{html.escape(note)}</small>" for note in notes if note)


def verdict_table(
    judged: list[tuple[str, Judged]], label: str = "Verdicts", folds: Literal["none", "here", "elsewhere"] = "none"
) -> str:
    """A line a claim: text, badges, the central effect, the one that decided if that is another, the published one, n, profile.

    Args:
        judged: each with its paper.
        folds: where the seeds are to which each effect leads: beneath the table, or on the papers' own pages, and then each
            line names its paper.
    """
    lines, elsewhere = [], folds == "elsewhere"
    for paper, j in judged:
        case, finding = j.central or (None, None)
        n = finding.estimate.n if finding else 0
        effects = []
        for s, f in filter(None, (j.central, j.decisive)):
            shown = effect(s.rule, f.estimate)
            if folds != "none":
                shown = to_records(shown, anchor(paper, j.claim.id, s.label), f"{paper}.html" if elsewhere else "")
            how = ("left open by " if f.verdict == "inconclusive" else "decided by ") if effects else ""
            effects.append(_beneath(how + shown, s.label))
        lines.append(
            ({"paper": html.escape(paper)} if elsewhere else {})
            | {
                "id": j.claim.id,
                "claim": _beneath(html.escape(j.claim.text), j.reason, j.claim.note if n else ""),
                "verdict": badges(j),
                "effect [95%]": "<br>".join(effects) or "–",
                "published: inside it?": published(case, finding) if case else "",
                "n": _beneath(str(n), j.profile_of(case) if n else ""),
            }
        )
    return _table(lines, ["paper", "id"] if elsewhere else ["id"], label)


def settings_table(judged: list[Judged], paper: str = "", verdicts: bool = True, label: str = "Settings") -> str:
    """A line a case of a claim, with its rule.

    Args:
        paper: whose page this is; each effect then leads to its place in the fold beneath.
        verdicts: false for a demonstration, which gives none.
    """

    def line(j: Judged, s: Case, f: Finding) -> dict[str, str]:
        shown = effect(s.rule, f.estimate)
        if paper and f.estimate:
            shown = to_records(shown, anchor(paper, j.claim.id, s.label))
        judgement = {"verdict": _beneath(badge(f.verdict, s.scope), SCOPE_WORDS[s.scope])}
        return (
            {"id": j.claim.id, "setting": _beneath(html.escape(s.label), s.where, f.reason), "rule": html.escape(str(s.rule))}
            | (judgement if verdicts else {})
            | {"effect [95%]": shown, "unpaired": _unpaired(s.rule, f, verdicts)}
            | ({"published: inside it?": published(s, f)} if verdicts else {})
            | {"n": str(f.estimate.n if f.estimate else 0)}
        )

    return _table([line(j, s, f) for j in judged for s, f, _ in j.shown], ["id", "setting"], label)


def _unpaired(rule: Rule, f: Finding, verdicts: bool) -> str:
    """Welch's interval, and the verdict that it would give where that is another one."""
    if f.unpaired is None:
        return ""
    shown = effect(rule, f.unpaired)
    other = rule.verdict(f.unpaired)
    differs = verdicts and f.verdict not in (other, "not run", "not asked")
    return _beneath(shown[shown.index("[") :], f"by it: {HERE.get(other, other)}" if differs else "")


def settings_details(judged: list[Judged], paper: str) -> str:
    """:func:`settings_table`, folded away, with how far the seeds pair what is compared; nothing where nothing was judged."""
    judged = [j for j in judged if j.findings]
    if not judged:
        return ""
    correlations = [f.correlation for j in judged for s, f in j.findings if f.correlation is not None and not s.reading]
    pairing = ""
    if correlations:
        pairing = (
            "<p class='lbgap-note'>Unpaired: Welch's interval, which does not use which seed is which. Over the "
            f"{len(correlations)} comparisons the two sides' mean correlation over seeds is {np.mean(correlations):.2f}.</p>"
        )
    return details("Every setting of every rule", settings_table(judged, paper) + pairing)


def history_details(rows: list[dict]) -> str:
    """The history of the rules (:func:`lbgap.verdicts.history`), folded away."""
    lines = [
        {
            "id": row["id"],
            "fixed or changed": f"{row['date']:%Y-%m-%d %H:%M}",
            "rule": "<br>".join(html.escape(rule) for rule in row["rules"]),
            "against its records": _beneath(row["when"], f"begun {row['begun']:%Y-%m-%d %H:%M}" if row["begun"] else ""),
            "why": html.escape(row["why"]),
            "moved a verdict?": html.escape(row["moved"]),
        }
        for row in rows
    ]
    return details("When each rule was fixed or changed", _table(lines, ["id", "fixed or changed"], "History of the rules"))
