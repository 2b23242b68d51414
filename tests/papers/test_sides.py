"""On records in which a claim holds by construction its rule is replicated, and on the mirrored ones contradicted.

A rule whose two sides are exchanged, or that compares a number with itself, agrees with its committed verdict all the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from lbgap import papers
from lbgap.papers.keskar import subspace_scale
from lbgap.papers.paper import Case
from lbgap.records import Record
from lbgap.spec import Job, Measure, Train
from lbgap.verdicts import judge_case


@dataclass
class Imagined:
    """A store that has a record of every job, made up by ``results``; seeds differ a little."""

    results: Callable[[Job], dict]

    def get(self, job: Job) -> Record:
        return Record(job, {"diverged": False} | self.results(job), {})


def case(paper: str, label: str, networks: list[str]) -> Case:
    """The one case of profile cpu that bears a label."""
    study = papers.get(paper).study(papers.settings(paper, profile="cpu", networks=networks))
    (found,) = (c for claim in (*study.claims, *study.questions) for c in claim.cases if c.label == label)
    return found


def seed_of(job: Job) -> int:
    return (job.run if isinstance(job, Measure) else job).seed


def walk(reach: Callable[[Train], float]) -> Callable[[Job], dict]:
    """Records of a distance that grows like a logarithm."""
    updates = [1, 3, 10, 30, 100]

    def results(run: Train) -> dict:
        size = reach(run) * (1 + 0.001 * run.seed)
        return {"distance": {"update": updates, "value": [size * (1 + math.log(u)) for u in updates]}}

    return results


def sharpness(value: Callable[[int, int], float]) -> Callable[[Job], dict]:
    """Records of a sharpness by batch size and epoch."""
    return lambda job: {"value": value(job.run.batch_size, job.of[0].epoch) * (1 + 0.01 * seed_of(job))}


def swept(law: Callable[[float], float], loss: Callable[[int], float] = lambda b: 1.0) -> Callable[[Job], dict]:
    """Records of runs whose error is least at the effective rate that a law of the logarithm of the batch gives."""

    def results(run: Train) -> dict:
        of = run.optimizer
        rate = math.log2(of.learning_rate / (1 - of.momentum))
        best = law(math.log2(run.batch_size)) + 0.02 * math.sin(run.batch_size + 7 * run.seed)
        error = 5 * math.exp(0.05 * (rate - best) ** 2)
        read = {"running": {"accuracy": 100 - error, "loss": loss(run.batch_size) * (1 + 0.01 * run.seed)}}
        return {"final": dict.fromkeys(("train", "test", "validation"), read)}

    return results


def curve(large: Callable[[int], float]) -> Callable[[Job], dict]:
    """Records of training accuracies, 60% for a small batch and as far from that as told, by epoch, for a large one."""

    def results(run: Train) -> dict:
        off = large if run.batch_size > 64 else lambda epoch: 0.0
        return {"curve": {"train_accuracy": [60 + off(e) + 0.01 * run.seed for e in range(run.epochs)]}}

    return results


HOLDS, FALLS = "replicated", "contradicted"
BEND, TOP = 7.0, 1.0  # octaves: within the grid of rates


@pytest.mark.parametrize(
    ("paper", "label", "network", "holds", "mirrored"),
    [
        (
            "hoffer",
            "F1, batch 2048: largest difference from SB's distance at equal updates, percent",
            "F1",
            walk(lambda run: 1.0),
            walk(lambda run: 1.5 if run.batch_size > 128 else 1.0),
        ),
        (
            "hoffer",
            "F1: distance at the end, the next smaller batch - batch 2048",
            "F1",
            walk(lambda run: 1 / run.batch_size),
            walk(lambda run: run.batch_size),
        ),
        (
            "keskar",
            "F1: LB / SB, last epoch against first",
            "F1",
            sharpness(lambda batch, epoch: epoch**2 if batch > 100 else 1.0),
            sharpness(lambda batch, epoch: 1.0 if batch > 100 else epoch**2),
        ),
        (
            "smith",
            "F1, momentum: residual of the gradual law - of the corner",
            "F1",
            swept(lambda x: TOP + min(x - BEND, 0.0)),
            swept(lambda x: TOP - math.log2(1 + 2 ** (BEND - x))),
        ),
        (
            "smith",
            "F1: training loss, batch 128 / batch 2048",
            "F1",
            swept(lambda x: TOP, lambda batch: 1 / batch),
            swept(lambda x: TOP, lambda batch: batch),
        ),
        (
            "goyal",
            "ResNet-8: mean distance of the training errors after epoch 4, large and reference batch",
            "ResNet-8",
            curve(lambda epoch: 0.0),
            curve(lambda epoch: 5.0 * (-1) ** epoch),  # as often above as below
        ),
    ],
)
def test_a_rule_tells_records_in_which_it_holds_from_the_mirrored_ones(paper, label, network, holds, mirrored):
    rule = case(paper, label, [network])
    assert judge_case(rule, Imagined(holds)).verdict == HOLDS
    assert judge_case(rule, Imagined(mirrored)).verdict == FALLS


def test_the_scale_of_a_subspace_is_chosen_without_the_seed_that_is_judged():
    """Seed 0 alone would draw the choice to another scale: its own SB is far from the published one there."""
    rule = case("keskar", "F1: sharpness at the scale calibrated on SB, LB / SB", ["F1"])
    target = subspace_scale.published("F1")["SB"]
    first, second, _ = subspace_scale.SCALES

    def results(job: Measure) -> dict:
        scale, seed = job.arguments["subspace_scale"], seed_of(job)
        if job.run.batch_size > 1000:
            return {"value": {first: 10.0, second: 20.0}.get(scale, 30.0) * target}
        # the others are nearer at the second scale, all together at the first
        off = {first: -2.0 if seed == 0 else 0.5, second: 2.0 if seed == 0 else 0.3}.get(scale, 9.0)
        return {"value": target * math.exp(off)}

    store = Imagined(results)
    numbers = [rule.a.value(*(store.get(job).readable for job in jobs)) for jobs in rule.a.jobs]
    assert numbers[0] == pytest.approx(20 / math.exp(2.0))
    assert np.isfinite(numbers).all()
