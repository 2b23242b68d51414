"""Hoffer et al. 2017: how much of the gap is too few updates? Square-root scaling, ghost batch norm, regime adaptation.

Readings chosen, and fixed before any record was made:

- SB is 128, and so are the ghost batch and the batch that the learning rate refers to (the paper has "128 or 256"; the code
  both, see ``released``).
- Momentum is kept from epoch to epoch, as the text has it; the code loses it at each epoch's end (``released``).
- C1 and C3 have no momentum, as in the code; the text speaks of SGD with momentum (``released``).
- The last batch of an epoch is smaller and kept; ghost batches keep their size and the last one takes the remainder.
- Accuracy is read at the end of training, with the running averages of batch norm, as the code evaluates. The running
  averages take up every ghost batch in turn.
- Regime adaptation counts budget and boundaries in the small batch's updates, to the update.
"""

from lbgap.papers.hoffer import choices, distances, ladder, questions
from lbgap.papers.hoffer.claims import claims_on
from lbgap.papers.hoffer.recipes import FACTS, PaperSettings, recipes_of
from lbgap.papers.paper import Study

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    recipes = recipes_of(settings)
    own = settings.demonstration  # published values belong to the paper's settings
    shown, drawn = (
        [ladder.table(name, recipes) for name in FACTS["tables"]],
        [ladder.figure(recipes, own), ladder.curves(recipes)],
    )
    if own:
        shown = [table for table in shown if any(cell.quantity for cell in table.cells)]
        only = ("H1", "H2", "H3", "H4")
        reference = (next(iter(recipes.values())).train("LB", 0),) if settings.profile == "quick" else ()
        return Study("hoffer", settings.profile, tuple(shown), tuple(drawn), claims_on(recipes, {}, only), reference=reference)
    # the distances are the paper's on ResNet44; in ``cpu`` the cheapest network bears them and what varies the protocol
    walker = "F1" if settings.profile == "cpu" else "ResNet44"
    walkers = {n: s for n, s in recipes.items() if n == walker}
    for n, s in walkers.items():
        shown += [distances.table(n, s), distances.beginnings(n, s), distances.longer(n, s)]
        drawn += [distances.figure(n, s), distances.layers(n, s), distances.plateau(n, s)]
    f1 = [s for n, s in recipes.items() if n == "F1"]
    shown += [ladder.fitted(recipes), choices.released(recipes), *map(choices.other_batch, f1), *map(choices.search, f1)]
    asked = questions.questions_on(recipes) if settings.profile == "cpu" else ()
    if asked:
        confounded = {n: s for n, s in recipes.items() if n in ("F1", "C1")}
        shown += [questions.images(confounded), questions.momentum({n: s for n, s in confounded.items() if n == "C1"})]
    return Study("hoffer", settings.profile, tuple(shown), tuple(drawn), claims_on(recipes, walkers), asked)
