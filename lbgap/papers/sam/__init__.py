"""Can SAM rescue large batches? The University of Vienna report, which found that it cannot, and Foret et al. 2021.

Readings chosen, and fixed before any record of the seeds that are judged:

- The report names neither data, rates, epochs, rho nor seeds: every claim of it has scope ``reading``. Data are MNIST, and in
  ``paper`` CIFAR-10 too; SGD has momentum 0.9, Adam Keras' default rate; rho is 0.05, the default of the
  code that the report used.
- "One setting for all": one rate and rho for every batch, as a report that searches nothing has. Beside it, rates and rho
  tuned at each batch size by :mod:`lbgap.papers.sam.search`, on MNIST and for SGD alone.
- Equal epochs, so that a larger batch makes fewer updates.
- Inference mode: both passes of the SAM step with dropout off and batch norm on its running averages.
- In ``cpu`` each seed draws training and held-out images of its own, and training is in bfloat16, which a table compares with
  float32.
"""

from lbgap.papers.paper import Study, claims
from lbgap.papers.sam import cause, compute, foret, grid, search
from lbgap.papers.sam.notes import NOTES, REASONS
from lbgap.papers.sam.recipes import FACTS, RHO, PaperSettings, recipes_of

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    recipes, sizes, rho = recipes_of(settings), settings.sizes, RHO if settings.rho is None else settings.rho
    arms = grid.optimizers(recipes, settings.optimizer, settings.learning_rate)
    drawn = grid.figures(arms, sizes, rho)
    rules = [*grid.rules(arms, sizes, rho), *grid.time_rules(arms, sizes, rho)]
    if settings.demonstration:  # the tuned settings belong to the profile's own sizes
        shown = [grid.table(arms, sizes, rho), grid.parts_table(arms, sizes, rho, settings.m)]
        rules = [(claim, case) for claim, case in rules if not case.reading and claim != "V5"]
        asked = {claim for claim, _ in rules}
        only = tuple(claim for claim in FACTS["claims"] if claim in asked)
        reference = () if settings.own or settings.profile != "quick" else grid.reference(recipes["digits"])
        of = claims(FACTS["claims"], rules, only, notes=NOTES)
        return Study("sam", settings.profile, tuple(shown), tuple(drawn), of, reference=reference)
    searched = {n: s for n, s in recipes.items() if n == search.SEARCHED}
    shown = [grid.table(arms, sizes, rho), grid.time_table(arms, sizes, rho), compute.table(searched)]
    shown += [cause.table(searched, rho), cause.sharpness_table(searched), foret.noise_table(searched)]
    if settings.profile == "cpu":
        shown.append(cause.precision_table(searched))
    shown += [foret.radius_table(searched), search.table(searched), *foret.tables(settings.profile == "paper")]
    drawn.append(compute.figure(searched))
    rules += [*compute.rules(searched), *cause.rules(searched, rho), *cause.sharpness_rules(searched), *foret.rules(searched)]
    if settings.profile == "paper":
        rules += foret.own_rules()
    return Study(
        "sam",
        settings.profile,
        tuple(shown),
        tuple(drawn),
        claims(FACTS["claims"], rules, reasons=REASONS, notes=NOTES),
        claims(FACTS["questions"], rules),
    )
