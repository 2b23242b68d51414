"""Hoffer et al. 2017 as data: the regimes of the facts sheet in every job, equal updates, one change at a time."""

import itertools
import math

import numpy as np
import pytest

from lbgap import papers, schedule
from lbgap.data import SOURCES
from lbgap.papers.hoffer import distances, questions
from lbgap.papers.hoffer.choices import disagreements
from lbgap.papers.hoffer.recipes import COLUMNS, DATA, FACTS, GUESSED, recipes_of
from lbgap.papers.hoffer.recipes import column as column_of
from lbgap.papers.paper import Study
from lbgap.spec import Train

NETWORKS = ("F1", "C1", "ResNet44", "VGG", "C3", "WResNet16-4")
CLAIMS = [f"H{i}" for i in range(1, 10)]
# the code's regimes, from its model files: momentum, then (epoch, learning rate, weight decay)
CIFAR_SHALLOW = (0.0, [(0, 1e-3, 5e-4), (60, 1e-2, 5e-4), (120, 1e-3, 5e-4), (180, 1e-4, 5e-4)])
RESNET = (0.9, [(0, 0.1, 1e-4), (81, 0.01, 1e-4), (122, 1e-3, 1e-4), (164, 1e-4, 1e-4)])
REGIMES = {
    "F1": (0.9, [(0, 0.1, 1e-4), (10, 1e-2, 1e-4), (20, 1e-3, 1e-4), (30, 1e-4, 1e-4)]),
    "C1": CIFAR_SHALLOW,
    "C3": CIFAR_SHALLOW,
    "ResNet44": RESNET,
    "VGG": RESNET,
    "WResNet16-4": (0.9, [(0, 0.1, 1e-4), (60, 2e-2, 1e-4), (120, 4e-3, 1e-4), (140, 1e-4, 1e-4)]),
    "AlexNet": (0.9, [(0, 1e-2, 5e-4), (10, 5e-3, 5e-4), (15, 1e-3, 0.0), (20, 5e-4, 0.0), (25, 1e-4, 0.0)]),
}
EPOCHS = {"F1": 50, "AlexNet": 30}  # 200 for the others


def study(profile: str, **settings) -> Study:
    """The study of a profile."""
    return papers.get("hoffer").study(papers.settings("hoffer", profile=profile, **settings))


def rows(profile: str) -> dict[str, dict[str, list[Train]]]:
    """Runs of every row and column of Tables 1 and 2 that a profile trains."""
    out: dict[str, dict[str, list[Train]]] = {}
    for table in study(profile).tables:
        if table.number:
            for cell in table.cells:
                if cell.quantity:
                    out.setdefault(cell.row, {})[cell.column] = [job for (job,) in cell.quantity.jobs]
    return out


PAPER = rows("paper")


def trace(run: Train, updates) -> list[tuple[float, float]]:
    """Learning rate and weight decay at some updates."""
    return [schedule.at(run.optimizer, run.phases, u) for u in updates]


# ---------------------------------------------------------------- facts


def test_the_facts_are_those_of_both_tables_and_every_claim():
    tables = FACTS["tables"]
    assert tuple(tables["table1"]["rows"]) == NETWORKS
    assert list(tables["table2"]["rows"]) == ["AlexNet 4096", "AlexNet 8192"]
    assert list(FACTS["claims"]) == CLAIMS
    assert all(table["columns"] == list(COLUMNS) for table in tables.values())


def test_the_papers_own_profile_runs_every_cell_with_five_seeds():
    cells = [cell for table in study("paper").tables if table.number for cell in table.cells]
    assert cells
    assert {len(cell.quantity.jobs) for cell in cells} == {5}


# ---------------------------------------------------------------- Table 1: regimes, updates, remedies


@pytest.mark.parametrize("row", PAPER)
def test_the_regime_of_every_column_is_the_codes_at_every_boundary(row):
    """Rates and decays just before and just after each boundary, in units of each column's own epochs."""
    network = row.split()[0]
    momentum, regime = REGIMES[network]
    n, epochs = SOURCES[DATA[row]].n_train, EPOCHS.get(network, 200)
    large = 8192 if "8192" in row else 4096
    for column, runs in PAPER[row].items():
        batch = 128 if column == "SB" else large
        factor = 1.0 if column in ("SB", "LB") else math.sqrt(large / 128)
        per_epoch = math.ceil(n / (128 if column in ("SB", "+RA") else large))
        for run in runs:
            assert run.batch_size == batch
            assert run.updates == epochs * per_epoch
            assert run.optimizer.momentum == momentum
            assert run.optimizer.clip_norm == 5
            for (epoch, rate, decay), (later, *_) in itertools.zip_longest(regime, regime[1:], fillvalue=(epochs,)):
                at = [epoch * per_epoch, later * per_epoch - 1]
                for got in trace(run, at):
                    assert got == pytest.approx((rate * factor, decay))


@pytest.mark.parametrize("profile", ["quick", "cpu", "paper"])
def test_regime_adaptation_makes_the_small_batchs_updates_and_boundaries(profile):
    for row, columns in rows(profile).items():
        for small, adapted, plain in zip(columns["SB"], columns["+RA"], columns["LB"], strict=True):
            assert adapted.updates == small.updates > plain.updates, row
            assert [p.update for p in adapted.phases] == [p.update for p in small.phases]
            assert adapted.batch_size == plain.batch_size > small.batch_size


@pytest.mark.parametrize("profile", ["quick", "cpu", "paper"])
def test_each_column_adds_one_remedy_to_the_column_before(profile):
    """What else than the batch size differs from one column to the next."""
    expected = {
        ("SB", "LB"): {"batch_size", "updates", "phases"},
        ("LB", "+LR"): {"optimizer", "phases"},
        ("+LR", "+GBN"): {"ghost_batch_size"},
        ("+GBN", "+RA"): {"updates", "phases", "evaluate_every"},
    }
    for columns in rows(profile).values():
        for (one, other), fields in expected.items():
            a, b = columns[one][0].canonical(), columns[other][0].canonical()
            differing = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
            assert differing <= fields
            assert differing >= fields - {"evaluate_every", "phases"}


def test_ghost_batches_are_of_128():
    for columns in PAPER.values():
        assert {run.ghost_batch_size for c in ("+GBN", "+RA") for run in columns[c]} == {128}
        assert {run.ghost_batch_size for c in ("SB", "LB", "+LR") for run in columns[c]} == {None}


def test_the_papers_profile_trains_whole_sets_in_float32_with_the_codes_augmentation():
    for row, columns in PAPER.items():
        for run in itertools.chain(*columns.values()):
            assert (run.data.name, run.data.n_train, run.data.augment) == (DATA[row], None, "hoffer")
            assert run.precision == "float32"


def test_in_cpu_boundaries_keep_their_share_of_the_budget():
    for row, columns in rows("cpu").items():
        _, regime = REGIMES[row]
        for run in columns["SB"]:
            shares = [p.update / run.updates for p in run.phases]
            published = [epoch / EPOCHS.get(row, 200) for epoch, *_ in regime[1:]]
            assert shares == pytest.approx(published, abs=0.5 / run.epochs)
            assert [p.learning_rate for p in run.phases] == [rate for _, rate, _ in regime[1:]]


# ---------------------------------------------------------------- studies


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_every_claim_has_its_rules(profile):
    assert all(claim.cases for claim in study(profile).claims)


def test_the_ladder_shows_the_published_steps_which_no_record_is_behind():
    (ladder,) = [f for f in study("cpu").figures if f.name == "ladder"]
    for network in ("F1", "C1"):
        lines = [s for s in ladder.series if s.panel == network]
        shown = [point for s in lines if s.line == "published" for point in s.read()]
        assert shown == list(enumerate(FACTS["tables"]["table1"]["rows"][network]))
        assert [s.jobs for s in lines if s.line == "published"] == [((),)]
        assert all(seed for s in lines if s.line == "ours" for seed in s.jobs)
    for figure in study("quick").figures + study("cpu", batch_ratio=4).figures:
        assert all(s.line != "published" for s in figure.series)


# ---------------------------------------------------------------- code against text: one change at a time


def test_a_variant_differs_in_what_its_name_says_alone():
    recipes = {n: recipes_of(papers.settings("hoffer", profile="cpu"))[n] for n in ("F1", "C1")}
    for name, ((s, batch), (t, same)) in disagreements(recipes).items():
        assert batch == same
        a, b = s.train(batch, 0).canonical(), t.train(batch, 0).canonical()
        differing = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
        if "rate" in name:
            assert differing == {"optimizer", "phases"}
            one, other = s.train(batch, 0), t.train(batch, 0)
            for u in range(0, one.updates, 7):
                ratio = schedule.at(one.optimizer, one.phases, u)[0] / schedule.at(other.optimizer, other.phases, u)[0]
                assert ratio == pytest.approx(math.sqrt(2))
        elif differing == {"optimizer"}:
            changed = {
                k for k in a["optimizer"].keys() | b["optimizer"].keys() if a["optimizer"].get(k) != b["optimizer"].get(k)
            }
            assert len(changed) == 1, name
        else:
            assert len(differing) == 1, name
    assert len(disagreements(recipes)) == 11


def test_the_plateau_is_read_before_the_rate_drops():
    s = recipes_of(papers.settings("hoffer", profile="cpu"))["F1"]
    epochs = [5, 10, 15, 20, 25]
    record = {"diverged": False, "curve": {"epoch": epochs, "test_accuracy": [50.0, 60.0, 70.0, 80.0, 90.0]}}
    for times, expected in ((1, 60.0), (2, 80.0)):
        assert distances.before_the_drop(distances.prolonged(s, times)).read(record) == expected


def test_boundaries_that_fall_together_keep_both_their_changes():
    shrunk = study("paper", networks=["AlexNet 4096"], epochs=3, seeds=1)
    (run,) = [c.quantity.jobs[0][0] for t in shrunk.tables for c in t.cells if c.quantity and c.column == "SB"]
    assert trace(run, [run.updates - 1]) == [pytest.approx((1e-4, 0.0))]
    assert trace(run, [0]) == [pytest.approx((1e-2, 5e-4))]


# ---------------------------------------------------------------- walks and longer training


def test_walks_keep_the_initial_rate_and_differ_in_the_batch_alone():
    s = recipes_of(papers.settings("hoffer", profile="cpu"))["F1"]
    sizes = distances.batch_sizes(s)
    assert s.small in sizes and s.large in sizes
    for b in sizes:
        for corrected in (False, True):
            of, batch = distances.walked("F1", s, b, corrected)
            run = of.train(batch, 0)
            assert (run.batch_size, run.phases, run.layers) == (b, (), True)
            assert run.epochs == distances.WALK_EPOCHS["F1"]
            factor = math.sqrt(b / s.small) if corrected else 1.0
            assert run.optimizer.learning_rate == pytest.approx(s.optimizer.learning_rate * factor)
            assert run.ghost_batch_size == (s.ghosts if corrected and b > s.small else None)


def test_walks_are_looked_at_from_later_updates_too():
    """Against correlations taken by hand; a walk that is less than four times as long as where it would begin is left out."""
    s = recipes_of(papers.settings("hoffer", profile="cpu"))["F1"]
    cells = {(c.row, c.column): c.quantity for c in distances.beginnings("F1", s).cells}
    t = np.unique(np.geomspace(1, 3760, 60).round())
    d = np.where(t < 60, np.log(t), np.sqrt(t) - 3)
    walked = {"diverged": False, "distance": {"update": list(t), "value": list(d)}}
    for first in (10, 20, 30, 100):
        late = t >= first
        log, root = (np.corrcoef(law(t[late]), d[late])[0, 1] ** 2 for law in (np.log, np.sqrt))
        assert cells[f"F1, from update {first}", "log - root, SB / 4"].read(walked) == pytest.approx(log - root)
    steeper = walked | {"distance": {"update": list(t), "value": list(np.where(t < 25, 2.0, 1.1) * d)}}
    for first, apart in ((10, 100), (20, 100), (30, 10)):
        assert cells[f"F1, from update {first}", "apart, 4 SB, %"].read(steeper, walked) == pytest.approx(apart)
    there = {first: {c for row, c in cells if row == f"F1, from update {first}"} for first in (10, 20, 30, 100)}
    logs = [f"log - root, {name}" for name in ("SB / 4", "SB", "4 SB", "LB")]
    assert there[10] == {*logs, "apart, 4 SB, %", "apart, LB, %"}  # LB makes 60 updates
    assert there[20] == there[30] == {*logs[:3], "apart, 4 SB, %"}
    assert there[100] == set(logs[:2])


def test_what_a_longer_phase_adds_is_shown_length_by_length():
    s = recipes_of(papers.settings("hoffer", profile="cpu"))["F1"]
    at = {distances.prolonged(s, times)[0].epochs: float(times) for times in distances.LONGER}

    def record(run: Train) -> dict:
        reached = at[run.epochs] ** 2
        curve = {"epoch": [run.epochs - 45, run.epochs], "test_accuracy": [reached / 2, reached]}
        return {"diverged": False, "curve": curve, "final": {"test": {"running": {"accuracy": reached}}}}

    cells = distances.longer("F1", s).cells
    shown = {(c.row, c.column): c.quantity.read(*map(record, c.quantity.jobs[0])) for c in cells}
    for times in (1, 2, 4, 8):
        assert shown[f"F1, × {times}", "at the end"] == times**2
        assert shown[f"F1, × {times}", "before the rate drops"] == times**2 / 2
    assert shown["F1, × 8 - × 4", "at the end"] == 64 - 16
    assert shown["F1, × 8 - × 4", "before the rate drops"] == 32 - 8


def test_a_prolonged_phase_moves_all_that_follows():
    s = recipes_of(papers.settings("hoffer", profile="cpu"))["F1"]
    first = column_of(s, "SB")[0].train("SB", 0)
    for times in distances.LONGER:
        of, batch = distances.prolonged(s, times)
        run = of.train(batch, 0)
        more = (times - 1) * first.phases[0].update
        assert run.updates - first.updates == more
        assert [p.update for p in run.phases] == [p.update + more for p in first.phases]


# ---------------------------------------------------------------- a re-runner's own settings


def test_own_settings_reach_every_run():
    own = study("cpu", networks=["F1"], batch_ratio=8, ghost_batch_size=16, learning_rate=0.05, epochs=25, seeds=2)
    columns = {c.column: [job for (job,) in c.quantity.jobs] for t in own.tables for c in t.cells if c.quantity}
    assert {len(runs) for runs in columns.values()} == {2}
    small, large = columns["SB"][0], columns["+RA"][0]
    assert large.batch_size == 8 * small.batch_size
    assert large.ghost_batch_size == 16
    assert small.optimizer.learning_rate == pytest.approx(0.05)
    assert small.updates == large.updates == 25 * small.updates_per_epoch
    # rates keep their ratio to the first, boundaries their share
    assert [p.learning_rate for p in small.phases] == pytest.approx([0.005, 0.0005, 0.00005])
    assert [p.update / small.updates for p in small.phases] == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"ghost_batch_size": 100_000}, "ghost_batch_size is 100000; with a batch of"),
        ({"batch_ratio": 0}, "batch_ratio is 0; accepted is greater than or equal to 1"),
        ({"batch_ratio": 100_000}, "batch_size is "),
        ({"networks": ["F9"]}, "networks contains 'F9'; profile cpu accepts F1, C1"),
        ({"networks": ["VGG"]}, "networks contains 'VGG'; profile cpu accepts F1, C1"),
        ({"learning_rate": -1}, "learning_rate is -1; accepted is greater than 0"),
    ],
)
def test_bad_settings_get_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:
        study("cpu", **values).jobs()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_the_small_batch_on_as_many_images_makes_its_regimes_phases_as_many_times_longer():
    for s in recipes_of(papers.settings("hoffer", profile="cpu")).values():
        longer, once = (t.train("SB", 0) for t in (questions.as_many_images(s), s))
        more = s.large // s.small
        assert longer.updates == more * once.updates
        assert [(p.update, p.learning_rate) for p in longer.phases] == [(more * p.update, p.learning_rate) for p in once.phases]
        adapted = column_of(s, "+RA")[0].train("LB", 0)
        assert longer.updates * longer.batch_size == adapted.updates * adapted.batch_size


def test_nothing_of_profile_cpu_is_the_papers_own_and_everything_of_profile_paper_but_the_readings():
    """Readings: three claims, and networks whose layers or epochs the paper does not give."""
    for profile, own in (("cpu", "reduced"), ("paper", "paper")):
        scopes = {c.id: {s.scope for s in c.cases if s.network not in GUESSED} for c in study(profile).claims}
        readings = {"H5", "H6", "H8"}
        assert {claim for claim, of in scopes.items() if of == {"reading"}} == readings
        assert all(of == {own} for claim, of in scopes.items() if claim not in readings)
    guessed = {s.network: s.scope for c in study("paper").claims for s in c.cases if s.network in GUESSED}
    assert guessed == dict.fromkeys(("VGG", "AlexNet 4096", "AlexNet 8192"), "reading")


def test_a_step_stands_beside_the_published_one():
    settings = {s.label: s for c in study("paper").claims for s in c.cases}
    assert settings["F1: LB - SB"].published == pytest.approx(97.05 - 98.27)
    assert settings["C1: +RA - SB"].published == pytest.approx(88.20 - 87.80)
    assert settings["AlexNet 8192: +GBN - +LR"].published == pytest.approx(53.93 - 53.25)


def test_networks_whose_published_step_is_too_small_to_tell_are_shown_and_not_asked():
    (claim,) = [c for c in study("paper").claims if c.id == "H3"]
    assert {s.network: s.unasked != "" for s in claim.cases} == {n: n in ("F1", "C3") for n in DATA}
    rows = FACTS["tables"]["table1"]["rows"]
    for s in claim.cases:
        assert not s.unasked or f"{rows[s.network][3] - rows[s.network][2]:.2f} points" in s.unasked
