"""Keskar et al. 2017 as data: facts well-formed, every table and claim there, and the protocol kept in every job."""

import math
import re

import numpy as np
import pytest

from lbgap import papers, verdicts
from lbgap.data import SOURCES
from lbgap.papers.keskar import data_size, equal_updates, own_rate
from lbgap.papers.keskar.recipes import FACTS, ROBUST, VARIANTS, along_recipes, recipes_of
from lbgap.papers.paper import Study
from lbgap.records import Store
from lbgap.spec import Measure, Train
from lbgap.stats import Difference, Equivalence, Ratio

TABLES = ("table2", "table3", "table4", "table6", "table7")
NETWORKS = ("F1", "F2", "C1", "C2", "C3", "C4")
PROFILES = ("quick", "cpu", "paper")
CLAIMS = [f"K{i}" for i in range(1, 15)]
SMALLER = "C1, 2,500 images"


def study(profile: str, **settings) -> Study:
    """The study of a profile."""
    return papers.get("keskar").study(papers.settings("keskar", profile=profile, **settings))


def runs(of: Study, only=()) -> list[Train]:
    """Every run of a study, those that only a measurement names as well."""
    jobs = of.jobs(only)
    return list(dict.fromkeys([j for j in jobs if isinstance(j, Train)] + [w.run for j in jobs for w in j.parents]))


@pytest.fixture(scope="module", params=PROFILES)
def any_study(request) -> Study:
    """Each profile's study in turn."""
    return study(request.param)


# ---------------------------------------------------------------- facts


def test_percentages_lie_between_0_and_100():
    for table in FACTS["tables"].values():
        for row in table["rows"].values():
            for column, (mean, _) in zip(table["columns"], row, strict=True):
                assert mean > 0
                assert mean <= 100 or column.startswith("eps")


def test_the_facts_are_those_of_every_table_and_claim_of_the_paper():
    assert tuple(FACTS["tables"]) == TABLES
    for name in ("table2", "table3", "table4", "table7"):
        assert tuple(FACTS["tables"][name]["rows"]) == NETWORKS
    assert list(FACTS["tables"]["table6"]["rows"]) == ["C1", "C2", "C3", "C4"]
    assert list(FACTS["claims"]) == CLAIMS


def test_table_7_repeats_the_baseline_of_table_2():
    two, seven = (FACTS["tables"][t] for t in ("table2", "table7"))
    at = two["columns"].index("test_SB"), seven["columns"].index("test_SB")
    for network in NETWORKS:
        assert two["rows"][network][at[0]][0] == seven["rows"][network][at[1]][0]


# ---------------------------------------------------------------- studies


def test_the_papers_own_profile_runs_every_cell_of_every_table():
    tables = [table for table in study("paper").tables if table.number]
    assert tuple(table.name for table in tables) == TABLES
    assert all(cell.quantity for table in tables for cell in table.cells)


def test_subsets_are_named():
    """A reduced data set shows in the words beside the number."""
    for table in study("cpu").tables:
        for cell in table.cells:
            for jobs in cell.quantity.jobs if cell.quantity else ():
                for job in jobs:
                    spec = job if isinstance(job, Train) else job.of[0].run
                    if spec.data.n_train:
                        assert f"{spec.data.n_train:,} images of" in cell.words
                    assert f"{spec.epochs} epochs" in cell.words or f"{spec.updates:,} updates" in cell.words


# ---------------------------------------------------------------- protocol


def batches(of: Study) -> dict[str, dict[str, list[Train]]]:
    """Runs of Table 2 by network and column."""
    out: dict[str, dict[str, list[Train]]] = {}
    for cell in next(t for t in of.tables if t.name == "table2").cells:
        if cell.quantity and cell.column in ("test_SB", "test_LB"):
            out.setdefault(cell.row, {})[cell.column[-2:]] = [job for (job,) in cell.quantity.jobs]
    return out


def test_small_and_large_batches_differ_in_the_batch_alone(any_study):
    """Equal epochs, equal rate, equal seeds: the budget differs because a large batch makes fewer updates an epoch."""
    for pair in batches(any_study).values():
        for small, large in zip(pair["SB"], pair["LB"], strict=True):
            assert small.batch_size < large.batch_size
            assert small.updates == small.epochs * math.ceil(small.data.size / small.batch_size)
            assert large.updates == large.epochs * math.ceil(large.data.size / large.batch_size)
            assert small.epochs == large.epochs
            differing = {name for name in Train.model_fields if getattr(small, name) != getattr(large, name)}
            assert differing == {"batch_size", "updates"}


def test_seeds_are_counted_from_0(any_study):
    for pair in batches(any_study).values():
        for of in pair.values():
            assert [run.seed for run in of] == list(range(len(of)))
            assert len(of) == (3 if any_study.profile == "quick" else 5)


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_the_large_batch_is_a_tenth_of_the_training_set(profile):
    for pair in batches(study(profile)).values():
        for run in pair["LB"]:
            assert run.updates_per_epoch == 10
            assert run.batch_size - (run.data.size - 9 * run.batch_size) < 10  # the last batch is no smaller than it must be


def test_the_papers_own_settings():
    """Section 2 and appendices A and B: whole data sets, batches of 256, ADAM, five seeds."""
    sets = {"F1": "mnist", "F2": "timit", "C1": "cifar10", "C2": "cifar10", "C3": "cifar100", "C4": "cifar100"}
    found = batches(study("paper"))
    assert {network: pair["SB"][0].data.name for network, pair in found.items()} == sets
    for network, pair in found.items():
        for run in pair["SB"] + pair["LB"]:
            assert run.model == f"keskar.{network}"
            assert run.data.size == SOURCES[sets[network]].n_train
            assert (run.optimizer.name, run.optimizer.learning_rate) == ("adam", 1e-3)
            assert run.precision == ("bfloat16" if network.startswith("C") else "float32")
        assert {run.batch_size for run in pair["SB"]} == {256}
        assert len(pair["SB"]) == len(pair["LB"]) == 5
    # 6000 and 5000 are given by the paper; a tenth of TIMIT's 721,329
    assert [found[n]["LB"][0].batch_size for n in NETWORKS] == [6000, 72133, 5000, 5000, 5000, 5000]


def test_f1_is_trained_in_full_wherever_the_records_are_made():
    """What the processor computes of F1 counts for the paper's own profile: the same jobs."""
    for table in ("table2", "table3", "table4"):
        assert set(study("cpu").jobs([f"{table}/F1"])) == set(study("paper").jobs([f"{table}/F1"]))


def test_sharpness_tables_ask_for_the_papers_measure():
    for of in (study("cpu"), study("paper")):
        trained = batches(of)
        for name, space in (("table3", "full"), ("table4", "random")):
            for cell in next(t for t in of.tables if t.name == name).cells:
                for seed, jobs in enumerate(cell.quantity.jobs if cell.quantity else ()):
                    (job,) = jobs
                    assert isinstance(job, Measure)
                    epsilon = float(re.match("eps([0-9e-]+)", cell.column)[1])
                    assert job.arguments["epsilon"] == epsilon
                    assert job.arguments["space"] == space
                    assert job.arguments["batch_norm"] == (cell.reading or "batch")
                    assert job.arguments.get("p", 100) == 100
                    assert job.arguments.get("iterations", 10) == 10
                    (at,) = job.of
                    assert at.epoch == at.run.epochs
                    assert at.run.seed == seed
                    assert at.run == trained[cell.row]["SB" if "_SB" in cell.column else "LB"][seed]
    subspaces = [job.arguments["seed"] for job in study("cpu").jobs(["table4/F1"]) if isinstance(job, Measure)]
    assert set(subspaces) == set(range(5)), "another subspace for each seed"


def test_augmentation_and_the_proximal_term_are_where_they_belong():
    of = study("paper")
    plain = runs(of, ["table2", "table3", "table4"])
    assert {(run.data.augment, run.optimizer.proximal, run.optimizer.inner_steps) for run in plain} == {("none", 0.0, 1)}
    augmented = runs(of, ["table6"])
    assert {(run.data.augment, run.optimizer.proximal) for run in augmented} == {("keskar", 0.0)}
    # appendix E.2: lambda 1e-3, three ADAM iterations a batch, the small batch left plain
    conservative = runs(of, ["table7"])
    assert {(run.optimizer.proximal, run.optimizer.inner_steps) for run in conservative if run.batch_size > 256} == {(1e-3, 3)}
    assert {(run.optimizer.proximal, run.optimizer.inner_steps) for run in conservative if run.batch_size == 256} == {(0.0, 1)}
    assert {run.data.augment for run in conservative} == {"none"}


def changes(plain: Train, run: Train) -> dict:
    """The fields in which two runs differ, with the second's values."""
    a, b = plain.model_dump(), run.model_dump()
    return {k: b[k] for k in a if a[k] != b[k]}


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_robust_training_is_of_the_large_batch_on_all_of_mnist(profile):
    of = study(profile)
    f1 = {run.batch_size: run for run in runs(of, ["table2/F1"]) if run.seed == 0}
    cells = {c.place: c.quantity for t in of.tables for c in t.cells if t.name == "robust"}
    asked = {"SB": (256, {}), "LB": (6000, {})}
    asked |= {f"LB, {k}": (6000, {"robust": r.model_dump()}) for k, r in ROBUST.items()}
    assert {row for row, _ in cells} == set(asked)
    for (row, column), quantity in cells.items():
        batch_size, changed = asked[row]
        (job,) = quantity.jobs[0]
        assert changes(f1[batch_size], job.of[0].run if column.startswith("eps") else job) == changed
    results = ended([97.0]) | {
        "final": {s: {r: {"accuracy": float(len(s + r))} for r in ("batch", "running")} for s in ("train", "test")}
    }
    read = {column: q.read(results) for (row, column), q in cells.items() if row == "LB" and column[:3] != "eps"}
    assert read == {"train": 10.0, "test": 9.0, "test running": 11.0}
    (claim,) = [c for c in of.claims if c.id == "K13"]
    for setting, robust in zip((s for s in claim.cases if not s.reading), ROBUST.values(), strict=True):
        (a,), (b,) = setting.a.jobs[0], setting.b.jobs[0]
        assert (setting.rule, b) == (Difference("below", -0.25), f1[6000])
        assert changes(b, a) == {"robust": robust.model_dump()}


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_variants_change_what_they_say_alone(profile):
    of = study(profile)
    cells = {(c.row, c.column): c.quantity.jobs[0][0] for t in of.tables for c in t.cells if t.name == "variants"}
    for batch in ("SB", "LB"):
        plain = cells["as it is", f"test_{batch}"]
        assert not plain.options
        for variant, options in VARIANTS.items():
            run = cells[variant, f"train_{batch}"]
            assert run == cells[variant, f"test_{batch}"]
            assert changes(plain, run) == ({"options": options} if options else {})
            assert cells[variant, f"eps1e-3_{batch}"].of == (run.at(),)
    assert cells["as it is", "test_SB"].batch_size < cells["as it is", "test_LB"].batch_size
    (claim,) = [c for c in of.claims if c.id == "K14"]
    for variant, fitted, sharper in zip(list(VARIANTS)[1:], claim.cases[::2], claim.cases[1::2], strict=True):
        assert (fitted.rule, sharper.rule) == (Equivalence(2.0), Ratio(2))
        assert [q.jobs[0][0] for q in (fitted.a, fitted.b)] == [cells[variant, f"train_{b}"] for b in ("LB", "SB")]
        assert [q.jobs[0][0] for q in (sharper.a, sharper.b)] == [cells[variant, f"eps1e-3_{b}"] for b in ("LB", "SB")]


# ---------------------------------------------------------------- what the rules leave out


def ended(curve: list[float]) -> dict:
    """As much of a run's record as its test curve."""
    return {"diverged": False, "curve": {"test_accuracy": curve}, "final": {"test": {"batch": {"accuracy": curve[-1]}}}}


def test_the_best_epoch_is_the_one_that_is_best_on_the_other_seeds():
    """Seed 0's own curve is highest where those of the others are lowest: it is read where they are highest."""
    cells = {c.column: c.quantity for t in study("cpu").tables if t.name == "peaks" for c in t.cells if c.row == SMALLER}
    own = {13: ended([99.0, 31.0, 30.0]), 250: ended([99.0, 28.0, 24.0])}
    others = {13: ended([10.0, 41.0, 40.0]), 250: ended([20.0, 38.0, 34.0])}
    shown = {
        column: quantity.value(*((others if job.seed else own)[job.batch_size] for job in quantity.jobs[0]))
        for column, quantity in cells.items()
    }
    assert shown == {"SB, best - last": 1.0, "LB, best - last": 4.0, "LB's best - SB's last": -2.0}


def test_one_seed_has_no_others_to_choose_its_epoch():
    cell = next(c for t in study("cpu", seeds=1).tables if t.name == "peaks" for c in t.cells)
    assert math.isnan(cell.quantity.value(*(ended([10.0, 31.0, 30.0]) for _ in cell.quantity.jobs[0])))


def test_gaps_are_large_batch_less_small_batch_by_reading_plain_and_augmented():
    """On made-up runs whose last, running and best accuracies all differ, so that no two can be exchanged."""

    def record(job) -> dict:
        of = {(13, "none"): [10.0, 31.0, 30.0], (250, "none"): [20.0, 28.5, 24.0]}
        curve = of.get((job.batch_size, job.data.augment)) or {13: [40.0, 47.0, 45.0], 250: [40.0, 46.5, 46.25]}[job.batch_size]
        results = ended(curve)
        results["final"]["test"]["running"] = {"accuracy": curve[-1] / 2}
        return results

    cells = {(c.row, c.column): c.quantity for t in study("cpu").tables if t.name == "gaps" for c in t.cells}
    rows = {SMALLER, f"{SMALLER}, augmented", f"{SMALLER}, augmented - plain"}
    assert {row for row, _ in cells} == {"F1", "C1", *rows, "C3, 2,500 images"}
    full = {job.data.size for seed in cells["C1", "last epoch"].jobs for job in seed}
    assert full == {50_000}, "C1 alone is the paper's"
    shown = {row: {} for row in rows}
    for (row, column), quantity in cells.items():
        if row in shown:
            shown[row][column] = quantity.read(*map(record, quantity.jobs[0]))
    columns = ("last epoch", "last epoch, running averages", "best epoch")
    assert shown == {
        SMALLER: dict(zip(columns, (-6.0, -3.0, -2.5), strict=True)),
        f"{SMALLER}, augmented": dict(zip(columns, (1.25, 0.625, -0.5), strict=True)),
        f"{SMALLER}, augmented - plain": dict(zip(columns, (7.25, 3.625, 2.0), strict=True)),
    }


def test_the_box_is_shown_in_the_parts_that_the_rule_reads():
    of = study("cpu")
    parts = {"steepest 5% of the weights": "steep", "the other 95%": "rest", "random corners": "random"}
    record = {"largest": 4.0, "steep": 1.0, "rest": 2.0, "random": 0.5}
    cells = {(c.row, c.column): c.quantity for t in of.tables if t.name == "directions" for c in t.cells}
    assert set(cells) == {(n, column) for n in ("F1", SMALLER, "C3, 2,500 images") for column in parts}
    assert [cells[SMALLER, column].read(record) for column in parts] == [25.0, 50.0, 12.5]
    assert math.isnan(cells[SMALLER, "the other 95%"].read(record | {"largest": 0.0}))
    assert set(of.jobs(["directions"])) == set(of.jobs(["K6"]))


def test_the_remedies_stand_beside_plain_training():
    """Of what Tables 2, 3, 6 and 7 have, and the small batch's sharpness with augmentation besides."""
    of = study("cpu")
    shown = {job for job in of.jobs(["treated"]) if job not in of.jobs(["table2", "table3", "table6", "table7"])}
    augmented = {run.at() for run in runs(of, ["table6"]) if run.batch_size == 13}
    assert {weights for job in shown for weights in job.of} == augmented
    assert {job.arguments["epsilon"] for job in shown} == {1e-3}


def test_a_path_joins_a_small_and_a_large_batch_run_of_one_seed():
    for profile in ("cpu", "paper"):
        paths = [job for job in study(profile).jobs(["K3"]) if job.kind == "path"]
        assert paths
        for job in paths:
            first, second = job.of
            assert first.run.batch_size < second.run.batch_size
            assert first.run.seed == second.run.seed
            assert (first.epoch, second.epoch) == (first.run.epochs, second.run.epochs)


def test_warm_starts_begin_at_a_small_batch_of_the_same_seed():
    for profile in ("cpu", "paper"):
        warm = [run for run in runs(study(profile), ["warm_start"]) if run.start]
        assert warm
        for run in warm:
            assert run.start.run.seed == run.seed
            assert run.start.run.batch_size < run.batch_size
            assert run.start.run.model == run.model
            assert 1 <= run.start.epoch <= run.start.run.epochs
        assert len({run.start.epoch for run in warm}) >= 5


# ---------------------------------------------------------------- a re-runner's own settings


def test_own_settings_reach_every_run():
    of = study("quick", small_batch=20, large_batch=300, epochs=7, learning_rate=0.01, seeds=2)
    for run in runs(of):
        assert run.batch_size in (20, 300)
        assert run.epochs == 7
        assert run.optimizer.learning_rate == 0.01
        assert run.seed in (0, 1)
    assert {run.batch_size for run in runs(of)} == {20, 300}


def test_a_changed_rate_makes_other_jobs():
    assert not set(study("quick", learning_rate=0.01).jobs()) & set(study("quick").jobs())


def test_fewer_networks_and_seeds_are_some_of_the_same_jobs():
    everything = set(study("paper").jobs())
    for settings in ({"networks": ["C1"]}, {"networks": '["F1", "C4"]'}, {"seeds": 2}):
        some = set(study("paper", **settings).jobs())
        assert some < everything
    assert {run.model for run in runs(study("paper", networks=["C2"]))} == {"keskar.C2"}
    assert set(study("paper", seeds=6).jobs()) > everything


@pytest.mark.parametrize(
    ("profile", "settings", "sentence"),
    [
        ("quick", {"networks": ["F9"]}, "networks contains 'F9'; profile quick accepts F1"),
        ("quick", {"networks": ["C1"]}, "networks contains 'C1'; profile quick accepts F1"),
        ("cpu", {"networks": []}, "networks is []; accepted is at least 1 item"),
        ("cpu", {"networks": 3}, "networks is 3; accepted is a list"),
        ("cpu", {"seeds": 0}, "seeds is 0; accepted is greater than or equal to 1"),
        ("cpu", {"learning_rate": 0}, "learning_rate is 0; accepted is greater than 0"),
        ("cpu", {"epochs": 1.5}, "epochs is 1.5; accepted is a valid integer"),
        ("cpu", {"batch": 3}, "batch is not known to PaperSettings; accepted are profile, seeds, networks, small_batch"),
        ("quick", {"large_batch": 2000}, "batch_size is 2000; digits with 1438 training examples accepts 1 to 1438"),
    ],
)
def test_settings_that_cannot_be_run_end_in_one_sentence(profile, settings, sentence):
    with pytest.raises(ValueError) as caught:
        study(profile, **settings).jobs()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- readers


def test_the_rise_around_a_solution_is_that_of_a_parabola():
    """Loss c (alpha - 1)^2: a quarter to either side it has risen by c / 16."""
    alphas = [-1 + i * 0.125 for i in range(25)]
    record = {"alpha": alphas, "train_loss": [3 * (a - 1) ** 2 + 0.5 for a in alphas]}
    claim = next(c for c in study("cpu").claims if c.id == "K3")
    large, small = claim.cases[0].a.read(record), claim.cases[0].b.read(record)
    assert large == pytest.approx(3 / 16)
    # at alpha 0: the mean of 3 (1.25^2) and 3 (0.75^2), less 3
    assert small == pytest.approx(3 * (1.25**2 + 0.75**2) / 2 - 3)


def test_distance_is_read_from_the_record():
    record = {"diverged": False, "distance": {"value": [1.0, 2.5, 4.0]}}
    (k9,) = [c for c in study("cpu").claims if c.id == "K9"]
    assert k9.cases[0].a.read(record) == 4.0


def test_a_trend_is_of_the_row_of_one_seeds_records():
    claims = {c.id: c for c in study("cpu").claims}
    accuracy, sharpness = claims["K7"].cases
    n = len(accuracy.a.jobs[0])
    falling = [{"diverged": False, "final": {"test": {"batch": {"accuracy": 99.0 - i}}}} for i in range(n)]
    assert accuracy.a.value(*falling) == tuple(99.0 - i for i in range(n))
    assert sharpness.a.value(*({"value": float(i**3)} for i in range(n))) == tuple(float(i**3) for i in range(n))
    assert math.isnan(accuracy.a.value({"diverged": True}, *falling[1:])[0])
    sizes = [job.batch_size for job in accuracy.a.jobs[0]]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("rise", [0.0, 2.0])
def test_a_solution_that_is_flat_everywhere_has_no_share_of_its_rise(rise):
    """K6 divides by the largest rise, which is 0 where the search found nothing."""
    claim = next(c for c in study("cpu").claims if c.id == "K6")
    record = {"largest": rise, "steep": rise / 4, "rest": rise / 2, "random": rise / 8, "loss": 1.0}
    share = claim.cases[0].a.value(record)
    assert share == 12.5 if rise else math.isnan(share)


def test_every_seed_of_the_data_size_draws_images_and_batches_in_proportion():
    """256 and 5,000 at 50,000 images; 100 epochs whatever the size."""
    for n in data_size.SIZES:
        runs = {b: [job for (job,) in data_size.at_size(n).runs(b)] for b in ("SB", "LB")}
        drawn = [0] * 5 if n == data_size.FULL else [0, 1, 2, 3, 4]
        assert [run.data.subset for run in runs["SB"]] == [run.data.subset for run in runs["LB"]] == drawn
        assert {run.data.size for run in runs["SB"]} == {n}
        assert {run.batch_size for run in runs["LB"]} == {n / 10}
        assert all(abs(run.batch_size / n - 256 / 50_000) < 1e-4 for run in runs["SB"])
        assert {run.epochs for b in runs for run in runs[b]} == {100}
    own = batches(study("paper"))["C1"]
    assert runs == own, "the largest size is the paper's own"


def test_sharpness_of_different_numbers_of_images_is_not_put_in_one_line():
    """Measured on all images of a solution where they are in the figure; on a sample in columns that say so."""
    table, figure = (data_size.table(), data_size.figure())
    for cell in table.cells:
        for job in {job for seed in cell.quantity.jobs for job in seed if isinstance(job, Measure)}:
            assert job.arguments.get("examples") == (data_size.SAMPLE if "on 10,000" in cell.column else None)
    drawn = {job for series in figure.series for seed in series.jobs for job in seed if isinstance(job, Measure)}
    assert {job.run.data.size for job in drawn} == set(data_size.WHOLE)
    assert {job.arguments.get("examples") for job in drawn} == {None}


@pytest.mark.parametrize("power, loss", [(1.5, 3e-3), (-0.5, 5e-3), (0.0, 2e-3)])
def test_a_measure_at_the_small_batchs_loss_lies_on_the_power_law_of_the_large_ones(power, loss):
    """Q4: between two epochs on logarithms, so that what is a power of the loss comes out exactly; outside, nothing does."""
    recipe = along_recipes(papers.settings("keskar", profile="cpu"), recipes_of(papers.settings("keskar", profile="cpu")))["F1"]
    losses = dict(zip(equal_updates.CURVED, (6e-3, 2e-3, 1e-3), strict=True))
    for name, quantity in equal_updates.curvature_at_the_loss_of_sb(recipe).items():
        for small, wanted in ((loss, 7 * loss**power), (7e-3, math.nan), (5e-4, math.nan)):
            for jobs in quantity.jobs:
                assert len({job.run.seed for job in jobs}) == 1
                results = []
                for job in jobs:
                    (at,) = job.of
                    of_large = losses.get(at.epoch)
                    results.append({"loss": of_large or small, "value": None, "eigenvalue_1": None})
                    if job.kind != "sharpness":
                        field = {"eigenvalues": "eigenvalue_1", "adaptive_sharpness": "value"}[job.kind]
                        results[-1] = {field: 7 * of_large**power}
                assert quantity.value(*results) == pytest.approx(wanted, nan_ok=True), name


def test_no_question_of_ours_is_called_a_replication():
    """Also where it is asked in the paper's own setting, as of F1 with orders of its own and of C1 on all images."""
    for name in papers.papers():
        for profile in PROFILES:
            of = papers.get(name).study(papers.settings(name, profile=profile))
            assert "paper" not in {case.scope for asked in of.questions for case in asked.cases}
    full = [c for q in study("cpu").questions for c in q.cases if c.where.startswith(("MNIST", "CIFAR-10,"))]
    assert full and {c.scope for c in full} == {"reading"}


def test_c3_at_a_size_differs_from_c1_in_network_and_data_alone():
    """Q9 is to be compared with Q1."""
    n = data_size.C3_SIZE
    for b in ("SB", "LB"):
        for (c1,), (c3,) in zip(data_size.at_size(n).runs(b), data_size.at_size(n, "C3").runs(b), strict=True):
            assert (c3.model, c3.data.name) == ("keskar.C3", "cifar100")
            assert c3.model_copy(update={"model": c1.model, "data": c1.data}) == c1
            assert c3.data.model_copy(update={"name": "cifar10"}) == c1.data


# ---------------------------------------------------------------- scopes and published effects


def settings_of(profile: str, claim: str, **own) -> dict:
    """The settings of a claim by label."""
    (found,) = [c for c in study(profile, **own).claims if c.id == claim]
    return {s.label: s for s in found.cases}


def test_what_is_run_as_in_the_paper_is_of_its_scope_and_what_a_choice_of_ours_decides_is_a_reading():
    scopes = {c.id: {(s.network, s.scope) for s in c.cases if not s.reading} for c in study("cpu").claims}
    networks = {("F1", "paper"), ("C1", "reduced"), ("C3", "reduced")}
    assert all(scopes[claim] == networks for claim in ("K1", "K2", "K3", "K4", "K6", "K9"))
    assert all(scopes[claim] == {("F1", "reduced")} for claim in ("K7", "K8", "K10")), (
        "6,000 images, where the paper has F2, C1"
    )
    assert scopes["K5"] == {(n, "reading") for n in ("F1", "C1", "C3")}
    assert (scopes["K11"], scopes["K12"]) == ({("C1", "reading")}, {("C1", "reduced")})
    assert scopes["K13"] == scopes["K14"] == {("F1", "reading")}
    whole = {
        s.scope for c in study("paper").claims for s in c.cases if not s.reading and c.id not in ("K5", "K11", "K13", "K14")
    }
    assert whole == {"paper"}


def test_a_rerunners_own_settings_are_not_the_papers():
    assert {s.scope for s in settings_of("paper", "K1", epochs=3).values()} == {"reduced"}
    assert {s.scope for s in settings_of("paper", "K1", seeds=2).values() if not s.reading} == {"paper"}


@pytest.mark.parametrize(
    ("claim", "label", "published"),
    [
        ("K1", "F1: test accuracy, LB - SB", 97.81 - 98.03),
        ("K1", "C3: training accuracy, LB - SB", 99.88 - 99.56),
        ("K4", "C1, epsilon 0.001: sharpness, LB / SB", 707.23 / 28.58),
        ("K5", "F1, epsilon 0.0005: sharpness, LB / SB", 9.17 / 0.05),
        ("K9", "C3: distance, SB / LB", (3, 10)),
        ("K11", "C1: sharpness, augmented LB / plain SB", 231.77 / 28.58),
        ("K12", "C1: test accuracy, conservative - plain LB", 78.41 - 77.26),
        ("K12", "C1: sharpness, conservative / plain LB", 520.34 / 707.23),
        ("K2", "F1: LB, best epoch - last", None),
    ],
)
def test_the_published_effect_is_that_of_the_papers_tables(claim, label, published):
    assert settings_of("cpu", claim)[label].published == (published if published is None else pytest.approx(published))


def test_the_best_epoch_is_asked_against_the_small_batch_only_where_there_is_a_gap():
    gaps, stops = settings_of("cpu", "K1"), settings_of("cpu", "K2")
    for n in ("F1", "C1", "C3"):
        assert stops[f"{n}: LB's best epoch - SB's last"].given.label == gaps[f"{n}: test accuracy, LB - SB"].label


# ---------------------------------------------------------------- sharpness against the gap


def gap_and_sharpness():
    """The figure of the argument."""
    return next(f for f in study("cpu").figures if f.name == "gap_and_sharpness")


def test_a_dot_is_one_seeds_gap_and_its_large_batchs_sharpness():
    """Of the records of one seed: LB's accuracy less SB's, and the metric on LB's own run; undefined where one diverged."""
    of = next(s for s in gap_and_sharpness().series if s.line == "C1")
    ended = [{"diverged": False, "final": {"test": {"batch": {"accuracy": a}}}} for a in (91.5, 93.0)]
    for large, small, measured in of.jobs:
        assert (large.seed, large.batch_size > small.batch_size) == (small.seed, True)
        assert measured.parents[0].run == large
    assert of.points(*ended, {"value": 250.0}) == [("C1", -1.5, 250.0)]
    assert math.isnan(of.points({"diverged": True}, ended[1], {"value": 250.0})[0][1])


def test_c1_on_more_images_has_them_of_each_seeds_own_and_the_ratio_of_its_batches():
    plain, more = (next(s for s in gap_and_sharpness().series if s.line == line) for line in ("C1", "C1, 10,000 images"))
    assert plain.panel == more.panel
    for seed, ((large, small, _), (usual, _, _)) in enumerate(zip(more.jobs, plain.jobs, strict=True)):
        assert (large.data.n_train, large.data.subset) == (small.data.n_train, small.data.subset) == (10_000, seed)
        assert large.batch_size / large.data.size == usual.batch_size / usual.data.size == 0.1


def test_a_remedy_is_compared_with_the_small_batch_of_its_table():
    """Both are augmented; beside a large batch trained conservatively or robustly, the small one is the plain one."""
    sides = {s.line: s.jobs[0][:2] for s in gap_and_sharpness().series if not s.line.startswith("published")}
    assert [run.data.augment for run in sides["C1, augmented"]] == ["keskar", "keskar"]
    assert [run.optimizer.inner_steps for run in sides["C1, conservative"]] == [3, 1]
    assert [bool(run.robust) for run in sides["F1, adversarial"]] == [True, False]
    assert {sides[line][1] for line in ("F1, adversarial", "F1, stability")} == {sides["F1"][1]}
    assert all(large.options == small.options for large, small in (sides[variant] for variant in VARIANTS))


def test_published_values_stand_beside_ours_one_a_network():
    """As many as the tables have rows; LB's sharpness as published, at the published difference of the accuracies."""
    published = {(s.panel, s.line): s.points() for s in gap_and_sharpness().series if s.line.startswith("published")}
    rows = {name: FACTS["tables"][name]["rows"] for name in TABLES}
    plain, remedied = dict.fromkeys(panel for panel, _ in published)
    assert {line for panel, line in published if panel == plain} == {f"published: {n}" for n in rows["table2"]}
    lines = {f"published, {how}: {n}" for how, of in (("augmented", "table6"), ("conservative", "table7")) for n in rows[of]}
    assert {line for panel, line in published if panel == remedied} == lines
    ((_, x, y),) = published[plain, "published: F1"]
    assert y == rows["table3"]["F1"][1][0]
    assert x == pytest.approx(rows["table2"]["F1"][3][0] - rows["table2"]["F1"][2][0])


def test_the_unit_of_a_claim_is_that_of_its_central_effect():
    rows = {row["id"]: row for row in verdicts.verdict_rows("keskar", Store())}
    assert {rows[k]["unit"] for k in ("K1", "K13")} == {"points"}
    assert (rows["K4"]["unit"], rows["K6"]["unit"], rows["K7"]["unit"]) == ("ratio", "percent", "rank correlation")


def test_the_large_batchs_own_rate_is_chosen_by_accuracy_and_its_sharpness_is_of_that_rate():
    """Made-up records of random accuracies, under which not every seed takes the same rate."""
    rng = np.random.default_rng(0)
    rows = own_rate.solutions(data_size.at_size(own_rate.IMAGES))
    (of, best), by_rate = rows["LB, the best for the other seeds"], [row for row in rows if "LB, Adam" in row]
    accuracy = rng.normal(70, 2, (5, len(by_rate)))
    records = {}
    for i, row in enumerate(by_rate):
        s, _ = rows[row]
        assert s.changed(optimizer=of.optimizer) == of, "nothing but the rate differs"
        for seed in range(5):
            run = s.train("LB", seed)
            records[run] = {"diverged": False, "curve": {"test_accuracy": [0.0] + [accuracy[seed, i]] * 5}}
            records[s.sharpness(run)] = {"value": 10.0 * i + seed}
    expected = [np.delete(accuracy, seed, axis=0).mean(axis=0).argmax() for seed in range(5)]
    assert len(set(expected)) > 1
    for name, shown in (("test", accuracy[range(5), expected]), ("eps1e-3", 10.0 * np.array(expected) + range(5))):
        found = [best[name].value(*(records[job] for job in jobs)) for jobs in best[name].jobs]
        assert found == pytest.approx(list(shown))
