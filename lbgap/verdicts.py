"""What the records say of each claim: verdicts by scope, the effect to look at, the same as JSON and as a frame."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from lbgap import papers
from lbgap.papers.paper import SCOPES, Case, Claim, Scope
from lbgap.records import Store
from lbgap.report import COMMITTED, committed_studies, values
from lbgap.spec import Job
from lbgap.stats import MIN_SEEDS, Finding, Ratio, Trend, Verdict, combine, judge

Findings = tuple[tuple[Case, Finding], ...]
AT_FULL_SIZE = "at full size"  # of the paper's own profile, beside a case that another profile has under the same label


@dataclass(frozen=True)
class Judged:
    """A claim with what each of its cases says; ``reason`` is why it is not run, or a case gives no number.

    ``verdict`` is that of all cases of the profile, but second readings. ``elsewhere`` are cases of profile ``paper`` that
    have a verdict while another profile, which judged more of them, speaks for the claim; a label that this one has too is
    told from its own.
    """

    claim: Claim
    profile: str
    verdict: Verdict
    findings: Findings
    reason: str
    elsewhere: Findings = ()

    @property
    def shown(self) -> tuple[tuple[Case, Finding, str], ...]:
        """Every case with its finding and its profile."""
        of = ((self.findings, self.profile), (self.elsewhere, "paper"))
        return tuple((s, f, profile) for findings, profile in of for s, f in findings)

    def profile_of(self, case: Case) -> str:
        """The profile that judged one of its cases."""
        return next(profile for s, _, profile in self.shown if s is case)

    @property
    def counted(self) -> Findings:
        """The cases that a verdict is made of: all that were asked, in their first reading."""
        return tuple((s, f) for s, f in self.elsewhere + self.findings if not s.reading and f.verdict != "not asked")

    @property
    def scopes(self) -> dict[Scope, Verdict]:
        """The verdict of the cases of each scope alone, the paper's own first."""
        by_scope = {scope: [f for s, f in self.counted if s.scope == scope] for scope in SCOPES}
        return {scope: combine(findings, self.claim.needed) for scope, findings in by_scope.items() if findings}

    @property
    def scope(self) -> Scope:
        """The scope that ``verdict`` can claim: the farthest from the paper's own among the cases that it is made of."""
        return max(
            (s.scope for s, f in self.findings if not s.reading and f.verdict != "not asked"),
            key=SCOPES.index,
            default="reduced",
        )

    def on(self, network: str) -> tuple[Verdict, Scope] | None:
        """The verdict of one network's cases alone, and their scope; None where the claim has none.

        Where there are some of the paper's own profile they speak, and no others.
        """
        own = [(s, f) for s, f in self.elsewhere if s.network == network and not s.reading]
        own = own or [(s, f) for s, f in self.findings if s.network == network and not s.reading]
        if not own:
            return None
        asked = [f for _, f in own if f.verdict != "not asked"]
        return combine(asked) if asked else "not asked", max((s.scope for s, _ in own), key=SCOPES.index)

    @property
    def central(self) -> tuple[Case, Finding] | None:
        """The case whose effect a reader should see: the first that its claim names, the paper's own scope before others."""
        with_effect = [(s, f) for s, f in self.counted if f.estimate]
        return min(with_effect, key=lambda sf: (not sf[0].central, SCOPES.index(sf[0].scope)), default=None)

    @property
    def decisive(self) -> tuple[Case, Finding] | None:
        """Where the central effect alone would have another verdict, the first case that has the one of its scope.

        None where that has no verdict yet: nothing has decided.
        """
        if not self.central:
            return None
        verdict = self.scopes[self.central[0].scope]
        if verdict in ("not run", self.central[1].verdict):
            return None
        of_scope = ((s, f) for s, f in self.counted if s.scope == self.central[0].scope)
        return next(((s, f) for s, f in of_scope if f.verdict == verdict and f.estimate), None)

    @property
    def second_readings(self) -> Findings:
        """The cases whose verdict another reading of the same rule turns."""
        first = {(s.label, s.rule): f.verdict for s, f, _ in self.shown if not s.reading}
        return tuple(
            (s, f)
            for s, f, _ in self.shown
            if s.reading and f.verdict not in ("not run", first.get((s.label.replace(f", {s.reading}", ""), s.rule)))
        )


def judge_case(case: Case, store: Store) -> Finding:
    """Apply a case's rule to the records; where the effect that it presupposes is not there, it asks nothing."""
    a = values(case.a, store)
    b = values(case.b, store) if case.b else a
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return Finding("not run", None, "no records")
    found = judge(case.rule, *(np.array(side, float) for side in zip(*pairs, strict=True)))
    if case.unasked:
        return _unasked(found, case.unasked)
    if case.given and (presupposed := judge_case(case.given, store)).verdict != "replicated":
        why = f"presupposes what is {presupposed.verdict} ({case.given.label})"
        return replace(found, verdict="not run", reason=why) if presupposed.verdict == "not run" else _unasked(found, why)
    return found


def _unasked(found: Finding, why: str) -> Finding:
    return replace(found, verdict="not asked", reason=why)


def judge_claim(claim: Claim, profile: str, store: Store) -> Judged:
    """Apply a claim's rules to the records."""
    if not claim.cases:
        return Judged(claim, profile, "not run", (), claim.reason)
    findings = tuple((case, judge_case(case, store)) for case in claim.cases)
    counted = [(s, f) for s, f in findings if not s.reading]
    verdict = combine([f for _, f in counted], claim.needed)
    if all(f.verdict == "not asked" for _, f in counted):
        verdict, reason = "not asked", "; ".join(dict.fromkeys(f.reason for _, f in counted)) or "no case is asked"
    elif verdict == "not run":
        open_ = dict.fromkeys(s.network + (f" ({f.reason})" if f.lost else "") for s, f in counted if f.verdict == "not run")
        reason = f"fewer than {MIN_SEEDS} seeds: {', '.join(open_)}"
    else:
        reason = "; ".join(f"{s.label}: {f.reason}" for s, f in counted if f.estimate and not np.isfinite(f.estimate.effect))
    return Judged(claim, profile, verdict, findings, reason)


def committed_verdicts(paper: str, store: Store) -> list[Judged]:
    """Each claim by the first profile of :data:`COMMITTED` that has judged it on all of its cases.

    Where none has, by one that decides it all the same, before one that does not; among equals, by the one with most records.
    """
    studies = committed_studies(paper)
    if studies[0].profile not in COMMITTED:
        reason = f"{paper} has profile {studies[0].profile} alone; verdicts are given on {' and '.join(reversed(COMMITTED))}"
        return [Judged(claim, studies[0].profile, "not run", (), reason) for claim in studies[0].claims]
    out = []
    for i, claim in enumerate(studies[0].claims):
        judged = [judge_claim(s.claims[i], s.profile, store) for s in studies]
        if claim.id != judged[-1].claim.id:
            raise ValueError(f"claims of {paper} differ between profiles: {claim.id} and {judged[-1].claim.id}")
        speaks = min(judged, key=_standing)
        elsewhere = tuple((s, f) for s, f in beside(speaks, judged[0]) if f.verdict not in ("not run", "not asked"))
        out.append(replace(speaks, elsewhere=elsewhere))
    return out


def beside(speaks: Judged, own: Judged) -> Findings:
    """The cases of profile ``paper`` that are not those of the profile that speaks; under a label of their own each."""
    read = {s.label: s.a.jobs for s, _ in speaks.findings}
    return tuple(
        (replace(s, label=s.label.replace(s.network, f"{s.network}, {AT_FULL_SIZE}", 1)) if s.label in read else s, f)
        for s, f in own.findings
        if read.get(s.label) != s.a.jobs
    )


def committed_questions(paper: str, store: Store) -> list[Judged]:
    """What we ask beyond the paper; of several profiles that ask the same, by the one that would speak for a claim."""
    asked: dict[str, list[Judged]] = {}
    for s in committed_studies(paper):
        for question in s.questions:
            asked.setdefault(question.id, []).append(judge_claim(question, s.profile, store))
    return [min(judged, key=_standing) for judged in asked.values()]


def committed(paper: str, store: Store) -> list[Judged]:
    """The paper's claims, then what we ask beyond it."""
    return [*committed_verdicts(paper, store), *committed_questions(paper, store)]


def _standing(judged: Judged) -> tuple[bool, bool, float, bool]:
    """Least for a claim that is decided, on all of its cases, with records of most of them."""
    findings = [f for _, f in judged.findings]
    recorded = sum(f.estimate is not None for f in findings)
    whole = bool(findings) and all(f.verdict != "not run" for f in findings)
    return judged.verdict == "not run", not whole, 0.0 if whole else -recorded / max(1, len(findings)), not findings


# ---------------------------------------------------------------- beside the published effect


def against_published(case: Case, finding: Finding) -> str:
    """Where our interval lies against the effect that the paper reports; empty where there is none to compare.

    "inside": the interval holds it, or meets the range that the paper names. Else ours lies "beyond" it, farther from no
    effect; "short" of it; or, the whole interval, on the other side of no effect: "opposite".
    """
    e = finding.estimate
    if case.published is None or e is None or e.n < 2 or not np.isfinite(e.effect):
        return ""
    low, high = bounds(case.published)
    if e.low <= high and e.high >= low:
        return "inside"
    none = 1.0 if isinstance(case.rule, Ratio) else 0.0
    if low <= none <= high:
        return "beyond"
    upward = low > none
    if e.high < none if upward else e.low > none:
        return "opposite"
    return "beyond" if (e.low > high) == upward else "short"


def bounds(published: float | tuple[float, float]) -> tuple[float, float]:
    """A published effect as a range."""
    return published if isinstance(published, tuple) else (published, published)


# ---------------------------------------------------------------- when the rules were fixed


def rules_in_force(paper: str) -> dict[str, list[str]]:
    """By claim, what its rules ask over all committed profiles and networks, without second readings and what is not asked."""
    out: dict[str, dict[str, None]] = {}
    for study in committed_studies(paper):
        for claim in (*study.claims, *study.questions):
            asked = (s.text for s in claim.cases if not s.reading and not s.unasked)
            out.setdefault(claim.id, {}).update(dict.fromkeys(asked))
    return {claim: list(texts) for claim, texts in out.items()}


def history(paper: str, store: Store) -> list[dict]:
    """The history of a paper's rules, a row an entry: id, date, rules, why, moved; ``begun``, when the claim's first run was,
    and ``when``, whether the entry came before or after it.

    First runs are those of the rules in force, and what is said of them is read from their records.
    """
    jobs: dict[str, set[Job]] = {}
    for study in committed_studies(paper):
        for claim in (*study.claims, *study.questions):
            asked = (q for s in claim.cases if not s.reading and not s.unasked for q in s.quantities)
            jobs.setdefault(claim.id, set()).update(job for q in asked for seed in q.jobs for job in seed)
    rows = []
    for claim, entries in papers.get(paper).history.items():
        records = [r for job in jobs.get(claim, ()) if (r := store.get(job))]
        spans = [(datetime.fromisoformat(r.provenance["begun"]), r.provenance["seconds"]) for r in records]
        begun = min((start for start, _ in spans), default=None)
        ended = min((start + timedelta(seconds=seconds) for start, seconds in spans), default=None)
        rows += [{"id": claim, **e, "begun": begun, "when": _against_runs(e["date"], begun, ended)} for e in entries]
    return rows


def _against_runs(date: datetime, begun: datetime | None, ended: datetime | None) -> str:
    if begun is None or ended is None:
        return "no records yet"
    if date < begun:
        return "before its first run"
    return "while its first run went on" if date < ended else "after its first record"


# ---------------------------------------------------------------- as data


def verdict_rows(paper: str, store: Store) -> list[dict]:
    """``verdicts --json``: one object a claim, then one a question of our own.

    ``effect``, ``interval`` and ``n`` are those of the ``central`` case, ``setting`` is what was run for it, and
    ``central_verdict`` the verdict of it alone, in ``central_scope``, which need not be that of ``verdict``; ``decided_by`` is
    the case whose verdict is that of its scope, where the central one's is another. ``scope`` is the farthest from the paper's
    own among the cases that ``verdict`` is made of; ``scopes`` has each scope's verdict.
    """
    return [_row(paper, j) for j in committed(paper, store)]


def _row(paper: str, j: Judged) -> dict:
    case, finding = j.central or (None, None)
    return {
        "id": j.claim.id,
        "paper": paper,
        "claim": j.claim.text,
        "verdict": j.verdict,
        "scope": j.scope,
        "scopes": j.scopes,
        "profile": j.profile,
        "central": case.label if case else None,
        "central_profile": j.profile_of(case) if case else None,
        "central_scope": case.scope if case else None,
        "central_verdict": finding.verdict if finding else None,
        "decided_by": j.decisive[0].label if j.decisive else None,
        "setting": case.where if case else None,
        "unit": scale_of(case) if case else None,
        **_numbers(finding),
        "reason": j.reason,
        "note": j.claim.note,
        "settings": [
            {
                "setting": s.label,
                "scope": s.scope,
                "profile": profile,
                "central": s.central,
                "reading": s.reading or None,
                "rule": str(s.rule),
                "verdict": f.verdict,
                **_numbers(f),
                "unpaired_interval": [_plain(f.unpaired.low), _plain(f.unpaired.high)] if f.unpaired else None,
                "published": list(s.published) if isinstance(s.published, tuple) else s.published and _plain(s.published),
                "against_published": against_published(s, f) or None,
                "reason": f.reason,
            }
            for s, f, profile in j.shown
        ],
    }


def _numbers(finding: Finding | None) -> dict:
    e = finding.estimate if finding else None
    return {
        "n": e.n if e else 0,
        "effect": _plain(e.effect) if e else None,
        "interval": [_plain(e.low), _plain(e.high)] if e else None,
        "p": _plain(e.p) if e and e.p is not None else None,
    }


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def scale_of(case: Case) -> str:
    """What an effect is measured in: "ratio", "rank correlation", or the case's unit."""
    return {Ratio: "ratio", Trend: "rank correlation"}.get(type(case.rule), case.unit)


def effects(names: Iterable[str], store: Store) -> pd.DataFrame:
    """Every claim's central effects, a line each: what a forest plot shows.

    Columns: paper, id, claim, setting, network, scope, profile; scale (ratio, rank correlation, or a unit) of the next seven:
    effect, low, high, published_low and published_high (NaN where the paper reports none), holds_from and holds_to, between
    which the claim holds; n, verdict (of this setting), main (whether this is the one effect that the claim is shown by).
    A claim without a central effect has one line without numbers.
    """
    lines = []
    for name in names:
        for j in committed_verdicts(name, store):
            found = [(s, f) for s, f in j.counted if s.central and f.estimate and np.isfinite(f.estimate.effect)]
            claim = {"paper": name, "id": j.claim.id, "claim": j.claim.text}
            for s, f in found:
                holds = dict(zip(("holds_from", "holds_to"), s.rule.region, strict=True))
                low, high = bounds(s.published) if s.published is not None else (np.nan, np.nan)
                numbers = {"effect": f.estimate.effect, "low": f.estimate.low, "high": f.estimate.high}
                numbers |= {"published_low": low, "published_high": high, "n": f.estimate.n}
                where = {"setting": s.label, "network": s.network, "scope": s.scope, "scale": scale_of(s)}
                where["profile"] = j.profile_of(s)
                lines.append(claim | where | numbers | holds | {"verdict": f.verdict, "main": j.central[0] is s})
            if not found:
                lines.append(claim | {"profile": j.profile, "n": 0, "verdict": j.verdict, "main": True})
    columns = ["paper", "id", "claim", "setting", "network", "scope", "profile", "scale", "effect", "low", "high"]
    return pd.DataFrame(
        lines, columns=[*columns, "published_low", "published_high", "holds_from", "holds_to", "n", "verdict", "main"]
    )
