"""Smith, Elsen & De 2020: two regimes of SGD, and whether the gradient's noise scale predicts where they part.

Readings chosen, and fixed before any record was made:

- The rate is held for half of the budget and halved after every further twentieth, for any batch and budget.
- Grids are powers of two of the effective rate, epsilon / (1 - m); that of plain SGD is its rate.
- The rate is chosen by the mean over seeds on held-out examples, where there are some, and on the test set, as the authors did.
- A seed's best rate is the vertex of a parabola, in the logarithm of the error, through the best rate of the grid and its
  neighbours. Rules read the seeds' own by Student's t; the tables have the bootstrap's interval over seeds beside it.
- "In proportion, then flat" is fitted to the logarithms; the bend is where the two lines meet.
- Weights are read at the end of training, with running averages of batch norm; ghost batches have 64 examples.
"""

from lbgap.papers.paper import Study
from lbgap.papers.smith import figures, language, noise, tables
from lbgap.papers.smith.claims import claims_on, questions_on
from lbgap.papers.smith.curves import Sweeps
from lbgap.papers.smith.setups import LEAST_UPDATES, PaperSettings, setups_of

PROFILES = ("quick", "cpu", "paper")


def study(settings: PaperSettings) -> Study:
    """Everything a profile computes and shows."""
    networks = {n: Sweeps(s) for n, s in setups_of(settings).items()}
    setups = [sweeps.setup for sweeps in networks.values()]
    judged = settings.profile == "cpu" and not settings.own
    shown = [tables.epochs(networks), tables.rates(networks), tables.bends(networks), noise.table(networks)]
    drawn = [figures.accuracies(networks), figures.best_rates(networks), figures.losses(networks), figures.heat(networks)]
    drawn.append(noise.figure(networks))
    if any(s.steps for s in setups):
        shown.append(tables.steps(networks))
        drawn.append(figures.steps(networks))
        if single := {n: of for n, of in networks.items() if of.setup.further and of.setup.steps}:
            shown.append(tables.steps_by_rate(single))
    if any(s.budgets for s in setups):
        shown.append(tables.budgets(networks))
        drawn.append(figures.budgets(networks))
    if any(s.chooses != "test" for s in setups):
        shown.append(tables.choices(networks))
    drawn += figures.equal(networks)
    text = None if settings.own else language.TEXTS.get(settings.profile)
    if (perplexities := language.perplexities(networks, text)) is not None:
        shown.append(perplexities)
    if settings.profile == "quick":
        of = setups[0]
        run = of.train(of.small[-1], -1.0, of.momentum, max(LEAST_UPDATES, of.data.updates_per_epoch(of.small[-1])), 0)
        only = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9")
        return Study("smith", "quick", tuple(shown), tuple(drawn), claims_on(networks, only), reference=(run,))
    questions = questions_on(networks) if judged else ()
    return Study("smith", settings.profile, tuple(shown), tuple(drawn), claims_on(networks), questions)
