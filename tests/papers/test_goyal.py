"""Goyal et al. 2017 as data: the recipe in every job, one change at a time, the statistic, the rate that is chosen."""

import math

import numpy as np
import pytest
from PIL import Image

from lbgap import papers, schedule, sources, train
from lbgap.papers.goyal import figures, pitfalls, tables, tuned
from lbgap.papers.goyal.claims import sensitivity
from lbgap.papers.goyal.recipes import FACTS, Recipe, recipes_of
from lbgap.papers.paper import Study
from lbgap.spec import Train

IMAGENET = 1_281_167


def study(profile: str, **settings) -> Study:
    """The study of a profile."""
    return papers.get("goyal").study(papers.settings("goyal", profile=profile, **settings))


def recipe(profile: str, **settings) -> Recipe:
    """The network that bears most of a profile."""
    return next(iter(recipes_of(papers.settings("goyal", profile=profile, **settings)).values()))


def rates(run: Train, updates) -> list[float]:
    """Learning rates of some updates."""
    return [schedule.of(run, u)[0] for u in updates]


def differing(one: Train, other: Train) -> set[str]:
    """The fields in which two runs differ, those of the optimizer by name."""
    a, b = ({**v.pop("optimizer"), **v} for v in (one.canonical(), other.canonical()))
    return {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}


def record(accuracies: list[float], diverged: bool = False) -> dict:
    """What a run with these accuracies on every split leaves."""
    names = ("train_accuracy", "test_accuracy", "validation_accuracy")
    return {
        "diverged": diverged,
        "curve": {"epoch": list(range(1, len(accuracies) + 1))} | {name: accuracies for name in names},
    }


# ---------------------------------------------------------------- the recipe, as published


def test_the_published_recipe_in_every_run_of_the_sweep():
    """Section 5.1, by hand: equal epochs, 0.1 at 256, drops at 30, 60 and 80 epochs, five epochs of warmup beyond 256."""
    s = recipe("paper")
    assert s.sizes == (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
    for b in s.sizes:
        run, per_epoch, rate = s.train(b, 0), math.ceil(IMAGENET / b), 0.1 * b / 256
        assert (run.batch_size, run.updates, run.slice_size) == (b, 90 * per_epoch, 32)
        of = run.optimizer
        assert (of.name, of.momentum, of.nesterov, of.weight_decay, of.decay_exempt) == ("sgd", 0.9, True, 1e-4, "norms")
        for epoch, share in ((30, 0.1), (60, 0.01), (80, 0.001)):
            at = [epoch * per_epoch - 1, epoch * per_epoch]
            assert rates(run, at) == pytest.approx([rate * share * 10, rate * share])
        assert rates(run, [run.updates - 1]) == pytest.approx([rate * 0.001])
        ramp = 5 * per_epoch
        if b > 256:
            rising = np.linspace(0.1, rate, ramp + 1)
            assert rates(run, [0, 1, ramp // 2, ramp - 1, ramp]) == pytest.approx(rising[[0, 1, ramp // 2, -2, -1]])
        else:
            assert rates(run, [0, ramp]) == pytest.approx([rate, rate])


def test_the_other_warmups_of_the_large_batch():
    s, ramp = recipe("paper"), 5 * math.ceil(IMAGENET / 8192)
    none, constant = (tables.warmed(s, kind).train("LB", 0) for kind in ("no", "constant"))
    assert rates(none, [0, ramp]) == pytest.approx([3.2, 3.2])
    assert rates(constant, [0, ramp - 1, ramp]) == pytest.approx([0.1, 0.1, 3.2])
    later = [30 * math.ceil(IMAGENET / 8192), 90 * math.ceil(IMAGENET / 8192) - 1]
    assert rates(none, later) == rates(constant, later) == pytest.approx([0.32, 0.0032])


def test_the_rules_of_table_2a():
    s = recipe("paper")
    cells = {c.row: c.quantity.jobs[0][0] for c in tables.rates(s).cells}
    whole = {row: rates(run, [20 * run.updates_per_epoch])[0] for row, run in cells.items()}
    assert whole == pytest.approx(
        {
            "reference, half the rate": 0.05,
            "reference, the rate": 0.1,
            "reference, twice the rate": 0.2,
            "large, linear, half the rate": 0.05 * 32,
            "large, linear": 0.1 * 32,
            "large, linear, twice the rate": 0.2 * 32,
            "large, no scaling": 0.1,
            "large, square root": 0.1 * math.sqrt(32),
        }
    )
    assert {row for row, run in cells.items() if run.warmup} == {row for row in cells if "linear" in row or "root" in row}


def test_every_published_number_is_shown_beside_ours():
    """Tables 1 and 2 are held to it by the contract; the sweep of Figures 1 and 3 in multiples of the paper's 256."""
    for profile in ("cpu", "paper"):
        (sweep,) = [t for t in study(profile).tables if t.name == "batches"]
        shown = {c.row: (c.published.mean, c.published.std) for c in sweep.cells if c.published}
        assert shown == {f"× {b / 256:g}": tuple(entry) for b, entry in FACTS["sweep"].items()}
        (line,) = [s for f in study(profile).figures if f.name == "sweep" for s in f.series if s.line == "published"]
        points = dict(line.read())
        assert points[1] == 0
        assert points[32] == pytest.approx(FACTS["tables"]["table1"]["rows"]["gradual warmup"][0][0] - 23.60)
        assert len(points) == len(FACTS["sweep"])


def test_the_papers_own_profile_runs_every_cell_with_five_seeds():
    cells = [cell for table in study("paper").tables if table.number for cell in table.cells]
    assert cells and {len(cell.quantity.jobs) for cell in cells} == {5}
    assert {cell.scope for claim in study("paper").claims for cell in claim.cases} == {"paper", "reading"}
    assert {cell.scope for claim in study("cpu").claims for cell in claim.cases} == {"reduced", "reading"}


def test_what_cannot_be_run_says_why():
    for profile in ("cpu", "paper"):
        assert {c.id for c in study(profile).claims if c.reason} == {"G9", "G10"}


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_effects_are_compared_with_those_of_the_batches_of_the_same_role(profile):
    """The large batch with 8192, twice the large one with 16384, whatever multiple of the reference they are."""
    s, of = recipe(profile), {c.id: c for c in study(profile).claims}
    central = {claim: next(case for case in of[claim].cases if case.central) for claim in ("G1", "G2")}
    assert central["G1"].published == pytest.approx(23.74 - 23.60)
    assert central["G2"].published == pytest.approx(24.79 - 23.74)
    largest = {8 * s.large: 33.96, 4 * s.large: 27.55}[max(s.sizes)]
    assert of["G2"].cases[-1].published == pytest.approx(largest - 23.60)
    assert of["G1"].cases[-1].published == central["G1"].published


def test_the_published_run_on_a_folder_of_a_few_pictures(tmp_path, monkeypatch, rng):
    """ResNet-50 by the recipe's own job, but for its size: decode, crop, train in slices, validate at 224."""
    monkeypatch.setitem(sources.SOURCES, "imagenet", sources.Source(4, 4, (3, 256, 256), 2, on_disk=True))
    for file in (f"{split}/{name}/{i}.jpg" for split in ("train", "val") for name in "ab" for i in (0, 1)):
        path = tmp_path / "data" / "imagenet" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (240, 300, 3)).astype(np.uint8)).save(path)
    s = recipe("paper", networks=["ResNet-50"]).changed(small=2, large=4, n=2, epochs=1, warmup_epochs=1.0)
    for batch, updates in (("SB", 2), ("LB", 1)):
        found = train.fit(s.train(batch, 0))
        assert (found["diverged"], found["updates"]) == (False, updates)
        assert found["parameters"] == 25_557_032 - 998 * 2049  # two classes, not a thousand
        assert s.error(batch).value(found) == 100 - found["final"]["test"]["running"]["accuracy"]


# ---------------------------------------------------------------- reduced


@pytest.mark.parametrize("profile", ["quick", "cpu"])
def test_a_smaller_budget_keeps_the_shares_of_the_drops(profile):
    s = recipe(profile)
    for b in s.sizes:
        run = s.train(b, 0)
        assert run.epochs == s.epochs
        assert [p.update / run.updates for p in run.phases] == pytest.approx([30 / 90, 60 / 90, 80 / 90], abs=0.5 / run.updates)
        assert (run.warmup.updates if run.warmup else 0) == (s.warmup_epochs * run.updates_per_epoch if b > s.small else 0)


def test_drops_that_fall_together_leave_the_later_one():
    run = recipe("paper", networks=["ResNet-14"], epochs=1, largest_batch=32768).train(32768, 0)
    assert run.updates == 2
    assert rates(run, [0, 1]) == pytest.approx([0.1, 12.8 * 0.01])
    constant = tables.warmed(recipe("cpu", epochs=1, largest_batch=1024), "constant").train(1024, 0)
    assert rates(constant, [0, 1, 2]) == pytest.approx([0.4, 0.64, 0.064])


# ---------------------------------------------------------------- what is read


def test_the_error_is_the_median_of_the_last_five_epochs():
    s = recipe("cpu")
    assert s.error("SB").value(record([99.0, 99.0, 40.0, 70.0, 60.0, 10.0, 65.0])) == 40.0
    assert s.error("LB", "train").value(record([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])) == 97.0
    assert math.isnan(s.error("SB").value(record([], diverged=True)))


def test_sensitivity_is_the_mean_loss_to_both_sides():
    s = recipe("cpu")
    of = sensitivity(s, "LB")
    half, rule, twice = (record([accuracy]) for accuracy in (60.0, 70.0, 40.0))
    assert of.value(half, rule, twice) == pytest.approx(20.0)  # errors 40, 30, 60
    runs = of.jobs[0]
    assert [rates(run, [run.updates // 4])[0] / rates(runs[1], [run.updates // 4])[0] for run in runs] == [0.5, 1, 2]


def test_a_rate_is_chosen_on_the_held_out_images_of_the_other_seeds():
    s = recipe("cpu", seeds=2)
    tried = tuned.factors(s, s.large)

    def results(best: float) -> dict[float, dict]:
        """Held-out accuracy is highest at one factor; test accuracy is a hundred times the factor's place."""
        return {
            f: record([90.0 if f == best else 50.0])
            | {"curve": record([90.0 if f == best else 50.0])["curve"] | {"test_accuracy": [10.0 * i]}}
            for i, f in enumerate(tried)
        }

    by_seed = {0: results(tried[0]), 1: results(tried[-1])}
    found = {s.changed(factor=f).train("LB", seed): by_seed[seed][f] for seed in (0, 1) for f in tried}
    for quantity, expected in (
        (tuned.tuned(s, s.large), [100 - 10.0 * (len(tried) - 1), 100.0]),
        (tuned.chosen_factor(s, s.large), [tried[-1], tried[0]]),
    ):
        assert [quantity.value(*(found[job] for job in jobs)) for jobs in quantity.jobs] == expected


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_rates_are_tuned_where_images_are_held_out_alone(profile):
    grids = [t for t in study(profile).tables if t.name in ("tuned", "grid")]
    drawn = [s for f in study(profile).figures for s in f.series if s.line == "tuned rate"]
    jobs = [job for of in (*[c.quantity for t in grids for c in t.cells], *drawn) for seed in of.jobs for job in seed]
    assert len(grids) == 2
    assert bool(drawn) == (profile == "cpu")
    assert all(job.data.n_validation for job in jobs)


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_the_rule_lies_inside_the_grid_up_to_the_large_batch(profile):
    s = recipe(profile)
    for b in s.sizes:
        tried = tuned.factors(s, b)
        assert 1.0 in tried and len(set(tried)) == len(tried)
        assert min(tried) < 1.0 and (max(tried) > 1.0 or b > s.large)
        if b > s.large:
            large = s.train("LB", 0).optimizer.learning_rate
            assert [s.changed(factor=f).rate(b) / large for f in tried[:3]] == pytest.approx([0.25, 0.5, 1])


# ---------------------------------------------------------------- one change at a time


def test_a_mistake_differs_in_what_its_name_says_alone():
    s = recipe("cpu")
    right = s.train("LB", 0)
    wrong = {name[:2]: of.train("LB", 0) for name, of in pitfalls.mistakes(s).items()}
    fields = {name: differing(right, run) for name, run in wrong.items()}
    assert fields == {
        "R1": {"loss_scale", "learning_rate", "phases"},
        "R2": {"momentum_buffer"},
        "R3": {"normalised_by"},
        "R4": {"shuffling"},
    }
    every = range(right.updates)  # what multiplies the gradient is the same at every update
    scaled = [rate * wrong["R1"].optimizer.loss_scale for rate in rates(wrong["R1"], every)]
    assert scaled == pytest.approx(rates(right, every))


def test_warmups_and_scales_differ_in_nothing_else():
    s = recipe("cpu")
    right = s.train("LB", 0)
    assert differing(right, tables.warmed(s, "no").train("LB", 0)) == {"warmup"}
    assert differing(right, tables.warmed(s, "constant").train("LB", 0)) == {"warmup", "learning_rate", "phases"}
    assert differing(right, tables.begun(s, 1).train("LB", 0)) == {"options"}
    assert tables.begun(s, 0).train("LB", 0) == right
    assert differing(s.train("SB", 0), tables.warmed(s, "no").train("SB", 0)) == set()


def test_training_curves_are_those_of_the_three_warmups():
    lines = {series.line: series for series in figures.warmups(recipe("cpu")).series}
    runs = {line: series.jobs[0][0] for line, series in lines.items()}
    kinds = ("no", "constant", "gradual")
    assert {line: run.batch_size for line, run in runs.items()} == {"SB": 64} | {f"LB, {k} warmup": 256 for k in kinds}
    first = {line: rates(run, [0])[0] for line, run in runs.items()}
    assert first == pytest.approx({"SB": 0.4, "LB, no warmup": 1.6, "LB, constant warmup": 0.4, "LB, gradual warmup": 0.4})
    assert lines["SB"].points(record([20.0, 30.0])) == [("SB", 1.0, 80.0), ("SB", 2.0, 70.0)]


# ---------------------------------------------------------------- a re-runner's own settings


def test_own_settings_reach_every_run():
    own = study(
        "cpu", networks=["ResNet-14"], reference_batch=32, largest_batch=64, worker_batch=16, warmup_epochs=1, epochs=9, seeds=2
    )
    runs = {
        c.row: [job for (job,) in c.quantity.jobs]
        for t in own.tables
        if t.name == "table1"
        for c in t.cells
        if c.column == "error"
    }
    small, large = runs["reference batch"][0], runs["gradual warmup"][0]
    assert len(runs["gradual warmup"]) == 2
    assert (small.batch_size, large.batch_size, small.slice_size, large.slice_size) == (32, 64, 16, 16)
    assert small.options["depth"] == 14
    assert small.epochs == large.epochs == 9
    assert large.warmup.updates == large.updates_per_epoch
    assert {job.batch_size for job in own.jobs()} == {32, 64}
    assert not own.questions


def test_a_jump_after_which_no_epoch_comes_is_not_asked_about():
    labels = {epochs: [c.label for claim in study("quick", epochs=epochs).claims for c in claim.cases] for epochs in (1, 2)}
    assert [sum("after the jump" in label for label in labels[epochs]) for epochs in (1, 2)] == [0, 1]


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"networks": ["ResNet-50"]}, "networks contains 'ResNet-50'; profile cpu accepts ResNet-8, ResNet-14"),
        ({"largest_batch": 64}, "largest_batch is 64; with a reference batch of 64 accepted is 128 or more"),
        ({"largest_batch": 4096}, "batch_size is 4096; cifar10.half with 2560 training examples accepts 1 to 2560"),
        ({"warmup_epochs": 6}, "warmup_epochs is 6; with 18 epochs accepted is above 0, below 6, where the rate drops"),
        ({"warmup_epochs": 0}, "warmup_epochs is 0; accepted is greater than 0"),
        ({"worker_batch": 1}, "worker_batch is 1; accepted is greater than or equal to 2"),
        ({"learning_rate": -1}, "learning_rate is -1; accepted is greater than 0"),
    ],
)
def test_bad_settings_get_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        study("cpu", **values).jobs()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
