"""Verdicts as a reader sees them: badges, the table of claims, every setting, the history of the rules. Strings out."""

import html
from collections.abc import Iterable

import numpy as np

from lbgap.papers.paper import Case, Scope
from lbgap.render import interval, scroll
from lbgap.stats import Estimate, Finding, Ratio, Rule, Trend, Verdict, combine
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
    """The verdicts of a claim for a sentence: of each scope with its networks, of one scope alone without."""
    if len(judged.scopes) < 2:
        return "".join(word(v, s) for s, v in judged.scopes.items()) or judged.verdict
    return ", ".join(f"{word(v, s)} ({', '.join(networks(judged, s))})" for s, v in judged.scopes.items())


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
        return "–"
    low, high = bounds(case.published)
    ratio = isinstance(case.rule, Ratio)
    text = f"{'× ' if ratio else ''}{low:{'' if ratio else '+'},.3g}" + (f" to {high:,.3g}" if high != low else "")
    answer = AGAINST[against_published(case, finding)]
    size = "" if case.scope == "paper" or not answer else ", at full size"
    return f"{text}{size}" + (f"<br><small>{answer}</small>" if answer else "")


# ---------------------------------------------------------------- tables


def verdict_table(judged: list[tuple[str, Judged]], paper_column: bool = False) -> str:
    """A line a claim: text, badges, the central effect, the published one, n and profile."""
    lines = []
    for paper, j in judged:
        case, finding = j.central or (None, None)
        n = finding.estimate.n if finding else 0
        why = "".join(f"<br><small>{html.escape(text)}</small>" for text in (j.reason, j.claim.note if n else "") if text)
        where = f"<br><small>{html.escape(case.label)}</small>" if case else ""
        lines.append(
            f"<tr>{f'<td>{html.escape(paper)}</td>' if paper_column else ''}<th>{j.claim.id}</th>"
            f"<td class='text'>{html.escape(j.claim.text)}{why}</td><td class='badges'>{badges(j)}</td>"
            f"<td class='effect'>{central(j)}{where}</td><td>{published(case, finding) if case else '–'}</td>"
            f"<td>{n}{f'<br><small>{j.profile}</small>' if n else ''}</td></tr>"
        )
    head = _head(*(["paper"] if paper_column else []), "", "claim", "verdict", "effect [95%]", "published: inside it?", "n")
    return f"<table class='lbgap-table claims'>{head}<tbody>{''.join(lines)}</tbody></table>"


def settings_table(judged: list[Judged], verdicts: bool = True) -> str:
    """A line a case of a claim, with its rule."""

    def line(j: Judged, s: Case, f: Finding) -> str:
        where = f"<br><small>{html.escape(s.where)}</small>" if s.where else ""
        why = f"<br><small>{html.escape(f.reason)}</small>" if f.reason else ""
        verdict = f"<td>{badge(f.verdict, s.scope)}<br><small>{SCOPE_WORDS[s.scope]}</small></td>" if verdicts else ""
        numbers = f"<td class='effect'>{effect(s.rule, f.estimate)}</td><td>{_unpaired(s.rule, f, verdicts)}</td>"
        reported = f"<td>{published(s, f)}</td>" if verdicts else ""
        return (
            f"<tr><th>{j.claim.id}</th><td class='text'>{html.escape(s.label)}{where}{why}</td>"
            f"<td>{html.escape(str(s.rule))}</td>{verdict}{numbers}{reported}<td>{f.estimate.n if f.estimate else 0}</td></tr>"
        )

    body = "".join(line(j, s, f) for j in judged for s, f in j.findings + j.elsewhere)
    columns = ["", "setting", "rule", "verdict", "effect [95%]", "unpaired", "published: inside it?", "n"]
    head = _head(*(c for c in columns if verdicts or c not in ("verdict", "published: inside it?")))
    return f"<table class='lbgap-table claims'>{head}<tbody>{body}</tbody></table>"


def _unpaired(rule: Rule, f: Finding, verdicts: bool) -> str:
    """Welch's interval, and the verdict that it would give where that is another one."""
    if f.unpaired is None:
        return "–"
    shown = effect(rule, f.unpaired)
    other = rule.verdict(f.unpaired)
    differs = verdicts and f.verdict not in (other, "not run", "not asked")
    return shown[shown.index("[") :] + (f"<br><small>by it: {HERE.get(other, other)}</small>" if differs else "")


def settings_details(judged: list[Judged]) -> str:
    """:func:`settings_table`, folded away, with how far the seeds pair what is compared."""
    correlations = [f.correlation for j in judged for s, f in j.findings if f.correlation is not None and not s.reading]
    pairing = ""
    if correlations:
        pairing = (
            "<p class='lbgap-note'>Unpaired: Welch's interval, which does not use which seed is which. Over the "
            f"{len(correlations)} comparisons the two sides' mean correlation over seeds is {np.mean(correlations):.2f}.</p>"
        )
    table = scroll(settings_table([j for j in judged if j.findings]))
    return _details("Every setting of every rule", table + pairing)


def history_details(rows: list[dict]) -> str:
    """The history of the rules (:func:`lbgap.verdicts.history`), folded away."""
    lines = []
    for row in rows:
        rules = "<br>".join(html.escape(rule) for rule in row["rules"])
        begun = f"<br><small>begun {row['begun']:%Y-%m-%d %H:%M}</small>" if row["begun"] else ""
        lines.append(
            f"<tr><th>{row['id']}</th><td>{row['date']:%Y-%m-%d %H:%M}</td><td class='text'>{rules}</td>"
            f"<td class='effect'>{row['when']}{begun}</td>"
            f"<td class='text'>{html.escape(row['why'])}</td><td>{html.escape(row['moved'])}</td></tr>"
        )
    head = _head("", "fixed or changed", "rule", "against its records", "why", "moved a verdict?")
    table = f"<table class='lbgap-table claims'>{head}<tbody>{''.join(lines)}</tbody></table>"
    return _details("When each rule was fixed or changed", scroll(table))


def _head(*columns: str) -> str:
    return f"<thead><tr>{''.join(f'<th>{c}</th>' for c in columns)}</tr></thead>"


def _details(summary: str, content: str) -> str:
    return f"<details class='lbgap-details'><summary>{summary}</summary>{content}</details>"
