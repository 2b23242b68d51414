"""The SAM chapter as data: arms that differ in one thing, equal costs, settings chosen by the records of the searches."""

import math
from pathlib import Path

import numpy as np
import pytest

from lbgap import cost, papers, report
from lbgap.papers.sam import cause, compute, foret, grid, search
from lbgap.papers.sam.recipes import FACTS, M, recipes_of
from lbgap.records import Store
from lbgap.spec import Measure, SamSpec

STORE = Store(Path(__file__).resolve().parents[2] / "results")


def settings(profile: str = "cpu", **values):
    return papers.settings("sam", profile=profile, **values)


def study(profile: str = "cpu", **values):
    return papers.get("sam").study(settings(profile, **values))


MNIST = recipes_of(settings())["MNIST"]


def of(run) -> dict:
    """What a run is made of, without its seed and the images that it draws."""
    values = run.canonical()
    values["data"] = {k: v for k, v in values["data"].items() if k != "subset"}
    return {k: v for k, v in values.items() if k != "seed"}


# ---------------------------------------------------------------- facts


def test_the_facts_are_the_four_tables_and_every_claim():
    assert list(FACTS["tables"]) == ["table1", "table4", "table8", "table11"]
    assert list(FACTS["claims"]) == [f"V{i}" for i in range(1, 6)] + [f"A{i}" for i in range(1, 9)]
    # A1 as the paper's own table has it: SAM below SGD in every row and on both data sets
    rows = np.array(list(FACTS["tables"]["table1"]["rows"].values()))
    assert rows.shape == (15, 4)
    assert (rows[:, [0, 2]] < rows[:, [1, 3]]).all()


def test_the_papers_own_runs_are_as_published():
    """Batch 256 as 32 on each of 8 devices, cosine, Nesterov, decay in the perturbation; 200 epochs of 50,000 images."""
    table = {(c.row, c.column): c for t in study("paper").tables if t.name == "table1" for c in t.cells}
    sam = table["WRN-28-10 200 ep / Basic", "C100_SAM"].quantity.jobs
    assert len(sam) == 5
    (run,) = sam[0]
    assert (run.model, run.data.name, run.data.size, run.batch_size, run.slice_size) == (
        "foret.WRN",
        "cifar100",
        50_000,
        256,
        32,
    )
    assert run.sam == SamSpec(rho=0.1, decay_ascends=True)
    assert (run.optimizer.learning_rate, run.optimizer.weight_decay, run.optimizer.clip_norm) == (0.1, 5e-4, 5.0)
    assert run.optimizer.nesterov and run.annealing == "cosine"
    assert run.updates == 200 * math.ceil(50_000 / 256)
    plain = {job.updates for seed in table["WRN-28-10 200 ep / Basic", "C100_SGD"].quantity.jobs for job in seed}
    assert plain == {run.updates, 2 * run.updates}


def test_its_tables_ask_for_what_the_paper_measured():
    """Cutout where the row says so; the rise that as many steps find as trained; labels that a first such network predicts."""
    tables = {t.name: {(c.row, c.column): c.quantity for c in t.cells} for t in study("paper").tables}
    augmented = {row: tables["table1"][f"WRN-28-10 200 ep / {row}", "C10_SAM"].jobs[0][0].data for row in ("Basic", "Cutout")}
    assert {row: data.augment for row, data in augmented.items()} == {"Basic": "hoffer", "Cutout": "cutout"}
    for steps in ("1", "3"):
        (measure,) = tables["table11"][steps, "C100_sharpness"].jobs[0]
        (run,) = tables["table11"][steps, "C100_error"].jobs[0]
        assert measure.of == (run.at(),)
        assert (
            (measure.arguments["rho"], measure.arguments.get("ascents", 1))
            == (run.sam.rho, run.sam.ascents)
            == (0.1, int(steps))
        )
    (second,) = tables["table8"]["0.2", "40"].jobs[0]
    first = second.teacher.run
    assert second.model_copy(update={"teacher": None}) == first
    assert (first.sam.rho, first.data.label_noise) == (0.2, 0.4)
    assert tables["table4"]["Bootstrap + SAM", "20"].jobs == tables["table8"]["0.1", "20"].jobs
    curved = tables["spectrum"]["WRN-40-10, SAM", "largest / fifth"]
    assert curved.read({"eigenvalue_1": 6.0, "eigenvalue_5": 2.0}, {"eigenvalue_1": 6.0, "eigenvalue_5": 2.0}) == 3


# ---------------------------------------------------------------- arms


@pytest.mark.parametrize("batch", (32, 96, 256))
def test_arms_of_the_grid_differ_by_sam_alone(batch):
    plain, sam, inference = (of(grid.arm(MNIST, name).train(batch, 0)) for name in grid.ARMS)
    assert sam.pop("sam") == {"rho": 0.05}
    assert inference.pop("sam") == {"rho": 0.05, "inference_mode": "both"}
    assert plain == sam == inference


def test_cifar_has_less_of_the_grid_in_profile_cpu_and_all_of_it_for_a_rerunner():
    def trained(**values) -> set[tuple]:
        made = study("cpu", networks="CIFAR-10", **values)
        groups = {name for name, _ in made.groups() if name == "grid"}
        runs = [job for job in made.jobs(groups) if job.kind == "train"]
        assert {run.data.name for run in runs} == {"cifar10.half"}
        return {(run.optimizer.name, run.batch_size, run.sam and run.sam.inference_mode) for run in runs}

    assert trained() == {("sgd", batch, mode) for batch in (32, 96, 256) for mode in (None, "none")}
    assert trained(optimizer="adam") == {("adam", batch, mode) for batch in (32, 96, 256) for mode in (None, "none", "both")}


def test_the_seeds_of_the_searches_are_used_for_nothing_else():
    made = study()
    groups = {name for name, _ in made.groups() if "/" not in name}
    searched = {job.run.seed for job in made.jobs(["search"])}
    judged = {job.run.seed for job in made.jobs(groups - {"search"})}
    assert (searched, judged) == ({10, 11}, {0, 1, 2, 3, 4})


def test_held_out_images_are_in_no_split():
    (run,) = search.rates(MNIST, "LB")[0.03].jobs[0]
    assert (run.data.n_train, run.data.n_validation) == (1024, 500)


@pytest.mark.parametrize("row", compute.ways(MNIST))
def test_every_way_costs_what_its_row_says(row):
    """In operations of training, as the planner counts them, against the plain large batch."""
    way, plain = compute.ways(MNIST)[row], compute.ways(MNIST)["LB"]
    ours, base = (w.recipe.train(w.batch, 0) for w in (way, plain))
    extra = {"batch norm"} & {word for word in ("batch norm",) if word in row}
    if extra:  # another network, whose convolutions are the same
        base = base.model_copy(update={"options": ours.options})
    assert cost.of_training(ours) == pytest.approx(way.cost * cost.of_training(base))


def test_the_rules_of_the_rate_end_where_they_say():
    linear, root = (
        compute.ways(MNIST)[f"LB, {rule} rule with warmup"].recipe.train("LB", 0) for rule in ("linear", "square-root")
    )
    small = search.choice(MNIST, "SB").plain
    assert linear.optimizer.learning_rate == pytest.approx(small * 256 / 32)
    assert root.optimizer.learning_rate == pytest.approx(small * (256 / 32) ** 0.5)
    for run in (linear, root):
        assert run.warmup.start * run.optimizer.learning_rate == pytest.approx(small)
        assert run.warmup.updates == pytest.approx(0.2 * run.updates)


def test_what_inference_mode_takes_away_is_one_thing():
    """A network with dropout and no batch norm, and one with batch norm and no dropout."""
    options = {network: dict(runs.options) for (network, mode), runs in cause.modes(MNIST, 0.05).items()}
    assert options == {"dropout": {}, "batch norm": {"dropout": 0.0, "batch_norm": True}}


def test_m_of_32_is_a_slice_of_the_same_batch():
    whole, parts = (compute.ways(MNIST)[row].recipe.train("LB", 0) for row in ("LB, SAM", f"LB, SAM, m = {M}"))
    assert whole.slice_size is None
    assert parts == whole.model_copy(update={"slice_size": 32})


def test_noise_changes_the_labels_alone():
    plain, sam = (of(runs.train("SB", 0)) for runs in foret.noisy(MNIST))
    assert plain["data"].pop("label_noise") == sam["data"].pop("label_noise") == 0.4
    assert sam.pop("sam") == {"rho": foret.NOISE_RHO}
    assert plain == sam == of(compute.longer(search.tuned(MNIST, "SB"), 2).train("SB", 0))


def test_every_solution_has_every_measure():
    kinds = {
        row: sorted(job.kind for q in cause.measures(way.recipe, way.batch).values() for job in q.jobs[0])
        for row, way in cause.solutions(MNIST).items()
    }
    assert set(map(tuple, kinds.values())) == {("eigenvalues", "m_sharpness", "m_sharpness", "sharpness")}
    assert all(isinstance(job, Measure) for q in cause.measures(MNIST, "LB").values() for job in q.jobs[0])


# ---------------------------------------------------------------- the searches, on their records


ARMS = {(s.data.name, s.optimizer.name): s for s in (p.recipe for p in grid.places(recipes_of(settings()), (32, 256)).values())}
SEARCHED = [
    (key, batch, kind)
    for key, of in search.SEARCHES.items()
    for batch in ("SB", "LB")
    for kind in ("rates", *(("radii", "rates_with_sam") if getattr(of, batch).with_sam else ()))
]


@pytest.mark.parametrize(("key", "batch", "kind"), SEARCHED)
def test_the_chosen_value_is_the_best_held_out_one_and_lies_inside_its_grid(key, batch, kind):
    s = ARMS[key]
    choice = search.choice(s, batch)
    chosen = {"rates": choice.plain, "radii": choice.rho, "rates_with_sam": choice.with_sam}[kind]
    found = {value: report.values(q, STORE) for value, q in getattr(search, kind)(s, batch).items()}
    assert all(None not in values for values in found.values())
    means = {value: np.mean(np.nan_to_num(values)) for value, values in found.items()}
    assert chosen == max(means, key=means.get)
    assert min(means) < chosen < max(means)


def test_the_one_rate_of_sgd_is_the_best_of_the_small_batch():
    for s in (s for key, s in ARMS.items() if key in search.SEARCHES and s.optimizer.name == "sgd"):
        assert s.optimizer.learning_rate == search.choice(s, "SB").plain


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rho": -0.1}, "rho is -0.1; accepted is greater than or equal to 0"),
        ({"m": 512}, "m is 512; accepted is 1 to the largest batch's 256"),
        ({"batches": [64, 32]}, "batches is 64, 32; accepted are increasing ones"),
        ({"batches": [8, 16]}, "batches is 8, 16; accepted is a largest of 32 or more, or an m of its own"),
        ({"optimizer": "lamb"}, "optimizer is 'lamb'; accepted is 'sgd' or 'adam'"),
        ({"networks": ["F1"]}, "networks contains 'F1'; profile quick accepts digits"),
        ({"profile": "cpu", "networks": ["F1"]}, "networks contains 'F1'; profile cpu accepts MNIST, CIFAR-10"),
        ({"profile": "cpu", "networks": ["CIFAR-10"], "m": 512}, "m is 512; accepted is 1 to the largest batch's 256"),
        (
            {"profile": "cpu", "networks": ["CIFAR-10"], "batches": [32, 8192]},
            "batch_size is 8192; cifar10.half with 4096 training examples accepts 1 to 4096",
        ),
    ],
)
def test_a_bad_value_ends_in_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        study(**{"profile": "quick"} | values).jobs()
    assert str(caught.value) == sentence


def test_a_rerun_takes_another_radius_m_optimizer_and_batches():
    made = study("quick", rho=0.2, m=16, optimizer="adam", learning_rate=0.01, batches="[16, 128]", epochs=2)
    runs = [job for job in made.jobs() if job.kind == "train" and job not in made.reference]
    assert {run.batch_size for run in runs} == {16, 128}
    assert {(run.optimizer.name, run.optimizer.learning_rate) for run in runs} == {("adam", 0.01)}
    assert {run.sam.rho for run in runs if run.sam} == {0.2}
    assert {run.slice_size for run in runs} == {None, 16}
    assert {run.epochs for run in runs} == {2}
