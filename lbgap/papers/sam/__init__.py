"""Can SAM rescue large batches? The University of Vienna report, which found that it cannot, and Foret et al. 2021.

Readings chosen, and fixed before any record of the seeds that are judged:

- The report names neither data, rates, epochs, rho nor seeds: every claim of it has scope ``reading``. Data are MNIST and
  CIFAR-10; SGD has momentum 0.9, Adam Keras' default rate; rho is 0.05, the default of the code that the report used.
- Foret et al.'s claims have it too where they are judged on the report's network, whose protocol is another than theirs.
- "One setting for all": one rate and rho for every batch, as a report that searches nothing has. Beside it, rates and rho
  tuned at each batch size by :mod:`lbgap.papers.sam.search`, for SGD on both, for Adam on MNIST.
- Equal epochs, so that a larger batch makes fewer updates.
- Inference mode: both passes of the SAM step with dropout off and batch norm on its running averages.
- In ``cpu`` each seed draws training and held-out images of its own, and training is in bfloat16, which a table compares with
  float32.
"""

from dataclasses import replace

from lbgap.papers.paper import Study, claims, own_questions
from lbgap.papers.sam import cause, compute, foret, grid, search
from lbgap.papers.sam.notes import NOTES, REASONS
from lbgap.papers.sam.recipes import FACTS, RHO, PaperSettings, recipes_of

PROFILES = ("quick", "cpu", "paper")
CLOSER = "MNIST"  # on which the cause is looked for, and what Foret et al. claim beyond equal compute


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    recipes, rho = recipes_of(settings), RHO if settings.rho is None else settings.rho
    places = grid.places(recipes, settings.sizes, settings.optimizer, settings.learning_rate, settings.demonstration)
    drawn = grid.figures(places, rho)
    rules = [*grid.rules(places, rho), *grid.time_rules(places, rho)]
    if settings.demonstration:  # the tuned settings belong to the profile's own sizes
        shown = [grid.table(places, rho), grid.parts_table(places, rho, settings.m)]
        rules = [(claim, case) for claim, case in rules if not case.reading and claim != "V5"]
        asked = {claim for claim, _ in rules}
        only = tuple(claim for claim in FACTS["claims"] if claim in asked)
        reference = () if settings.own or settings.profile != "quick" else grid.reference(recipes["digits"])
        of = claims(FACTS["claims"], rules, only, notes=NOTES)
        return Study("sam", settings.profile, tuple(shown), tuple(drawn), of, reference=reference)
    arms = {place: of.recipe for place, of in places.items()}
    tuned = search.searched(arms)
    searched = {n: s for (n, optimizer), s in tuned.items() if optimizer == "SGD"}
    closer = {n: s for n, s in searched.items() if n == CLOSER}
    wider = {n: s for n, s in recipes.items() if n != CLOSER}
    shown = [grid.table(places, rho), cause.grid_table(wider, rho), grid.time_table(places, rho)]
    shown += [compute.table(searched), compute.tuned_table(tuned), search.table(tuned)]
    shown += [cause.table(closer, rho), cause.sharpness_table(closer), foret.noise_table(closer), foret.radius_table(closer)]
    if settings.profile == "cpu":
        shown.append(cause.precision_table(closer))
    own = settings.profile == "paper"
    shown += [*foret.tables(own), foret.spectrum_table(own)]
    drawn.append(compute.figure(searched))
    rules += [*compute.rules(searched), *compute.tuned_rules(tuned)]
    rules += cause.spectrum_rules({n: s for n, s in searched.items() if n in wider})
    rules += [*cause.rules(closer, rho), *cause.sharpness_rules(closer), *foret.rules(closer)]
    # Foret et al.'s claims on the report's network, without decay of weights or rate and without augmentation
    rules = [(claim, replace(case, scope="reading") if claim[0] == "A" else case) for claim, case in rules]
    if own:
        rules += foret.own_rules()
    return Study(
        "sam",
        settings.profile,
        tuple(shown),
        tuple(drawn),
        claims(FACTS["claims"], rules, reasons=REASONS, notes=NOTES),
        own_questions(FACTS["questions"], rules),
    )
