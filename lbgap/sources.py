"""What is known of a data set before it is read: its sizes, its task, and where its files are looked for.

Nothing here needs torch, so that a specification can be made, and a sweep planned, without it. A paper in ``LBGAP_PAPERS`` may
:func:`register` a data set of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lbgap import paths
from lbgap.values import same_code

TaskName = Literal["classify", "regress", "reconstruct", "predict_next"]


class Metric(NamedTuple):
    """What says how well a network does a task: the name it has in records, its unit, its direction."""

    name: str
    unit: str
    higher_is_better: bool


METRICS: dict[TaskName, Metric] = {
    "classify": Metric("accuracy", "percent", True),
    "regress": Metric("error", "mean squared error", False),
    "reconstruct": Metric("error", "squared error a picture", False),
    "predict_next": Metric("perplexity", "e to the loss a token", False),
}
Arrays = tuple[Any, Any, Any, Any]  # NumPy arrays: x, y of the training split, x, y of the test split


@dataclass(frozen=True)
class Source:
    """Sizes, the shape of one input, the number of outputs (classes, pixels, words), and the task of :mod:`lbgap.tasks`.

    The pictures of one that is ``on_disk`` stay there until they are needed. ``reader`` returns the arrays of both splits
    (:data:`Arrays`) of a data set that a paper brings along; inputs of 8 bits become numbers between 0 and 1, others stay.
    """

    n_train: int
    n_test: int
    shape: tuple[int, ...]
    n_classes: int
    task: TaskName = "classify"
    reader: Callable[[], Arrays] | None = None
    on_disk: bool = False


class DataMissing(FileNotFoundError):
    """The data set is not where it is looked for; the message says where, and how to get it."""


# Text is counted in tokens. ``X.inputs`` are the pictures of X as their own targets, ``X.half`` those at half the resolution.
SOURCES = {
    "digits": Source(1438, 359, (1, 8, 8), 10),
    "digits.inputs": Source(1438, 359, (1, 8, 8), 64, "reconstruct"),
    "mnist": Source(60_000, 10_000, (1, 28, 28), 10),
    "mnist.inputs": Source(60_000, 10_000, (1, 28, 28), 784, "reconstruct"),
    "cifar10": Source(50_000, 10_000, (3, 32, 32), 10),
    "cifar10.half": Source(50_000, 10_000, (3, 16, 16), 10),
    "cifar100": Source(50_000, 10_000, (3, 32, 32), 100),
    "timit": Source(721_329, 310_621, (360,), 1973),
    "imagenet": Source(1_281_167, 50_000, (3, 256, 256), 1000, on_disk=True),
    "topics": Source(80_000, 10_000, (), 2000, "predict_next"),
    "ptb": Source(929_589, 82_430, (), 10_000, "predict_next"),
    "wikitext2": Source(2_088_628, 245_569, (), 33_278, "predict_next"),
    # trained on the validation text, a tenth of the whole, and on its 10,000 most frequent words
    "wikitext2.valid": Source(217_646, 245_569, (), 10_000, "predict_next"),
}
SEGMENT = 20  # tokens of a segment of a text, as far as back-propagation through time reaches (Zaremba et al. 2014, small)
MNIST_FILES = [f"{name}-ubyte" for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")]
CIFAR_FILES = {  # folder, files of the training split, of the test split, name of the labels
    "cifar10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"], "labels"),
    "cifar100": ("cifar-100-python", ["train"], ["test"], "fine_labels"),
}
TEXT_FILES = {  # folder, file of the training split, of the test split
    "ptb": ("ptb", "ptb.train.txt", "ptb.test.txt"),
    "wikitext2": ("wikitext2", "train.txt", "test.txt"),
    "wikitext2.valid": ("wikitext2", "valid.txt", "test.txt"),
}


def register(name: str, source: Source) -> None:
    """Make a data set known under a name; its ``reader`` is called when it is loaded.

    Raises:
        ValueError: a name that another data set has, or no reader.
    """
    held = SOURCES.get(name, source)
    if replace(held, reader=source.reader) != source or not same_code(held.reader, source.reader):
        raise ValueError(f"data is '{name}', which is taken; accepted is a name beside {', '.join(SOURCES)}")
    if source.reader is None:
        raise ValueError(f"reader of data '{name}' is None; accepted is a function that returns x, y of both splits")
    SOURCES[name] = source


def lookup(name: str) -> Source:
    """The :class:`Source` of a data set; ValueError names the accepted ones."""
    if name not in SOURCES:
        raise ValueError(f"data is '{name}'; accepted are {', '.join(SOURCES)}")
    return SOURCES[name]


def metric_of(name: str) -> Metric:
    """The :class:`Metric` of a data set's task; ValueError names the data sets that are known."""
    return METRICS[lookup(name).task]


def locate(name: str) -> Path | None:
    """The file or folder a data set is read from (None: it needs none).

    Raises:
        DataMissing: it is not there; the sentence says where it was looked for and how to get it.
    """
    root, source = paths.data(), lookup(name)
    name = name.removesuffix(".inputs").removesuffix(".half")
    if name == "timit":
        if (root / "timit.npz").exists():
            return root / "timit.npz"
        raise DataMissing(
            f"data set 'timit' not found at {root / 'timit.npz'}; TIMIT is licensed, so bring your own features as "
            f"x_train ({source.n_train}, 360), y_train, x_test ({source.n_test}, 360), y_test in that file"
        )
    layouts = {"mnist": [(root / "MNIST" / "raw", MNIST_FILES)], "imagenet": [(root / "imagenet", ["train", "val"])]}
    layouts |= {
        cifar: [(root / folder, train + test), (root / cifar, ["train", "test"])]
        for cifar, (folder, train, test, _) in CIFAR_FILES.items()
    }
    layouts |= {text: [(root / folder, files)] for text, (folder, *files) in TEXT_FILES.items()}
    looked_at = layouts.get(name, [])
    for folder, parts in looked_at:
        if all((folder / part).exists() for part in parts):
            return folder
    if not looked_at:
        return None
    if name == "imagenet":
        get = "or bring your own copy as {train,val}/<class>/<picture> there, since ImageNet is not free to pass on"
    elif name in TEXT_FILES:
        get = f"or bring {' and '.join(TEXT_FILES[name][1:])} there, words separated by spaces"
    else:
        get = f"or run 'python -m lbgap data --fetch {name}'"
    raise DataMissing(
        f"data set '{name}' not found at {' or '.join(str(folder) for folder, _ in looked_at)}; set LBGAP_DATA to the folder "
        f"that holds it, {get}"
    )
