"""Tasks: losses and metrics against NumPy, batches of text against the text itself, training that lowers each loss."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax
from torch import nn

from lbgap import data, models, train
from lbgap.evaluate import loss_and_metric
from lbgap.measure import mean_loss
from lbgap.sources import SEGMENT, SOURCES, Source, register
from lbgap.spec import DataSpec, OptimizerSpec, Train
from lbgap.tasks import TASKS, task_of

TEXT = DataSpec(name="topics", n_train=3000, n_test=900)


def test_every_data_set_has_a_task():
    assert {source.task for source in SOURCES.values()} <= set(TASKS)
    assert task_of("mnist").metric == "accuracy" and task_of("wikitext2").metric == "perplexity"


def test_losses_and_metrics_are_those_written_out(rng):
    n, k = 7, 5
    outputs, pixels, real = rng.normal(size=(n, k)), rng.uniform(size=(n, k)), rng.normal(size=(n, k))
    labels = rng.integers(k, size=n)
    cross = -log_softmax(outputs, axis=1)[np.arange(n), labels]
    binary = -(pixels * np.log(expit(outputs)) + (1 - pixels) * np.log(1 - expit(outputs))).sum(1)
    expected = {
        "classify": (labels, cross.mean(), 100 * (outputs.argmax(1) == labels).mean()),
        "regress": (real, ((outputs - real) ** 2).mean(), ((outputs - real) ** 2).mean()),
        "reconstruct": (pixels, binary.mean(), ((expit(outputs) - pixels) ** 2).sum(1).mean()),
    }
    for name, (targets, loss, metric) in expected.items():
        task, out, target = TASKS[name], torch.tensor(outputs), torch.tensor(targets)
        assert float(task.loss(out, target)) == pytest.approx(loss)
        assert float(task.loss(out, target, reduction="sum")) == pytest.approx(n * loss)
        assert task.metric_of(loss, float(task.score(out, target)) / task.count(target)) == pytest.approx(metric)
    tokens = outputs.reshape(1, n, k), labels.reshape(1, n)
    loss = float(TASKS["predict_next"].loss(*map(torch.tensor, tokens)))
    assert loss == pytest.approx(cross.mean())
    assert TASKS["predict_next"].metric_of(loss, 0.0) == pytest.approx(math.exp(cross.mean()))


def test_a_whole_set_is_read_alike_in_chunks_of_any_size():
    digits = data.load("digits.inputs", 100, 70).test
    torch.manual_seed(0)
    model = models.build("smith.autoencoder", (1, 8, 8), 64, widths="20-5")
    found = [loss_and_metric(model, digits.x, digits.y, chunk=c, task=task_of("digits.inputs")) for c in (70, 9)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    terms = mean_loss(task_of("digits.inputs"), digits.x, digits.y, chunk=9)(model)
    assert float(sum(term.detach() for term in terms)) == pytest.approx(found[0][0], rel=1e-6)


# ---------------------------------------------------------------- text


def test_the_segments_of_an_epoch_are_the_text_in_streams_and_its_next_words():
    text, task, streams = data.load("topics", 3000, 900).train, task_of("topics"), 7
    items = task.epoch(text, streams, torch.Generator())
    length = 3000 // streams
    whole = text.x[: streams * length].view(streams, length)
    batches = [task.batch(text, item, streams) for item in items]
    assert torch.equal(torch.cat([x for x, _ in batches], 1), whole[:, :-1])
    assert torch.equal(torch.cat([y for _, y in batches], 1), whole[:, 1:])
    assert [x.shape[1] for x, _ in batches[:-1]] == [SEGMENT] * (len(items) - 1)


@pytest.mark.parametrize("streams", [1, 7, 10, 143, 1500])
def test_a_specification_knows_how_many_segments_there_are(streams):
    run = language_model(streams)
    text = train.load_data(run).train
    assert run.updates_per_epoch == len(task_of("topics").epoch(text, streams, torch.Generator()))


def language_model(streams: int = 10, epochs: int = 1, **changes) -> Train:
    """A small LSTM on 3,000 words."""
    values = {
        "data": TEXT,
        "model": "smith.LSTM",
        "options": {"width": 16, "depth": 1},
        "optimizer": OptimizerSpec(name="sgd", learning_rate=2.0, clip_norm=5.0),
        "batch_size": streams,
        "updates": 1,
        "seed": 0,
    }
    run = Train(**values | changes)
    return run.model_copy(update={"updates": epochs * run.updates_per_epoch})


class Carrying(nn.Module):
    """Counts the words of a stream since its beginning, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2000))
        self.began, self.counts = [], []

    def forward(self, x, carry=None):
        self.began.append(carry is None)
        count = torch.tensor(x.shape[1]) if carry is None else carry + x.shape[1]
        self.counts.append(int(count))
        return self.weight.expand(*x.shape, -1), count


def test_the_state_carries_over_within_an_epoch_and_an_evaluation(monkeypatch):
    built = []
    monkeypatch.setattr(models, "build", lambda *_, **__: built.append(Carrying()) or built[-1])
    run = language_model(10, epochs=2)
    train.fit(run, stop_after=run.updates)
    per_epoch = run.updates_per_epoch
    assert built[0].began == 2 * [True, *[False] * (per_epoch - 1)]
    assert built[0].counts[per_epoch - 1] == 3000 // 10 - 1
    model = Carrying()
    loss, perplexity = loss_and_metric(model, *[data.load("topics", 3000, 900).test.x] * 2, task=task_of("topics"))
    assert model.began.count(True) == 1 and model.counts[-1] == 900 // 20 - 1  # as every record was read
    assert perplexity == pytest.approx(2000, rel=1e-5)  # all words alike


def test_gradients_stop_at_the_border_of_a_segment():
    torch.manual_seed(0)
    model, task = models.build("smith.LSTM", (), 2000, width=4, depth=1), task_of("topics")
    _, carry = task.predict(model, torch.zeros(2, 5, dtype=torch.int64))
    assert not any(part.requires_grad for part in carry)


def test_words_are_numbered_by_frequency_and_rare_ones_are_one():
    text = data.load("topics")
    counts = torch.bincount(text.train.x, minlength=2000)
    assert int(text.train.x.max()) == 1999
    assert bool((counts[1:-1] >= counts[2:]).all())


def test_text_files_are_read_line_by_line(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "ptb"
    folder.mkdir(parents=True)
    (folder / "ptb.train.txt").write_text("b a b\n <unk> b\n\n")
    (folder / "ptb.test.txt").write_text("a new b\n")
    monkeypatch.setitem(SOURCES, "ptb", Source(8, 4, (), 4, "predict_next"))
    read = data.load("ptb")
    # b three times, <eos> three times (ties by spelling), <unk> is 0, a once
    number = {"<unk>": 0, "<eos>": 1, "b": 2, "a": 3}
    train_words = ["b", "a", "b", "<eos>", "<unk>", "b", "<eos>", "<eos>"]
    assert read.train.x.tolist() == [number[w] for w in train_words]
    assert read.test.x.tolist() == [3, 0, 2, 1]


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "run, floor",
    [
        # perplexity of the words' frequencies alone; the mean picture's squared error
        (language_model(10, epochs=5), "unigram"),
        (
            Train(
                data=DataSpec(name="digits.inputs", n_train=500, n_test=200),
                model="smith.autoencoder",
                options={"widths": "64-16"},
                optimizer=OptimizerSpec(name="adam", learning_rate=3e-3),
                batch_size=25,
                updates=600,
                seed=0,
            ),
            "mean picture",
        ),
    ],
)
def test_training_beats_what_needs_no_network(run, floor):
    result = train.fit(run)
    held = train.load_data(run)
    metric = task_of(run.data.name).metric
    found = result["final"]["test"]["running"][metric]
    if floor == "unigram":
        counts = torch.bincount(held.train.x, minlength=2000).double() + 1
        logs = (counts / counts.sum()).log()
        assert found < float((-logs[held.test.x]).mean().exp())
    else:
        assert found < 0.7 * float((held.test.x - held.train.x.mean(0)).square().sum() / len(held.test))
    assert result["curve"][f"test_{metric}"][-1] == pytest.approx(found)


def test_a_data_set_that_cannot_be_registered_is_refused():
    with pytest.raises(ValueError, match="^data is 'mnist', which is taken; accepted is a name beside digits"):
        register("mnist", Source(30, 9, (4,), 2, "regress", lambda: None))
    with pytest.raises(ValueError, match="^reader of data 'lines' is None; accepted is a function"):
        register("lines", Source(30, 9, (4,), 2, "regress"))


def test_a_squared_error_stretches_no_target(rng):
    """Outputs (n, 1) and targets (n,) would be compared all with all."""
    x, y = torch.randn(6, 4), torch.randn(6)
    with pytest.raises(ValueError, match=r"^targets have shape \(6,\); accepted is that of the outputs, \(6, 1\)$"):
        list(mean_loss(TASKS["regress"], x, y)(nn.Linear(4, 1)))
