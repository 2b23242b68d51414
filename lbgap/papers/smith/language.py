"""Is the language model a sane one? Its perplexity beside what frequencies of words give, and what others report.

Zaremba et al. 2014 train two layers of 200 units on batches of 20 streams, at a rate of 1 for four epochs, halved after each of
nine more, with gradients clipped to a norm of 5. Their loss is summed over the 20 words of a segment, where ours is the mean.
"""

from lbgap.papers.paper import Quantity, Table, dig
from lbgap.papers.recipe import published_cells
from lbgap.papers.smith.curves import Networks
from lbgap.papers.smith.setups import FACTS, Setup
from lbgap.sources import SEGMENT
from lbgap.spec import DataSpec, Measure, OptimizerSpec, Phase, Train

SMALL = "LSTM 2 x 200"  # the row of the published table
STREAMS, HELD, EPOCHS = 20, 4, 13
RATE, BOUND = 1.0 * SEGMENT, 5.0 / SEGMENT  # of the mean over a segment's words
SEEDS = 1  # a check that the network is sane; no claim hangs on it
TEXTS = {"cpu": DataSpec(name="wikitext2.valid", n_test=20_000), "paper": DataSpec(name="ptb")}  # by profile


def small(data: DataSpec) -> Setup:
    """The network of Zaremba et al., without a sweep."""
    return Setup("smith.LSTM", data, (STREAMS,), EPOCHS, grids={}, small=(STREAMS,), large=(STREAMS,), network=SMALL)


def zaremba(data: DataSpec, seed: int) -> Train:
    """One run of it on their schedule, in bfloat16."""
    of = small(data)
    per_epoch = of.data.updates_per_epoch(STREAMS)
    return Train(
        data=data,
        model=of.model,
        optimizer=OptimizerSpec(name="sgd", learning_rate=RATE, clip_norm=BOUND),
        batch_size=STREAMS,
        updates=EPOCHS * per_epoch,
        seed=seed,
        precision="bfloat16",
        evaluate_every=EPOCHS,
        curve_reading="running",
        phases=tuple(Phase(update=e * per_epoch, learning_rate=RATE / 2 ** (e - HELD + 1)) for e in range(HELD, EPOCHS)),
    )


def perplexities(networks: Networks, text: DataSpec | None) -> Table | None:
    """Test perplexity of a profile's language models at their best rates, of Zaremba et al.'s on a ``text``; None without."""
    texts = {n: of for n, of in networks.items() if of.setup.data.is_text}
    if not texts:
        return None
    cells = []
    for n, of in texts.items():
        s, sweep = of.setup, of.epochs["momentum"]
        for b in (s.batches[0], s.batches[-1]):
            run = next(iter(sweep[b].runs.values()))[0]
            columns = {"test": sweep[b].metric("test", s.chooses), "frequencies alone": frequencies(run)}
            cells += s.cells(f"{n}, batch {b}", columns)
    if text is not None:
        s, runs = small(text), [zaremba(text, seed) for seed in range(SEEDS)]
        test = Quantity(tuple((run,) for run in runs), dig("final.test.running.perplexity"))
        cells.append(s.cell(SMALL, "test", test, published_cells(FACTS, "perplexity")[SMALL, "test"]))
        cells.append(s.cell(SMALL, "frequencies alone", frequencies(runs[0])))
    return Table("perplexity", FACTS["tables"]["perplexity"]["title"], "perplexity", tuple(cells), digits=1)


def frequencies(run: Train) -> Quantity:
    """Perplexity of a run's test text under the frequencies of the words it is trained on, the same for every seed."""
    return Quantity(((Measure(kind="unigram", of=(run.at(),)),),), dig("perplexity"), pooled=True)
