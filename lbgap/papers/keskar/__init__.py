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

from lbgap.papers.keskar import both_treated, data_size, equal_updates, figures, fresh_seeds, subspace_scale, tables, tuned
from lbgap.papers.keskar.claims import claims_on
from lbgap.papers.keskar.setups import FACTS, PaperSettings, Setups, along_setups, setups_of, treated_setups
from lbgap.papers.paper import Claim, Figure, Study, Table, claims

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    setups = setups_of(settings)
    shown, drawn = [tables.accuracies(setups)], [figures.curves(setups), figures.distance(setups)]
    if settings.profile == "quick":
        of, run = setups["F1"], setups["F1"].train("LB", 0)
        return Study(
            "keskar",
            "quick",
            (*shown, *tables.sharpnesses(setups, ("batch",))),
            tuple(drawn),
            claims_on(setups, only=("K1", "K4", "K5", "K9")),
            reference=(run, of.sharpness(run)),
        )
    shown += [*tables.sharpnesses(setups, ("batch", "running")), tables.peaks(setups), tables.directions(setups)]
    drawn.append(figures.paths(setups))
    if settings.own:  # another batch, rate or budget: what the paper varies further does not apply
        return Study("keskar", settings.profile, tuple(shown), tuple(drawn), claims_on(setups))
    along, treated = along_setups(settings, setups), treated_setups(settings, setups)
    shown += [tables.gaps(setups, treated), tables.augmented(treated), tables.conservative(treated), tables.treated(treated)]
    if "F1" in setups:
        shown += [tables.ruler(setups["F1"]), tables.robust(setups["F1"]), tables.variants((setups | along)["F1"])]
    drawn += [figures.batch_sweep(along), figures.along(along), figures.warm_start(along)]
    if settings.profile == "cpu":  # a panel of several networks is drawn from one profile: from that which has them all
        drawn.append(figures.gap_and_sharpness(setups, along, treated))
    more, further, questions = _beyond(setups, along) if settings.profile == "cpu" else ((), (), ())
    return Study("keskar", settings.profile, (*shown, *more), (*drawn, *further), claims_on(setups, along, treated), questions)


def _beyond(setups: Setups, along: Setups) -> tuple[tuple[Table, ...], tuple[Figure, ...], tuple[Claim, ...]]:
    """What we ask beyond the paper, of the networks that are chosen."""
    shown, drawn, rules = [], [], []
    if "F1" in setups:
        shown += [both_treated.table(along["F1"]), equal_updates.table(along["F1"])]
        rules += [*both_treated.rules(along["F1"]), *equal_updates.rules(along["F1"]), *fresh_seeds.rules(along["F1"])]
    if "C1" in setups:
        shown += [data_size.precision_table(setups), data_size.table(), tuned.table()]
        drawn.append(data_size.figure())
        rules += [*data_size.precision_rules(setups), *data_size.rules(), *tuned.rules()]
    shown.append(subspace_scale.table(setups))
    rules += subspace_scale.rules(setups)
    return tuple(shown), tuple(drawn), claims(FACTS["questions"], rules)
