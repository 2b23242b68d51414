"""Smith et al. 2020 as data: rates, schedules and budgets of every run, the best rate and its laws, grids on record."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import scipy

from lbgap import papers, schedule
from lbgap.papers.paper import Study
from lbgap.papers.smith import curves, figures, language, noise, peaks
from lbgap.papers.smith.curves import Curve, Sweeps
from lbgap.papers.smith.setups import FACTS, Grid, Setup, powers, setups_of
from lbgap.records import Store
from lbgap.spec import Measure, Train
from lbgap.stats import Difference

RESULTS = Path(__file__).resolve().parents[2] / "results"


def study(profile: str, **settings) -> Study:
    """The study of a profile."""
    return papers.get("smith").study(papers.settings("smith", profile=profile, **settings))


def setups(profile: str, **settings) -> dict[str, Setup]:
    """The networks of a profile."""
    return setups_of(papers.settings("smith", profile=profile, **settings))


F1 = setups("cpu")["F1"]
WRN = setups("paper")["WRN-16-4"]


# ---------------------------------------------------------------- facts, and the paper's own setting


def test_the_facts_are_the_table_of_the_slides_and_every_claim():
    assert list(FACTS["claims"]) == [f"S{i}" for i in range(1, 11)]
    rows = FACTS["tables"]["steps"]["rows"]
    assert list(rows) == [f"WRN-16-4, batch {b}" for b in powers(256, 32768)]
    assert [row[0][0] for row in rows.values()] == [93.6, 94.2, 94.5, 94.9, 94.7, 94.6, 92.5, 89.9]
    assert [row[1] for row in rows.values()] == [2, 2, 3, 3, 4, 2, 5, 5]
    assert all(low <= best <= high for _, best, low, high in rows.values())


def test_profile_paper_is_the_papers_own_setting():
    assert (WRN.model, WRN.data.name, WRN.data.n_train, dict(WRN.options)) == ("smith.WRN", "cifar10", None, {})
    assert (WRN.epochs, WRN.steps, WRN.momentum, WRN.weight_decay, WRN.ghosts) == (200, 9765, 0.9, 5e-4, 64)
    assert WRN.step_batches == powers(256, 32768)
    assert WRN.budget_batch == 64 and WRN.budgets[-1] == FACTS["budgets"]["growth"] * WRN.budgets[0]
    plain = setups("paper")["WRN-16-4 without batch norm"]
    assert (dict(plain.options), plain.ghosts) == ({"norm": "skipinit"}, None)
    published = {row: entries[1] for row, entries in FACTS["tables"]["steps"]["rows"].items()}
    for b, curve in Sweeps(WRN).steps.items():  # the published best rate lies inside each grid
        assert curve.rates[0] < published[f"WRN-16-4, batch {b}"] < curve.rates[-1] or b == 8192


def test_every_claim_has_its_rules():
    cpu, paper = study("cpu"), study("paper", networks=["WRN-16-4", "auto-encoder", "ResNet-50"])
    assert all(claim.cases for of in (cpu, paper) for claim in of.claims)
    assert {c.scope for claim in paper.claims for c in claim.cases if claim.id in ("S5", "S6", "S8")} == {"paper"}
    assert {c.network for claim in paper.claims for c in claim.cases if claim.id == "S10"} == {"auto-encoder", "ResNet-50"}
    assert {c.scope for claim in cpu.claims for c in claim.cases} == {"reduced", "reading"}


def test_published_effects_are_those_of_the_table():
    found = {c.label: c.published for claim in study("paper", networks=["WRN-16-4"]).claims for c in claim.cases}
    assert found["WRN-16-4: batch 2048 - batch 256"] == pytest.approx(94.9 - 93.6)
    assert found["WRN-16-4: batch 2048 - batch 32768"] == pytest.approx(94.9 - 89.9)
    assert found["WRN-16-4: test accuracy, batch 32768 - batch 2048"] == pytest.approx(89.9 - 94.9)
    line = scipy.stats.linregress([8, 9, 10, 11, 12, 14, 15], [2, 2, 3, 3, 4, 5, 5])  # 8,192 breaks the trend
    assert found["WRN-16-4: slope of the best rate, less that of proportion"] == pytest.approx(line.slope - 1)
    assert found["WRN-16-4: slope of the best rate for the training loss"] == pytest.approx(math.log(1 / 16, 128))
    assert found["WRN-16-4: slope of the best rate for the test set"] == pytest.approx(math.log(1 / 2, 128))


def test_a_corner_is_looked_for_where_both_regimes_are_there():
    """Best rates that are chance alone favour the corner: S3 presupposes proportion below and a flat rate above."""
    rng, found = np.random.default_rng(0), []
    x = np.log2(powers(4, 2048))
    for _ in range(60):
        rates = rng.normal(0, 1, (5, len(x)))
        apart = peaks.fit(x, rates, peaks.saturation).residual - peaks.fit(x, rates, peaks.corner).residual
        found.append(Difference("above").verdict(Difference("above").estimate(apart, np.zeros(5))))
    assert found.count("replicated") > 10 * found.count("contradicted")
    for claim in study("cpu").claims:
        for case in claim.cases if claim.id == "S3" else ():
            name = case.label.partition(":")[0]
            assert case.given.label == f"{name}: slope of the best rate over large batches, against 0"
            assert case.given.given.label == f"{name}: slope of the best rate over small batches, against 1"


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("s", [F1, WRN], ids=["F1", "WRN"])
def test_the_rate_is_effective_held_for_half_and_halved_in_twentieths(s):
    for momentum, exponent, updates in ((0.0, -2.0, 400), (0.9, 1.0, 20)):
        run = s.train(s.batches[-1], exponent, momentum, updates, 3)
        rate = 2**exponent * (1 - momentum)
        assert run.optimizer.learning_rate == pytest.approx(rate, rel=1e-11)
        assert (run.optimizer.momentum, run.optimizer.weight_decay, run.seed) == (momentum, s.weight_decay, 3)
        for u in range(updates):
            halvings = max(0, 1 + math.floor((u / updates - 0.5) * 20 + 1e-9))
            assert schedule.of(run, u)[0] == pytest.approx(rate / 2**halvings)


def test_ghost_batches_are_of_64_above_64():
    bn = setups("cpu")["F1 with batch norm"]
    for of in (bn, WRN):
        ghosts = {b: of.train(b, 0.0, 0.9, 20, 0).ghost_batch_size for b in (16, 64, 128, 2048)}
        assert ghosts == {16: None, 64: None, 128: 64, 2048: 64}
    assert F1.train(2048, 0.0, 0.9, 20, 0).ghost_batch_size is None


def runs(curve: Curve) -> list[Train]:
    return [run for seeds in curve.runs.values() for run in seeds]


def test_each_sweep_holds_equal_what_it_says():
    for s in setups("cpu").values():
        for optimizer, momentum in s.momenta.items():
            for b, curve in Sweeps(s).epochs[optimizer].items():
                assert {(r.batch_size, r.epochs, r.optimizer.momentum) for r in runs(curve)} == {(b, s.epochs, momentum)}
                assert {r.updates for r in runs(curve)} == {s.epochs * runs(curve)[0].updates_per_epoch}
    for b, curve in Sweeps(F1).steps.items():
        assert {(r.batch_size, r.updates, r.optimizer.momentum) for r in runs(curve)} == {(b, F1.steps, 0.9)}
    for epochs, curve in Sweeps(F1).budgets.items():
        assert {(r.batch_size, r.epochs) for r in runs(curve)} == {(F1.budget_batch, epochs)}
    assert F1.budgets[-1] == 32 * F1.budgets[0]


def test_a_grid_is_of_powers_of_two_around_a_guess_in_proportion_then_flat():
    grid = Grid(-6, 1, below=1, above=2, more={256: (4, 5)})
    assert grid.at(16) == (-3.0, -2.0, -1.0, 0.0)
    assert grid.at(32) == (-2.0, -1.0, 0.0, 1.0)
    assert grid.at(1024) == (0.0, 1.0, 2.0, 3.0)
    assert grid.at(256) == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)  # grown: what was there stays
    assert Grid(-2, 9, power=0.5).at(64) == (-1.0, 0.0, 1.0, 2.0, 3.0)


def test_the_quick_profile_has_six_batches_five_rates_and_two_optimizers():
    (s,) = setups("quick").values()
    for optimizer in ("SGD", "momentum"):
        sweep = Sweeps(s).epochs[optimizer]
        assert len(sweep) >= 6 and all(len(curve.rates) >= 5 for curve in sweep.values())


# ---------------------------------------------------------------- the best rate


def test_the_peak_is_the_vertex_of_a_parabola_in_the_logarithm(rng):
    rates = np.arange(-4.0, 3)
    for vertex in rng.uniform(-2.4, 1.4, 20):
        assert peaks.peak(rates, np.exp(0.3 * (rates - vertex) ** 2 - 1)) == pytest.approx(vertex)
        uneven = vertex + np.array([-3.0, -1.0, -0.25, 0.5, 2.0])  # of the best, half a step to its right is 0.375
        assert peaks.peak(uneven, np.exp(0.3 * (uneven - vertex) ** 2 - 1)) == pytest.approx(vertex)
    between = [peaks.peak([0, 1, 4], [left, 1.0, right]) for left, right in rng.uniform(1, 9, (50, 2))]
    assert 0.5 <= min(between) and max(between) <= 2.5, "within half a step of the best"


def test_many_curves_at_once_are_one_after_another(rng):
    badness = rng.uniform(1, 9, (30, 4, 6))
    badness[rng.random(badness.shape) < 0.2] = np.nan
    rates = np.arange(6.0)
    one_by_one = [[float(peaks.peak(rates, row)) for row in rows] for rows in badness]
    np.testing.assert_array_equal(peaks.peak(rates, badness), one_by_one)


@pytest.mark.parametrize(
    ("badness", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 0.0),  # at an end of the grid: that end
        ([4.0, 3.0, 2.0, 1.0], 3.0),
        ([5.0, 2.0, 2.0, 5.0], 1.5),
        ([4.0, 1.0, math.nan, math.nan], 1.0),  # a neighbour that diverged is as bad as the worst
        ([math.nan] * 4, math.nan),
        ([2.0, 0.0, 2.0, 5.0], 1.0),
    ],
)
def test_peaks_at_ends_and_beside_divergence(badness, expected):
    assert float(peaks.peak(range(4), badness)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("law", [peaks.corner, peaks.saturation])
def test_a_law_is_found_again_and_the_other_one_leaves_more(law, rng):
    x = np.arange(2.0, 12)
    bends = np.array([4.25, 6.5, 9.0])
    found = peaks.fit(x, np.array([1 + law(x, b) for b in bends]), law)
    np.testing.assert_allclose(found.bend, bends)
    np.testing.assert_allclose(found.top, 1)
    assert found.residual.max() < 1e-12
    (other,) = {peaks.corner, peaks.saturation} - {law}
    assert (peaks.fit(x, np.array([law(x, b) for b in bends]), other).residual > 0.05).all()


def test_a_fit_is_that_of_scipy(rng):
    """Of noisy rates, against curve_fit from the best of many starts."""
    x = np.arange(2.0, 12)
    for _ in range(5):
        y = peaks.corner(x, 6.3) - 1 + rng.normal(0, 0.2, len(x))
        tries = [
            scipy.optimize.curve_fit(lambda x, bend, top: top + np.minimum(x - bend, 0), x, y, (start, 0.0))[0]
            for start in np.arange(3, 11, 0.5)
        ]
        bend, top = min(tries, key=lambda p: np.square(y - p[1] - np.minimum(x - p[0], 0)).sum())
        found = peaks.fit(x, y)
        assert float(found.bend) == pytest.approx(bend, abs=1 / 64)
        assert float(found.top) == pytest.approx(top, abs=1 / 64)
    assert np.isnan(peaks.fit(x, np.full(len(x), np.nan)).bend)


def test_the_interval_is_of_the_resamples_of_the_seeds():
    """Three seeds have 27 resamples, each as likely: 1/27 is more than 2.5%, so the ends are the least and the greatest."""
    values = np.array([1.0, 2.0, 5.0])
    of = [values[list(drawn)].mean() for drawn in itertools.product(range(3), repeat=3)]
    assert peaks.interval(3, lambda drawn: values[drawn].mean(-1)) == (min(of), max(of))
    assert np.isnan(peaks.interval(1, lambda drawn: values[drawn].mean(-1))).all()


def results(test: float, validation: float, loss: float = 1.0) -> dict:
    """A record of accuracies."""
    of = {"test": test, "validation": validation, "train": 99.0}
    return {"diverged": False, "final": {k: {"running": {"accuracy": v, "loss": loss}} for k, v in of.items()}}


def read(quantity, known: dict[Train, dict]) -> list[float]:
    """A quantity's values from made-up records."""
    return [quantity.value(*(known[job] for job in jobs)) for jobs in quantity.jobs]


def test_the_rate_is_chosen_on_held_out_examples_by_the_mean_over_seeds():
    """Validation prefers the second rate, the test set the third; a rate at which one seed diverged is not chosen."""
    curve = Sweeps(setups("cpu", seeds=2, rates=[0.25, 0.5, 1, 2])["F1"]).epochs["momentum"][64]
    test = [[80, 90, 95, 99], [81, 92, 93, 99]]
    held_out = [[80, 96, 90, 99], [70, 92, 95, 99]]
    known = {
        run: results(test[i][k], held_out[i][k], loss=float(k))
        for k, seeds in enumerate(curve.runs.values())
        for i, run in enumerate(seeds)
    }
    known[curve.runs[1.0][1]] = {"diverged": True, "final": {}}
    assert read(curve.metric("test", "validation"), known) == [90, 92]
    assert read(curve.metric("test", "test"), known) == [95, 93]
    assert read(curve.at_best(curves.loss("train"), "test"), known) == [2.0, 2.0]
    own = read(curve.best_rate("test"), known)  # each seed's own curve: the first has its best at the end of the grid
    assert own[0] == 1.0 and -0.5 <= own[1] <= 0.5
    (low,), (high,) = (read(curve.interval("test", end), known) for end in (0, 1))
    assert low <= high and len(curve.interval("test", 0).jobs) == 1


def test_the_bend_is_fitted_to_the_seeds_own_rates():
    s = setups("cpu", seeds=2)["F1"]
    sweep = Sweeps(s).epochs["SGD"]
    bends = (5.0, 6.0)
    known = {}
    for b, curve in sweep.items():
        for rate, seeds in curve.runs.items():
            for run, bend in zip(seeds, bends, strict=True):
                best = -1 + float(peaks.corner(np.log2(b), bend))
                known[run] = results(0, 100 - math.exp(0.2 * (rate - best) ** 2))
    assert read(curves.bend(sweep, "validation"), known) == pytest.approx(bends, abs=0.1)
    (low,), (high,) = (read(curves.bend_interval(sweep, "validation", end), known) for end in (0, 1))
    assert (low, high) == pytest.approx(bends, abs=0.15)
    assert read(curves.fitted_slope(sweep, "validation", s.small), known) == pytest.approx([1, 1], abs=0.1)
    assert read(curves.fitted_slope(sweep, "validation", s.large), known) == pytest.approx([0, 0], abs=0.01)


def test_a_target_is_reached_between_two_points_of_a_curve():
    r = {"curve": {"update": [10, 20, 30], "test_accuracy": [50.0, 80.0, 90.0], "test_error": [9.0, 5.0, 1.0]}}
    assert figures.reached(r, 65.0, "accuracy", True) == 15
    assert figures.reached(r, 50.0, "accuracy", True) == 10
    assert figures.reached(r, 2.0, "error", False) == 27.5
    assert math.isnan(figures.reached(r, 95.0, "accuracy", True))


def test_the_noise_of_a_run_of_the_sweep_is_measured_along_it():
    sweeps = Sweeps(F1)
    assert set(noise.followed(sweeps)) < set(runs(sweeps.epochs["momentum"][F1.small[-1]]))
    assert [run.seed for run in noise.followed(sweeps)] == list(F1.all_seeds)
    for estimator, part in itertools.product(noise.estimators(F1), noise.PARTS):
        jobs = [job for (job,) in noise.scale(sweeps, part, estimator).jobs]
        assert all(isinstance(job, Measure) and job.arguments["estimator"] == estimator for job in jobs)
        assert {job.of[0].epoch for job in jobs} == {round(noise.PARTS[part] * F1.epochs)}
    assert not noise.measured(setups("paper")["ResNet-50"])


def test_questions_are_asked_of_every_network():
    asked = {q.id: {c.network for c in q.cases} for q in study("cpu").questions}
    assert asked["Q1"] == set(setups("cpu"))
    assert asked["Q2"] == {n for n, s in setups("cpu").items() if not s.further}


def test_the_published_language_model_has_its_own_schedule():
    """Zaremba et al. 2014, section 4.1: a rate of 1 for 4 epochs, halved after each of the others, 13 in all; clipped to 5."""
    run = language.zaremba(language.TEXTS["paper"], 0)
    assert (run.data.name, run.batch_size, run.epochs, dict(run.options)) == ("ptb", 20, 13, {})
    segment = 20  # words that they sum the loss over, where ours is the mean
    for epoch in range(13):
        rate = schedule.of(run, epoch * run.updates_per_epoch)[0]
        assert rate / segment == pytest.approx(0.5 ** max(0, epoch - 3))
    assert run.optimizer.clip_norm * segment == 5


# ---------------------------------------------------------------- committed records


def test_no_best_rate_lies_at_the_edge_of_its_grid():
    """Of every curve whose runs all are on record: the rate that is chosen has a worse one, or a diverged one, on each side."""
    store, at_the_edge = Store(RESULTS), []
    for n, s in setups("cpu").items():
        of = Sweeps(s)
        for name, sweep in (of.epochs | {"steps": of.steps, "budgets": of.budgets}).items():
            for place, curve in sweep.items():
                if not all(run in store for run in runs(curve)):
                    continue
                known = {run: store.get(run).results for run in runs(curve)}
                for by in (s.chooses, "test", *(["loss"] if name == "budgets" else [])):
                    judge = s.badness(by)
                    values = [
                        [math.nan if known[r]["diverged"] else judge(known[r]) for r in seeds] for seeds in curve.runs.values()
                    ]
                    best = int(np.nan_to_num(np.mean(values, axis=1), nan=np.inf).argmin())
                    if best in (0, len(curve.rates) - 1):
                        at_the_edge.append((n, name, place, by, curve.rates[best]))
    assert at_the_edge == []


# ---------------------------------------------------------------- a re-runner's own settings


def test_own_settings_reach_every_run():
    of = study("cpu", networks=["F1"], batch_sizes=[32, 512], rates=[0.125, 0.3], epochs=11, steps=60, momentum=0.8, seeds=1)
    trained = [job for job in of.jobs() if isinstance(job, Train)]
    assert {run.batch_size for run in trained if run.updates != 60 and run.epochs == 11} == {32, 512}
    assert {run.optimizer.momentum for run in trained} == {0.0, 0.8}
    effective = {round(run.optimizer.learning_rate / (1 - run.optimizer.momentum), 9) for run in trained}
    assert effective == {0.125, 0.3}
    assert {
        len(curve.rates) for curve in Sweeps(setups("cpu", networks=["F1"], rates=[1, 1])["F1"]).epochs["SGD"].values()
    } == {1}
    assert {run.batch_size for run in trained if run.updates == 60} >= {32, 512}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"networks": ["F9"]}, "networks contains 'F9'; profile cpu accepts F1, F1 with batch norm, auto-encoder 30"),
        ({"rates": [-1]}, "rates contains -1; accepted is greater than 0"),
        ({"batch_sizes": [0]}, "batch_sizes contains 0; accepted is greater than or equal to 1"),
        ({"batch_sizes": []}, "batch_sizes is []; accepted is at least 1 item"),
        ({"steps": 5}, "steps is 5; accepted is greater than or equal to 20"),
        ({"momentum": 1}, "momentum is 1; accepted is less than 1"),
        (
            {"networks": ["F1"], "epochs": 2},
            "epochs is 2; accepted is what makes 20 updates or more, and batch 256 makes 16 in",
        ),
        (
            {"networks": ["F1"], "batch_sizes": [16, 2048], "epochs": 5},
            "batch_sizes is 2048; accepted is what makes 20 updates or more, and batch 2048 makes 5 in 5 epochs",
        ),
        (
            {"networks": ["F1"], "batch_sizes": [4096]},
            "batch_size is 4096; mnist with 2048 training examples accepts 1 to 2048",
        ),
    ],
)
def test_bad_settings_end_in_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        study("cpu", **values).jobs()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
