"""Foret et al.'s own tables, defined in profile ``paper``; and label noise, radius and inner steps on the report's network.

Readings of the paper's runs: momentum is Nesterov's and gradients are clipped at 5, as in the code; weight decay is part of the
loss there, so that it enters e(w); each of 8 devices has its own e(w) on 32 of the 256 examples, with batch-norm statistics of
its own. The code drops an epoch's incomplete last batch, which is kept here. Plain training gets the better of once and twice
the epochs, chosen on the other seeds. Bootstrapping is read as: a network is trained with SAM as usual, then another one of the
same seed, in the same way, on the labels that the first predicts. Mixup is not here, nor are the other networks of Table 1 and
AutoAugment.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from lbgap.papers.paper import Case, Published, Quantity, Table, best_on_the_others, combined, dig
from lbgap.papers.recipe import Recipe, published_cells, published_difference, published_table
from lbgap.papers.sam import cause, compute, grid
from lbgap.papers.sam.recipes import FACTS, M, Recipes, with_sam
from lbgap.papers.sam.search import choice, tuned, tuned_sam
from lbgap.spec import DataSpec, OptimizerSpec, Train
from lbgap.stats import Difference, Equivalence, Ratio

NOISE = 0.4
NOISE_RHO = 0.05  # their default; 0.1, which they took for noise, let one of two runs of the search collapse
STEPS = (1, 3)
LEVELS = {"20": (0.2, 0.1), "40": (0.4, 0.1), "60": (0.6, 0.1), "80": (0.8, 0.05)}  # Table 4: noise, rho
FIRST = "WRN-28-10 200 ep / Basic"
RHO = {"C10": 0.05, "C100": 0.1}
AUGMENTED = {"Basic": "hoffer", "Cutout": "cutout"}  # the network's AutoAugment, and the other networks, are not here
WIDE = {  # rows of Table 1: epochs, rate, weight decay
    f"WRN-28-10 {epochs} ep / {augmented}": (epochs, rate, decay)
    for epochs, rate, decay in ((200, 0.1, 5e-4), (1800, 0.05, 1e-3))
    for augmented in AUGMENTED
}


# ---------------------------------------------------------------- the paper's own runs


def _own(network: str, model: str, data: DataSpec, epochs: int, rate: float, decay: float, **options) -> Recipe:
    """A run of Foret et al., plain."""
    optimizer = OptimizerSpec(name="sgd", learning_rate=rate, momentum=0.9, nesterov=True, weight_decay=decay, clip_norm=5.0)
    fixed = {"annealing": "cosine", "slice_size": M, "curve_reading": "running"}
    of = {"options": options, "fixed": fixed, "own": True, "network": network}
    return Recipe(model, data, 256, 256, epochs, optimizer, evaluate_every=10, **of)


def _wide(row: str, data: str = "C10") -> Recipe:
    epochs, rate, decay = WIDE[row]
    names = {"C10": "cifar10", "C100": "cifar100"}
    return _own(
        "WRN-28-10", "foret.WRN", DataSpec(name=names[data], augment=AUGMENTED[row.split(" / ")[1]]), epochs, rate, decay
    )


def _sam(s: Recipe, rho: float, ascents: int = 1) -> Recipe:
    return with_sam(s, rho, ascents=ascents, decay_ascends=True)


def _error(s: Recipe) -> Quantity:
    """Test error, percent."""
    return combined(lambda accuracy: 100 - accuracy, s.accuracy("LB", "test", "running"))


def _plain(s: Recipe) -> Quantity:
    """The better of once and twice the epochs."""
    once, twice = (s.accuracy("LB", "test", "running") for s in (s, compute.longer(s, 2)))
    return combined(lambda accuracy: 100 - accuracy, best_on_the_others([once, twice]))


def _columns(data: str) -> dict[str, Callable[[str], Quantity]]:
    return {
        f"{data}_SAM": lambda row: _error(_sam(_wide(row, data), RHO[data])),
        f"{data}_SGD": lambda row: _plain(_wide(row, data)),
    }


def _noisy(level: str) -> Recipe:
    noise, _ = LEVELS[level]
    data = DataSpec(name="cifar10", augment="hoffer", label_noise=noise)
    return _own("ResNet-32", "hoffer.ResNet", data, 200, 0.1, 5e-4, depth=32)


def _noisy_accuracy(row: str, level: str) -> Quantity | None:
    plain, sam = _noisy(level), _sam(_noisy(level), LEVELS[level][1])
    found = {"SGD": plain.accuracy, "SAM": sam.accuracy, "Bootstrap + SAM": partial(_bootstrapped, sam)}.get(row)
    return found("LB", "test", "running") if found else None


def _bootstrapped(s: Recipe, batch: str, split: str, reading: str) -> Quantity:
    """As :meth:`Recipe.accuracy`, of runs whose training labels a first run of the same seed predicts."""

    def second(seed: int) -> Train:
        first = s.train(batch, seed)
        return first.model_copy(update={"teacher": first.at()})

    return Quantity(s.each(second), dig(f"final.{split}.{reading}.accuracy"))


def tables(own: bool) -> list[Table]:
    """Tables 1, 4, 8 and 11; ``own``: with the runs of profile ``paper``, else published numbers alone."""

    def filled(name: str, quantity: Callable[[str, str], Quantity | None], words: Callable[[str, str], str]) -> Table:
        columns = {c: None for c in FACTS["tables"][name]["columns"]}
        bare = published_table(FACTS, name, {}, columns)
        if not own:
            return bare
        cells = []
        for cell in bare.cells:
            found = quantity(cell.row, cell.column)
            cells.append(replace(cell, quantity=found, words=words(cell.row, cell.column) if found else ""))
        return Table(bare.name, bare.title, bare.unit, tuple(cells), bare.number, bare.digits)

    def first(row: str, column: str) -> Quantity | None:
        return _columns(column.split("_")[0])[column](row) if row in WIDE else None

    def eighth(row: str, level: str) -> Quantity | None:
        s = _sam(_noisy(level), float(row)) if float(row) else _noisy(level)
        return combined(lambda accuracy: 100 - accuracy, _bootstrapped(s, "LB", "test", "running"))

    def eleventh(row: str, column: str) -> Quantity | None:
        data, what = column.split("_")
        of = _sam(_wide(FIRST, data), RHO[data], int(row))
        return _error(of) if what == "error" else rise(of, "LB", int(row))

    return [
        filled("table1", first, lambda row, column: _wide(row, column.split("_")[0]).words),
        filled("table4", _noisy_accuracy, lambda row, level: f"{_noisy(level).words}, ResNet-32"),
        filled("table8", eighth, lambda row, level: f"{_noisy(level).words}, ResNet-32, bootstrapped"),
        filled("table11", eleventh, lambda row, column: _wide(FIRST, column.split("_")[0]).words),
    ]


def _curved() -> dict[str, Recipe]:
    """Of section 4.2, without batch norm; its "300 steps" are read as epochs, since they are at convergence."""
    data = DataSpec(name="cifar10", augment="hoffer")
    plain = _own("WRN-40-10", "foret.WRN", data, 300, 0.1, 5e-4, depth=40, norm="skipinit")
    return {"SGD": plain, "SAM": _sam(plain, RHO["C10"])}


def spectrum_table(own: bool) -> Table:
    """The largest eigenvalue and its ratio to the fifth, as published; ``own`` as in :func:`tables`."""
    cells = []
    for row, of in _curved().items():
        found, reported = cause.spectrum(of, "LB"), FACTS["spectrum"]["rows"][row]
        for (column, quantity), value in zip(found.items(), reported, strict=True):
            cell = of.cell(f"WRN-40-10, {row}", column, quantity, Published(value))
            cells.append(cell if own else replace(cell, quantity=None, words=""))
    return Table("spectrum", "Eigenvalues without batch norm (section 4.2)", "1 / weight²; times", tuple(cells))


def own_rules() -> Iterator[tuple[str, Case]]:
    """A1, A5, A6 and A8 on the paper's own runs."""
    below = Difference("below")
    for row in WIDE:
        for data in ("C10", "C100"):
            sam, sgd = (of(row) for of in _columns(data).values())
            fields = {"central": data == "C10" and row == next(iter(WIDE)), "network": row}
            yield "A1", _wide(row, data).case(f"{row}, {data}: test error, SAM - SGD", below, sam, sgd, **fields)
    plain, sam = (cause.spectrum(of, "LB") for of in _curved().values())
    for name, words in cause.SPECTRUM.items():
        times = {"published": cause.published_ratio(name), "unit": "times"}
        yield "A4", _curved()["SGD"].case(f"WRN-40-10: {words}, SGD / SAM", Ratio(1), plain[name], sam[name], **times)
    for level in LEVELS:
        sides = (_noisy_accuracy(row, level) for row in ("SAM", "SGD"))
        label = f"ResNet-32, {level}% noise: accuracy, SAM - SGD"
        fields = {"central": level == "40", "published": published_difference(FACTS, "table4", ("SAM", level), ("SGD", level))}
        yield "A5", _noisy(level).case(label, Difference("above"), *sides, **fields)
    wide = _wide(FIRST)
    yield "A6", wide.case("WRN-28-10: test error, rho 0.05 - SGD", below, _error(_sam(wide, 0.05)), _plain(wide), central=True)
    stepping = {ascents: _sam(wide, 0.05, ascents) for ascents in (5, 1)}
    sides = (_error(of) for of in stepping.values())
    yield "A8", wide.case("WRN-28-10: test error, 5 inner steps - 1", Equivalence(0.5), *sides, central=True)
    sides = (rise(of, "LB", ascents) for ascents, of in stepping.items())
    times = {"published": _published_rise(*stepping), "unit": "times"}
    yield "A8", wide.case("WRN-28-10: rise found, 5 inner steps / 1", Ratio(1), *sides, **times)


def _published_rise(a: int, b: int) -> float:
    """What so many inner steps find in Table 11, in multiples of what fewer find."""
    of = published_cells(FACTS, "table11")
    return of[str(a), "C10_sharpness"].mean / of[str(b), "C10_sharpness"].mean


# ---------------------------------------------------------------- on the report's network


def noisy(s: Recipe, noise: float = NOISE) -> tuple[Recipe, Recipe]:
    """The small batch with a share of its labels drawn anew, plain and with SAM; twice the epochs, so that it can fit them."""
    data = s.data.model_copy(update={"label_noise": noise})
    plain = compute.longer(tuned(s, "SB").changed(data=data), 2)
    return plain, with_sam(plain, NOISE_RHO)


def noise_table(recipes: Recipes) -> Table:
    """Accuracy on the test set and on the noisy labels (A5)."""
    cells = []
    for n, s in recipes.items():
        for row, runs in zip(("plain", "SAM"), noisy(s), strict=True):
            columns = {"test": runs.accuracy("SB", "test", "running"), "noisy labels": runs.accuracy("SB", "train", "running")}
            cells += runs.cells(f"{n}, {row}", columns)
    title = f"{NOISE:.0%} of the training labels drawn anew: batch of the small size, rho {NOISE_RHO:g}"
    return Table("noise", title, "percent", tuple(cells))


def radius_table(recipes: Recipes) -> Table:
    """Test accuracy at Foret et al.'s default radius and at the chosen one (A6), and after several ascents (A8)."""
    cells = []
    for n, s in recipes.items():
        for batch, size in (("SB", s.small), ("LB", s.large)):
            rows = {"plain": tuned(s, batch), "rho 0.05": tuned_sam(s, batch, rho=0.05)}
            steps = STEPS if batch == "SB" else STEPS[:1]
            rows |= {f"rho {choice(s, batch).rho:g}, {k} ascent{'s' * (k > 1)}": _stepping(s, batch, k) for k in steps}
            for row, runs in rows.items():
                columns = {"test": runs.accuracy(batch, "test", "running")}
                cells += runs.cells(f"{n}, batch {size}, {row}", columns)
    return Table("radius", "The default radius, the chosen one, and several ascents", "percent", tuple(cells))


def rise(s: Recipe, batch: str, ascents: int) -> Quantity:
    """What Foret et al. call estimated sharpness (C.6): m-sharpness at the radius and with the inner steps of training."""
    parts = {"parts": grid.EXAMPLES // M} if s.own_subset else {}
    steps = {"ascents": ascents} if ascents > 1 else {}
    return s.measured(batch, "m_sharpness", rho=s.fixed["sam"].rho, m=M, batch_norm="running", **parts, **steps)


def _stepping(s: Recipe, batch: str, ascents: int) -> Recipe:
    return tuned_sam(s, batch) if ascents == 1 else tuned_sam(s, batch, ascents=ascents)


def rules(recipes: Recipes) -> Iterator[tuple[str, Case]]:
    """A5, A6 and A8 on the report's network."""
    above = Difference("above")
    for n, s in recipes.items():
        plain, sam = (runs.accuracy("SB", "test", "running") for runs in noisy(s))
        label = f"{n}, batch {s.small}, {NOISE:.0%} noise: accuracy, SAM - plain"
        level = f"{100 * NOISE:g}"
        reported = {"published": published_difference(FACTS, "table4", ("SAM", level), ("SGD", level))}
        yield "A5", noisy(s)[0].case(label, above, sam, plain, central=True, **reported)
        for batch, size in (("SB", s.small), ("LB", s.large)):
            default = tuned_sam(s, batch, rho=0.05)
            sides = (runs.accuracy(batch, "test", "running") for runs in (default, tuned(s, batch)))
            label = f"{n}, batch {size}: accuracy, rho 0.05 - plain"
            yield "A6", default.case(label, above, *sides, central=batch == "SB")
        last, first = (_stepping(s, "SB", k).accuracy("SB", "test", "running") for k in (STEPS[-1], STEPS[0]))
        label = f"{n}, batch {s.small}: accuracy, {STEPS[-1]} ascents - 1"
        # accuracies here, errors there
        places = ((str(k), "C10_error") for k in (STEPS[0], STEPS[-1]))
        reported = {"published": published_difference(FACTS, "table11", *places)}
        yield "A8", tuned(s, "SB").case(label, Equivalence(0.5), last, first, central=True, **reported)
        sides = (rise(_stepping(s, "SB", k), "SB", k) for k in (STEPS[-1], STEPS[0]))
        label = f"{n}, batch {s.small}: rise found, {STEPS[-1]} ascents / 1"
        times = {"published": _published_rise(STEPS[-1], STEPS[0]), "unit": "times"}
        yield "A8", tuned(s, "SB").case(label, Ratio(1), *sides, **times)
