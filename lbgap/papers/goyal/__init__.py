"""Goyal et al. 2017: linear scaling of the rate and gradual warmup, and what one loses without them.

Readings chosen, and fixed before any record was made:

- The reference batch ("SB") is the paper's 256, the large one ("LB") its 8192, the largest at which its error stays. In
  profile ``cpu`` they are 64 and 256, settled on a seed that is not used.
- A warmup begins at the reference rate, whatever factor the rate is tried at; batches up to the reference have none.
- Budgets are of equal epochs; the rate drops at 30, 60 and 80 of 90 of the updates.
- A run's error is the median of its last five epochs, with batch norm's running averages, which are the first worker's.
- Training error is that of the augmented images as they came, as in the paper's curves.
- The final layer's shift begins at 0; its weights from N(0, 0.01²).
"""

from lbgap.papers.goyal import figures, pitfalls, tables, tuned
from lbgap.papers.goyal.claims import claims_on
from lbgap.papers.goyal.recipes import FACTS, PaperSettings, recipes_of
from lbgap.papers.paper import Study, own_questions

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    recipes = recipes_of(settings)
    s, *others = recipes.values()
    if settings.profile == "quick":
        return Study(
            "goyal",
            "quick",
            (tables.warmups(s),),
            (figures.warmups(s),),
            claims_on(s, only=("G3", "G4")),
            reference=(s.changed(epochs=1, warmup_epochs=1.0).train("LB", 0),),
        )
    deeper = next((other for other in others if other.data == s.data), None)
    shown = [
        tables.warmups(s),
        tables.warmup_costs(s),
        tables.rates(s),
        tables.gammas(s),
        tables.deeper(deeper),
        tables.sweep(s),
        tables.hours(),
    ]
    shown += [pitfalls.table(s), *(tables.sweep(other, "cifar") for other in others if other.data != s.data)]
    for of in [of for of in recipes.values() if of.data.n_validation][:1]:  # where images are held out to choose a rate on
        shown += [tuned.table(of), tuned.grid(of)]
    drawn = (figures.sweep(s), figures.warmups(s), figures.sensitivity(s), figures.matching(s))
    rules = (*tuned.rules(s), *pitfalls.rules(s)) if settings.profile == "cpu" and not settings.own else ()
    asked = own_questions(FACTS["questions"], rules) if rules else ()
    return Study("goyal", settings.profile, tuple(shown), drawn, claims_on(s), asked)
