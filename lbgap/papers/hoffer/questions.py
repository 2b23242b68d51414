"""Two confounds of the ladder, each taken apart: updates and images (Q1), and C1 without the momentum of the text (Q2)."""

from collections.abc import Iterator

from lbgap.papers.hoffer.recipes import COLUMNS, FACTS, Recipes, accuracy, column
from lbgap.papers.paper import Case, Claim, Table, difference, own_questions
from lbgap.papers.recipe import Recipe
from lbgap.stats import Difference

MARGIN = 0.5  # points, as in H4


def as_many_images(s: Recipe) -> Recipe:
    """The small batch for as many images as the adapted large batch sees, every phase of the regime in proportion."""
    more = s.large // s.small
    return s.changed(
        epochs=s.epochs * more,
        evaluate_every=s.evaluate_every * more,
        regime=tuple((epoch * more, values) for epoch, values in s.regime),
    )


def images(recipes: Recipes) -> Table:
    """SB, SB on as many images as +RA, +RA, and LB with +RA's updates alone."""
    cells = []
    for n, s in recipes.items():
        of = {"SB": accuracy((s, "SB")), "SB, as many images": accuracy((as_many_images(s), "SB"))}
        of["+RA"] = accuracy(column(s, "+RA"))
        if n == "F1":  # where H9 is asked
            of["LB, as many updates"] = accuracy((s.changed(adapted=True), "LB"))
            of["LB, as many updates - SB, as many images"] = difference(of["LB, as many updates"], of["SB, as many images"])
        of["+RA - SB, as many images"] = difference(of["+RA"], of["SB, as many images"])
        of["SB, as many images - SB"] = difference(of["SB, as many images"], of["SB"])
        cells += s.cells(n, of)
    return Table("images", "Updates or images? The small batch on as many images as +RA sees", "percent; points", tuple(cells))


def with_momentum(s: Recipe) -> Recipe:
    """C1 with the momentum that the text speaks of and the code leaves out."""
    return s.changed(optimizer=s.optimizer.model_copy(update={"momentum": 0.9}))


def momentum(recipes: Recipes) -> Table:
    """The ladder of C1 with momentum 0.9, and what ghost batch norm changes in either reading of batch norm."""
    cells = []
    for n, s in recipes.items():
        m, row = with_momentum(s), f"{n}, momentum 0.9"
        cells += [m.cell(row, c, accuracy(column(m, c))) for c in COLUMNS]
        for words, reading in (("", "running"), (", batch statistics", "batch")):
            gbn, lr = (of.accuracy(batch, "test", reading) for of, batch in (column(m, c) for c in ("+GBN", "+LR")))
            cells.append(m.cell(row, f"+GBN - +LR{words}", difference(gbn, lr)))
        fit = {c: of.accuracy(batch, "train", "running") for c in ("SB", "LB", "+LR") for of, batch in (column(m, c),)}
        cells += [m.cell(row, f"training, {c} - SB", difference(fit[c], fit["SB"])) for c in ("LB", "+LR")]
    caption = "The ladder of C1 with momentum 0.9, same rates"
    return Table("momentum", caption, "validation accuracy, percent; points", tuple(cells))


def questions_on(recipes: Recipes) -> tuple[Claim, ...]:
    """Q1 and Q2 on a profile's networks."""
    confounded = {n: s for n, s in recipes.items() if n in ("F1", "C1")}
    rules = [rule for n, s in confounded.items() for rule in _on_images(n, s)]
    rules += [rule for n, s in confounded.items() if n == "C1" for rule in _on_momentum(n, with_momentum(s))]
    return own_questions(FACTS["questions"], rules)


def _on_images(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    # at equal images the small batch makes more updates: what is left of its lead is what these are worth beside the images
    longer, adapted = accuracy((as_many_images(s), "SB")), accuracy(column(s, "+RA"))
    yield "Q1", s.case(f"{n}: +RA - SB on as many images", Difference("above", -MARGIN), adapted, longer, central=True)


def _on_momentum(n: str, s: Recipe) -> Iterator[tuple[str, Case]]:
    sb, lb, lr, gbn, ra = (accuracy(column(s, c)) for c in COLUMNS)
    for label, rule, a, b in (
        ("LB - SB", Difference("below"), lb, sb),
        ("+LR - LB", Difference("above"), lr, lb),
        ("+GBN - +LR", Difference("above"), gbn, lr),
        ("+RA - SB", Difference("above", -MARGIN), ra, sb),
        ("+RA - +GBN", Difference("above"), ra, gbn),
    ):
        yield "Q2", s.case(f"{n}, momentum 0.9: {label}", rule, a, b, central=label == "+GBN - +LR")
