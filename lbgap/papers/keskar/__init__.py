"""Keskar et al. 2017: small and large batches at equal epochs and rate, and how sharp the minima are that they find.

Readings chosen, and fixed before any record was made:

- Adam 1e-3 for both batch sizes (the released code names "adam" without a rate; the library default of the time).
- Batch norm is read with the statistics of each batch of 5000 at test time, the authors' Keras mode 2; running statistics
  are measured beside it. Sharpness: L-BFGS-B, 10 iterations, zero tolerances, objective scaled ("auto").
- SB and LB of one seed start from the same weights, as in the released plotting script.
- 100 epochs (Figs 4 and 5); the paper gives no budget for its tables, the released
  script has 20 (its PyTorch version 150); 20 is measured in ``ruler``.
- K13 and K14 come without numbers or settings. The strengths in ``ROBUST`` and the changes in ``VARIANTS`` were chosen when
  the plain runs of F1 were on record, and before any run with them: K13 on all of MNIST, where there is a gap to close, K14
  on sharpness, because on 6,000 images there is none.
"""

from lbgap.papers.keskar import (
    both_treated,
    data_size,
    equal_updates,
    figures,
    fresh_seeds,
    own_order,
    own_rate,
    subspace_scale,
    tables,
    tuned,
)
from lbgap.papers.keskar.claims import claims_on
from lbgap.papers.keskar.recipes import FACTS, PaperSettings, Recipes, along_recipes, recipes_of, treated_recipes
from lbgap.papers.paper import Claim, Figure, Study, Table, own_questions

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    recipes = recipes_of(settings)
    shown, drawn = [tables.accuracies(recipes)], [figures.curves(recipes), figures.distance(recipes)]
    if settings.profile == "quick":
        of, run = recipes["F1"], recipes["F1"].train("LB", 0)
        return Study(
            "keskar",
            "quick",
            (*shown, *tables.sharpnesses(recipes)),
            tuple(drawn),
            claims_on(recipes, only=("K1", "K4", "K5", "K9")),
            reference=(run, of.sharpness(run)),
        )
    sized = data_size.with_the_papers(recipes) if settings.profile == "cpu" and not settings.own else list(recipes.values())
    shown += [*tables.sharpnesses(recipes, ("running",)), tables.peaks(sized), tables.directions(recipes)]
    drawn.append(figures.paths(recipes))
    if settings.own:  # another batch, rate or budget: what the paper varies further does not apply
        return Study("keskar", settings.profile, tuple(shown), tuple(drawn), claims_on(recipes))
    along, treated = along_recipes(settings, recipes), treated_recipes(settings, recipes)
    shown += [tables.gaps(sized, treated), tables.augmented(treated), tables.conservative(treated), tables.treated(treated)]
    if "F1" in recipes:
        shown += [tables.ruler(recipes["F1"]), tables.robust(recipes["F1"]), tables.variants((recipes | along)["F1"])]
    drawn += [figures.batch_sweep(along), figures.along(along), figures.warm_start(along)]
    if settings.profile == "cpu":  # a panel of several networks is drawn from one profile: from that which has them all
        drawn.append(figures.gap_and_sharpness(recipes, along, treated))
    more, further, questions = _beyond(recipes, along) if settings.profile == "cpu" else ((), (), ())
    return Study("keskar", settings.profile, (*shown, *more), (*drawn, *further), claims_on(recipes, along, treated), questions)


def _beyond(recipes: Recipes, along: Recipes) -> tuple[tuple[Table, ...], tuple[Figure, ...], tuple[Claim, ...]]:
    """What we ask beyond the paper, of the networks that are chosen."""
    shown, drawn, rules = [], [], []
    if "F1" in recipes:
        shown += [m.table(along["F1"]) for m in (both_treated, equal_updates, fresh_seeds)] + [own_order.table(recipes["F1"])]
        rules += [rule for m in (both_treated, equal_updates, fresh_seeds) for rule in m.rules(along["F1"])]
        rules += own_order.rules(recipes["F1"])
    if "C1" in recipes:
        shown += [data_size.precision_table(recipes), data_size.table(), tuned.table()]
        drawn.append(data_size.figure())
        rules += [*data_size.precision_rules(recipes), *data_size.rules(), *tuned.rules()]
    tuned_large = own_rate.searched(recipes, along)
    shown += [own_rate.table(tuned_large), subspace_scale.table(recipes)]
    rules += [*own_rate.rules(tuned_large), *subspace_scale.rules(recipes)]
    return tuple(shown), tuple(drawn), own_questions(FACTS["questions"], rules)
