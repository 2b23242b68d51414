"""Verdicts by scope, central effects, second readings and their rows, from made-up records of the toy of test_report.py."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from test_report import HUGE, LARGE, NAN, SMALL, T_4, accuracy, paper, put, run, toy  # noqa: F401 (paper: a fixture)

from lbgap import badges, papers, trace, verdicts
from lbgap.papers.paper import Case, Claim, Paper, Settings, Study
from lbgap.records import Record, Store
from lbgap.stats import Difference, Estimate, Finding, Ratio, Trend

# ---------------------------------------------------------------- claims


def judged(store: Store, claim: int, profile: str = "cpu") -> verdicts.Judged:
    """One claim of the toy on the records of a profile."""
    return verdicts.judge_claim(toy(profile).claims[claim], profile, store)


def test_a_difference_is_paired_by_seed(store):
    """Differences -1, -1.1, -0.9, -1.05, -0.95: mean -1, sum of squares 0.025, half width t sqrt(0.025 / 4 / 5)."""
    put(store, SMALL, [90.0, 80.0, 70.0, 95.0, 60.0])
    put(store, LARGE, [89.0, 78.9, 69.1, 93.95, 59.05])
    found = judged(store, 0)
    assert found.verdict == "replicated"
    setting, finding = found.central
    assert setting.label == "a: LB - SB"
    half = T_4 * math.sqrt(0.025 / 4 / 5)
    estimate = finding.estimate
    assert (estimate.effect, estimate.low, estimate.high) == pytest.approx((-1, -1 - half, -1 + half), abs=1e-6)
    assert estimate.n == 5
    assert found.reason == ""


@pytest.mark.parametrize(
    ("large", "verdict"),
    [
        ([89.0, 89.1, 88.9, 89.05, 88.95], "replicated"),
        ([91.0, 91.1, 90.9, 91.05, 90.95], "contradicted"),
        ([89.0, 91.1, 88.9, 91.05, 90.0], "inconclusive"),
    ],
)
def test_the_verdict_of_a_difference_is_that_of_its_interval(store, large, verdict):
    put(store, SMALL, [90.0] * 5)
    put(store, LARGE, large)
    assert judged(store, 0).verdict == verdict


def test_below_five_pairs_there_is_an_estimate_and_no_verdict(store):
    put(store, SMALL, [90.0, 90.0, 90.0, 90.0, None])
    put(store, LARGE, [None, 80.0, 80.1, 79.9, 80.0])
    found = judged(store, 0)
    assert found.verdict == "not run"
    assert found.central[1].estimate.n == 3
    assert found.central[1].estimate.effect == pytest.approx(-10)
    assert "5" in found.reason
    assert "a" in found.reason


def test_a_diverged_pair_is_left_out_and_counted(store):
    put(store, SMALL, [90.0, 90.0, 90.0, 90.0, 90.0])
    put(store, LARGE, [NAN, 80.0, 80.1, 79.9, 80.0])
    found = judged(store, 0)
    assert found.verdict == "not run"
    assert found.central[1].estimate.n == 4
    assert "1 of 5" in found.central[1].reason


def test_a_claim_without_settings_says_why(store):
    assert judged(store, 2) == verdicts.Judged(toy("cpu").claims[2], "cpu", "not run", (), "no code for it")


def test_a_claim_without_records_is_not_run(store):
    found = judged(store, 0)
    assert (found.verdict, found.central) == ("not run", None)
    assert found.reason


def test_a_claim_may_need_some_of_its_settings_only(store):
    """T2 holds where one of two does; it falls when both do."""
    put(store, SMALL, [40.0, 40.1, 39.9, 40.0, 40.05])
    put(store, LARGE, [30.0, 30.1, 29.9, 30.0, 30.2])
    assert judged(store, 1).verdict == "not run", "the other may still hold"
    put(store, HUGE, [90.0, 91.0, 92.0, 91.0, 90.0])
    found = judged(store, 1)
    assert [finding.verdict for _, finding in found.findings] == ["contradicted", "replicated"]
    assert found.verdict == "replicated"
    assert found.central[0].label == "b: XB at least twice SB", "the one that the claim names, whatever its verdict"


def test_a_claim_falls_where_too_many_settings_fall(store):
    put(store, SMALL, [40.0, 40.1, 39.9, 40.0, 40.05])
    put(store, LARGE, [30.0, 30.1, 29.9, 30.0, 30.2])
    put(store, HUGE, [41.0, 41.1, 41.0, 41.2, 41.1])
    assert judged(store, 1).verdict == "contradicted"


def test_the_ratio_is_the_geometric_mean(store):
    put(store, SMALL, [10.0] * 5)
    put(store, HUGE, [20.0, 80.0, 40.0, 40.0, 40.0])
    _, finding = judged(store, 1).findings[1]
    assert finding.estimate.effect == pytest.approx(4)  # (2 * 8 * 4 * 4 * 4) ** (1 / 5) = 1024 ** (1 / 5)
    half = T_4 * math.log(2) * math.sqrt(2 / 4 / 5)
    assert finding.estimate.low == pytest.approx(4 * math.exp(-half), rel=1e-6)
    assert finding.estimate.high == pytest.approx(4 * math.exp(half), rel=1e-6)


def test_a_ratio_without_a_number_says_why(store):
    """The small batch is 0 on one seed; the claim stays open, and every place that shows it says what is amiss."""
    put(store, SMALL, [10.0, 10.0, 0.0, 10.0, 10.0])
    put(store, LARGE, [30.0] * 5)
    put(store, HUGE, [20.0] * 5)
    found = judged(store, 1)
    (setting, finding), why = found.findings[1], "a value is not positive"
    assert (found.verdict, finding.verdict) == ("inconclusive", "inconclusive")
    assert found.reason.startswith(f"{setting.label}: {why}")
    assert badges.effect(setting.rule, finding.estimate) == "–"
    assert why in badges.settings_table([found])


def test_the_papers_own_profile_decides_where_it_can(store):
    put(store, SMALL, [90.0] * 5, "cpu")
    put(store, LARGE, [89.0, 89.1, 88.9, 89.05, 88.95], "cpu")
    first = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (first["T1"].profile, first["T1"].verdict) == ("cpu", "replicated")
    # four of five seeds of the paper's own say the opposite, loudly: they have no say yet
    put(store, SMALL, [50.0] * 4, "paper")
    put(store, LARGE, [80.0, 80.1, 79.9, 80.0], "paper")
    second = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert second["T1"] == first["T1"]
    put(store, SMALL, [50.0] * 5, "paper")
    put(store, LARGE, [80.0, 80.1, 79.9, 80.0, 80.2], "paper")
    third = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (third["T1"].profile, third["T1"].verdict) == ("paper", "contradicted")
    assert third["T1"].central[1].estimate.n == 5


def test_a_profile_that_judges_every_setting_speaks_before_one_that_decides_on_some(store):
    """T2 asks for one of two settings; the paper's own profile has records of the first alone."""
    for batch, value in ((SMALL, 40.0), (LARGE, 40.1)):
        put(store, batch, [value + i / 100 for i in range(5)], "paper")
    found = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (found["T2"].profile, found["T2"].verdict) == ("paper", "replicated")
    for batch, value in ((SMALL, 40.0), (LARGE, 60.0), (HUGE, 50.0)):
        put(store, batch, [value + i / 100 for i in range(5)], "cpu")
    found = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (found["T2"].profile, found["T2"].verdict) == ("cpu", "contradicted")
    assert found["T1"].profile == "paper"
    put(store, HUGE, [90.0 + i / 10 for i in range(5)], "paper")
    found = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (found["T2"].profile, found["T2"].verdict) == ("paper", "replicated")


def test_an_undecided_claim_shows_the_profile_with_most_records(store):
    put(store, SMALL, [90.0] * 3, "cpu")
    put(store, LARGE, [80.0, 80.1, 79.9], "cpu")
    found = {j.claim.id: j for j in verdicts.committed_verdicts("toy", store)}
    assert (found["T1"].profile, found["T1"].verdict) == ("cpu", "not run")
    assert found["T1"].central[1].estimate.n == 3


def test_verdict_rows_say_it_all_in_json(store):
    put(store, SMALL, [90.0, 80.0, 70.0, 95.0, 60.0])
    put(store, LARGE, [89.0, 78.9, 69.1, 93.95, 59.05])
    put(store, HUGE, [91.0])
    rows = json.loads(json.dumps(verdicts.verdict_rows("toy", store), allow_nan=False))
    assert [row["id"] for row in rows] == ["T1", "T2", "T3"]
    assert all({"id", "paper", "verdict", "profile", "n", "effect", "interval"} <= set(row) for row in rows)
    assert {row["paper"] for row in rows} == {"toy"}
    first, second, third = rows
    half = T_4 * math.sqrt(0.025 / 4 / 5)
    assert (first["verdict"], first["profile"], first["n"]) == ("replicated", "cpu", 5)
    assert (first["scope"], first["scopes"], first["central"]) == ("reduced", {"reduced": "replicated"}, "a: LB - SB")
    assert first["effect"] == pytest.approx(-1)
    assert first["interval"] == pytest.approx([-1 - half, -1 + half], rel=1e-5)
    assert second["verdict"] == "not run"
    one = second["settings"][1]
    assert (one["n"], one["verdict"], one["interval"]) == (1, "not run", [0.0, None]), "one pair has no interval"
    assert one["effect"] == pytest.approx(91 / 90, rel=1e-5)
    assert (third["verdict"], third["n"], third["effect"], third["interval"]) == ("not run", 0, None, None)
    assert third["reason"] == "no code for it"


def test_a_paper_that_is_only_a_demonstration_has_no_verdicts(store, monkeypatch):
    of = Paper("demonstration", {}, Settings, lambda s: toy(s.profile), ("quick",))
    monkeypatch.setattr(papers, "papers", lambda: {of.name: of})
    put(store, SMALL, [90.0] * 5, "quick")
    put(store, LARGE, [80.0] * 5, "quick")
    rows = verdicts.verdict_rows(of.name, store)
    assert [row["id"] for row in rows] == [claim.id for claim in toy("quick").claims]
    assert {(row["verdict"], row["reason"]) for row in rows} == {
        ("not run", "demonstration has profile quick alone; verdicts are given on cpu and paper")
    }


# ---------------------------------------------------------------- scopes and readings


def of_toy(store: Store, *settings: Case, needed: int | None = None) -> verdicts.Judged:
    """A claim of these settings, judged."""
    return verdicts.judge_claim(Claim("T", "a claim", settings, needed), "cpu", store)


def gap(network: str, batch: int, direction: str = "below", **fields) -> Case:
    """Whether a batch size's accuracy lies below (above) the small one's."""
    return Case(f"{network}: gap", Difference(direction), accuracy(batch), accuracy(SMALL), network, **fields)


@pytest.fixture
def recorded(store) -> Store:
    """LARGE tests 10 points worse than SMALL, HUGE cannot be told from it."""
    put(store, SMALL, [90.0, 91.0, 89.0, 90.5, 89.5])
    put(store, LARGE, [80.0, 81.1, 78.9, 80.4, 79.6])
    put(store, HUGE, [95.0, 86.0, 94.0, 85.0, 90.0])
    return store


def test_a_claim_has_a_verdict_for_each_scope_the_papers_own_first(recorded):
    found = of_toy(
        recorded, gap("c", LARGE, "above", scope="reading"), gap("b", HUGE, scope="reduced"), gap("a", LARGE, scope="paper")
    )
    assert list(found.scopes.items()) == [("paper", "replicated"), ("reduced", "inconclusive"), ("reading", "contradicted")]
    assert (found.verdict, found.scope) == ("contradicted", "reading")
    assert badges.in_words(found) == "replicated (a), inconclusive (b), does not hold here (c)"
    assert [found.on(n) for n in "abcd"] == [
        ("replicated", "paper"), ("inconclusive", "reduced"), ("contradicted", "reading"), None,
    ]  # fmt: skip


def test_so_many_settings_are_needed_of_a_scope_as_it_has_at_most(recorded):
    settings = gap("a", LARGE, scope="paper"), gap("b", HUGE), gap("c", LARGE)
    assert of_toy(recorded, *settings, needed=2).scopes == {"paper": "replicated", "reduced": "inconclusive"}
    assert of_toy(recorded, *settings, needed=1).scopes == {"paper": "replicated", "reduced": "replicated"}


@pytest.mark.parametrize("scope", ["paper", "reduced", "reading"])
def test_only_the_papers_own_setting_is_called_replicated_or_contradicted(recorded, scope):
    judged = [of_toy(recorded, gap("a", LARGE, direction, scope=scope)) for direction in ("below", "above")]
    shown = [badges.verdict_table([("toy", j)]) + badges.settings_table([j]) + badges.counts([j]) for j in judged]
    for text, own, here in zip(shown, ("replicated", "contradicted"), ("holds here", "does not hold here"), strict=True):
        words = re.sub("<[^>]*>", " ", text)
        assert (own in words, here in words) == ((True, False) if scope == "paper" else (False, True))
        assert ("hollow" in text) == (scope != "paper")


def test_a_second_reading_stands_beside_the_verdict_and_does_not_enter_it(recorded):
    first, second = gap("a", LARGE, scope="paper"), gap("a", HUGE, scope="reading", reading="best epoch")
    second = replace(second, label="a, best epoch: gap")
    found = of_toy(recorded, first, second)
    assert (found.verdict, found.scopes, found.on("a")) == ("replicated", {"paper": "replicated"}, ("replicated", "paper"))
    assert [(s.label, f.verdict) for s, f in found.second_readings] == [("a, best epoch: gap", "inconclusive")]
    assert "best epoch: a inconclusive" in badges.badges(found)
    alike = of_toy(recorded, first, replace(second, a=first.a))
    assert alike.second_readings == ()


def test_a_rule_that_presupposes_a_gap_is_not_asked_where_there_is_none(recorded):
    asked = Case("a: best below", Difference("below"), accuracy(LARGE), accuracy(SMALL), "a", given=gap("a", LARGE))
    idle = replace(asked, label="b: best below", network="b", given=gap("b", HUGE))
    found = of_toy(recorded, asked, idle)
    assert [f.verdict for _, f in found.findings] == ["replicated", "not asked"]
    assert found.findings[1][1].reason == "presupposes what is inconclusive (b: gap)"
    assert found.findings[1][1].estimate == found.findings[0][1].estimate, "the effect is shown all the same"
    assert found.verdict == "replicated"
    assert {job for jobs in idle.given.a.jobs for job in jobs} <= set(Study("toy", "cpu", claims=(found.claim,)).jobs())


def test_a_rule_that_presupposes_what_is_not_run_is_not_run_either(recorded):
    unrun = Case("a: best below", Difference("below"), accuracy(LARGE), accuracy(SMALL), "a", given=gap("a", 300))
    found = of_toy(recorded, unrun)
    assert [(f.verdict, f.reason) for _, f in found.findings] == [("not run", "presupposes what is not run (a: gap)")]
    assert found.verdict == "not run"


def test_what_is_not_asked_cannot_save_a_claim(recorded):
    excused = gap("a", HUGE, unasked="too small to tell")
    found = of_toy(recorded, excused, gap("b", LARGE, "above"))
    assert (found.verdict, found.on("a")[0], found.findings[0][1].reason) == ("contradicted", "not asked", "too small to tell")
    alone = of_toy(recorded, excused)
    assert (alone.verdict, alone.reason, alone.scopes) == ("not asked", "too small to tell", {})


def test_the_central_effect_is_the_one_that_is_named_in_the_papers_own_scope_first(recorded):
    settings = gap("a", LARGE), gap("b", HUGE, central=True), gap("c", LARGE, central=True, scope="paper")
    assert of_toy(recorded, *settings).central[0].label == "c: gap"
    assert of_toy(recorded, *settings[:2]).central[0].label == "b: gap"
    assert of_toy(recorded, settings[0]).central[0].label == "a: gap"


def test_what_decided_stands_beside_a_central_effect_that_did_not(recorded):
    holds, falls = gap("a", LARGE, central=True), gap("b", LARGE, "above")
    both = of_toy(recorded, holds, falls)
    assert (both.verdict, both.central[0].label, both.decisive[0].label) == ("contradicted", "a: gap", "b: gap")
    assert of_toy(recorded, holds).decisive is None and of_toy(recorded, falls).decisive is None
    put(recorded, 300, [80.0, 80.5, None, None, None])
    begun = of_toy(recorded, holds, gap("b", 300))
    assert (begun.verdict, begun.findings[1][1].estimate.n, begun.decisive) == ("not run", 2, None)
    apart = of_toy(recorded, holds, gap("b", LARGE, "above", scope="paper"))
    assert apart.decisive is None, "each scope has a verdict of its own"
    shown = badges.verdict_table([("toy", both)])
    assert shown.index("a: gap") < shown.index("decided by ") < shown.index("b: gap")
    assert "decided by" not in badges.verdict_table([("toy", of_toy(recorded, holds))])
    open_ = badges.verdict_table([("toy", of_toy(recorded, holds, gap("b", HUGE)))])
    assert "left open by " in open_ and "decided by" not in open_


def test_what_was_run_as_in_the_paper_shows_beside_a_profile_that_judges_more(store):
    """T2 is whole in profile cpu; of profile paper the first setting alone is recorded, and says the opposite."""
    for batch, value in ((SMALL, 40.0), (LARGE, 40.1), (HUGE, 90.0)):
        put(store, batch, [value + i / 10 for i in range(5)], "cpu")
    put(store, SMALL, [40.0] * 5, "paper")
    put(store, LARGE, [60.0 + i / 100 for i in range(5)], "paper")
    (found,) = [j for j in verdicts.committed_verdicts("toy", store) if j.claim.id == "T2"]
    assert (found.profile, found.verdict) == ("cpu", "replicated")
    assert found.scopes == {"paper": "contradicted", "reduced": "replicated"}
    row = verdicts.verdict_rows("toy", store)[1]
    assert [(s["scope"], s["verdict"]) for s in row["settings"]] == [
        ("reduced", "replicated"), ("reduced", "replicated"), ("paper", "contradicted"),
    ]  # fmt: skip
    assert [s["profile"] for s in row["settings"]] == ["cpu", "cpu", "paper"]
    reduced, _, own = (s["setting"] for s in row["settings"])
    assert (reduced, own) == ("a, plain: LB near SB", "a, at full size, plain: LB near SB"), "two cases, two names"
    assert (found.on("a"), found.on("b")) == (("contradicted", "paper"), ("replicated", "reduced"))
    traced = trace.of_claim("toy", found, store).lines
    assert dict(traced.groupby("setting")["profile"].unique().map(list)) == {
        s["setting"]: [s["profile"]] for s in row["settings"]
    }
    values = traced[traced["setting"] == own].groupby("side")["value"].mean()
    assert (values["A"], values["B"]) == pytest.approx((60.02, 40.0))


def test_one_word_for_all_scopes_stands_alone(recorded):
    alike = of_toy(recorded, gap("a", LARGE, scope="reduced"), gap("a", LARGE, scope="reading"))
    assert badges.in_words(alike) == "holds here"
    two = of_toy(recorded, gap("a", LARGE, scope="paper"), gap("b", LARGE, scope="reduced"), gap("c", LARGE, scope="reading"))
    assert badges.in_words(two) == "replicated (a), holds here (b, c)"


# ---------------------------------------------------------------- against the published effect


@pytest.mark.parametrize(
    ("rule", "published", "interval", "where"),
    [
        (Difference("below"), -1.0, (-1.5, -0.5), "inside"),
        (Difference("below"), -1.0, (-3.0, -2.0), "beyond"),
        (Difference("below"), -1.0, (-0.5, 0.5), "short"),  # no effect is not the opposite one
        (Difference("below"), -1.0, (0.5, 1.5), "opposite"),
        (Difference("above"), 1.0, (2.0, 3.0), "beyond"),
        (Ratio(10), 20.0, (30.0, 40.0), "beyond"),
        (Ratio(10), 20.0, (0.5, 2.0), "short"),
        (Ratio(10), 20.0, (0.1, 0.5), "opposite"),
        (Ratio(0.5), 0.7, (0.2, 0.4), "beyond"),
        (Ratio(3), (3.0, 10.0), (9.0, 12.0), "inside"),
        (Ratio(3), (3.0, 10.0), (11.0, 12.0), "beyond"),
        (Ratio(3), (3.0, 10.0), (1.5, 2.5), "short"),
        (Difference("below"), 0.0, (1.0, 2.0), "beyond"),  # no effect has no other side
        (Difference("below"), 0.0, (-2.0, -1.0), "beyond"),
        (Difference("above"), (0.0, 1.0), (2.0, 3.0), "beyond"),
        (Difference("above"), (-0.5, 1.0), (-3.0, -2.0), "beyond"),
        (Ratio(3), None, (1.5, 2.5), ""),
    ],
)
def test_where_an_interval_lies_against_the_published_effect(rule, published, interval, where):
    low, high = interval
    finding = Finding("inconclusive", Estimate((low + high) / 2, low, high, 5))
    setting = Case("a: x", rule, accuracy(LARGE), published=published)
    assert verdicts.against_published(setting, finding) == where


# ---------------------------------------------------------------- the frame of a forest plot


def test_effects_have_a_line_for_each_central_setting(store):
    put(store, SMALL, [10.0] * 5)
    put(store, HUGE, [20.0, 80.0, 40.0, 40.0, 40.0])
    frame = verdicts.effects(["toy"], store)
    assert list(frame["id"]) == ["T1", "T2", "T3"]
    one = frame[frame["id"] == "T2"].iloc[0]
    assert (one["scale"], one["scope"], one["network"], one["n"], one["main"]) == ("ratio", "reduced", "b", 5, True)
    assert one["effect"] == pytest.approx(4)
    assert (one["holds_from"], one["holds_to"]) == (2, math.inf)
    rest = frame[frame["id"] != "T2"]
    assert rest["effect"].isna().all() and set(rest["verdict"]) == {"not run"}


def test_an_effect_is_measured_in_its_rules_or_its_own_unit():
    q = accuracy(LARGE)
    scales = [verdicts.scale_of(Case("a: x", r, q, unit="percent")) for r in (Ratio(2), Trend("rising"), Difference("below"))]
    assert scales == ["ratio", "rank correlation", "percent"]


# ---------------------------------------------------------------- the history of the rules


def test_a_change_is_dated_against_the_claims_first_run(store, monkeypatch):
    """Runs begun at noon take two minutes: a rule of before, one of while the first was running, and one of after it."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    entries = [
        {"date": noon + timedelta(minutes=m), "rules": ["x"], "why": "", "moved": ""} for m in (-1, 1, 3)
    ]  # fmt: skip
    of = Paper("toy", {}, Settings, lambda s: toy(s.profile), ("cpu",), {"T1": entries, "T3": entries[:1]})
    monkeypatch.setattr(papers, "papers", lambda: {"toy": of})
    assert {row["when"] for row in verdicts.history("toy", store)} == {"no records yet"}
    for seed in range(2):
        begun = (noon + timedelta(minutes=10 * seed)).isoformat()
        for batch in (SMALL, LARGE):
            results = {"diverged": False, "accuracy": 90.0}
            store.put(Record(run(batch, seed), results, {"seconds": 120.0, "device": "made up", "begun": begun}))
    assert [(row["id"], row["when"], row["begun"]) for row in verdicts.history("toy", store)] == [
        ("T1", "before its first run", noon),
        ("T1", "while its first run went on", noon),
        ("T1", "after its first record", noon),
        ("T3", "no records yet", None),
    ]
