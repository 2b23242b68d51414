"""Data sets as tensors in memory.

A data set is loaded once, whole: pictures as float32 in [0, 1] (pixel / 255 and no other preprocessing, as in Keskar et al.
2017, released code), text as the numbers of its words; a batch is an index selection. Read are scikit-learn's embedded
digits; MNIST and CIFAR in torchvision's own layouts or as an image-folder tree; TIMIT features from a user's ``timit.npz``;
WikiText-2 and Penn Treebank as text files; text that is part of CPython. ImageNet does not fit: its pictures stay on
disk (:mod:`lbgap.pictures`). Nothing here needs torchvision but :func:`fetch`.
"""

import collections
import hashlib
import importlib
import math
import pickle
import re
import sys
import types
import uuid
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lbgap import paths
from lbgap.pictures import Pictures, labelled
from lbgap.sources import CIFAR_FILES, MNIST_FILES, SOURCES, TEXT_FILES, Arrays, DataMissing, Source, locate, lookup


@dataclass(frozen=True)
class Split:
    """Inputs ``x`` (n, *shape) float32 and labels ``y`` (n,) int64 or targets float32; a text has its words as both."""

    x: Tensor | Pictures
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Data:
    """A train and a test split on one device, with the SHA-256 of the raw arrays they were made from.

    ``validation``, where it was asked for, are training examples that belong to neither.
    """

    train: Split
    test: Split
    n_classes: int
    checksum: str
    validation: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name, those that are there."""
        return {name: part for name in ("train", "test", "validation") if (part := getattr(self, name)) is not None}


def load(
    name: str,
    n_train: int | None = None,
    n_test: int | None = None,
    device: str = "cpu",
    *,
    subset: int = 0,
    n_validation: int | None = None,
    label_noise: float = 0.0,
) -> Data:
    """Read a data set (or a fixed random subset of it) onto a device.

    The training examples of a subset are the first ``n_train`` entries of one permutation of the whole set, the same in every
    run; the next ``n_validation`` entries are held out. ``subset`` is the seed of that permutation. The test examples of
    a subset are the same whatever ``subset`` is. Of a text, the first tokens are taken. ``label_noise`` is the share of the
    training labels that are drawn anew, each from all classes, which and to what ``subset`` decides too.

    Raises:
        ValueError: unknown name, a subset larger than the set, held-out examples without ``n_train``, or files that hold
            something else.
        DataMissing: the files are not under ``LBGAP_DATA``.
    """
    source, place = lookup(name), locate(name)
    x, y, xt, yt, checksum = _imagenet(place) if source.on_disk else _raw(name, place)
    for split, labels, take, whole in (("train", y, n_train, source.n_train), ("test", yt, n_test, source.n_test)):
        if take is None and len(labels) != whole:
            where = place or f"the reader of {name}"
            raise ValueError(
                f"{where} holds {len(labels)} {split} examples of {name}; accepted are {whole}, or a subset by n_{split}"
            )
        if take is not None and not 1 <= take <= len(labels):
            raise ValueError(f"n_{split} is {take}; {name} accepts 1 to {len(labels)}")
    held_out = n_validation or 0
    if held_out and (n_train is None or n_train + held_out > len(y)):
        raise ValueError(f"n_validation is {n_validation}; accepted is what n_train leaves of the {len(y)} of {name}")

    def part(x, y, seed: int, start: int, stop: int) -> Split:
        if source.task == "predict_next":
            text = torch.tensor(x[start:stop], dtype=torch.int64, device=device)
            return Split(text, text)
        if stop - start < len(y):
            chosen = np.sort(np.random.default_rng(seed).permutation(len(y))[start:stop])
            x, y = [x[i] for i in chosen] if isinstance(x, list) else x[chosen], y[chosen]
        inputs = _inputs(x, source, device)
        if source.task == "reconstruct":
            return Split(inputs, inputs)
        kind = torch.int64 if source.task == "classify" else torch.float32
        return Split(inputs, torch.tensor(y, dtype=kind, device=device))

    n = n_train or len(y)
    train = part(x, y, subset, 0, n)
    if label_noise:
        train = Split(train.x, _noisy(train.y, source.n_classes, label_noise, subset))
    return Data(
        train,
        part(xt, yt, 0, 0, n_test or len(yt)),
        source.n_classes,
        checksum,
        part(x, y, subset, n, n + held_out) if held_out else None,
    )


def _noisy(y: Tensor, n_classes: int, share: float, seed: int) -> Tensor:
    """Labels of which a share is drawn anew, from all classes alike: of k classes, one in k of these keeps its label."""
    random = np.random.default_rng((seed, 1))
    chosen = random.permutation(len(y))[: round(share * len(y))]
    noisy = y.clone()
    noisy[chosen] = torch.tensor(random.integers(n_classes, size=len(chosen)), device=y.device)
    return noisy


def _inputs(x: np.ndarray | list[Path], source: Source, device: str) -> Tensor | Pictures:
    if isinstance(x, list):
        return Pictures(x, source.shape[1], device)
    inputs = torch.tensor(x, dtype=torch.float32, device=device)
    return inputs.div_(255) if x.dtype == np.uint8 else inputs


@lru_cache(maxsize=2)
def _raw(name: str, place: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
    reader = SOURCES[name].reader
    arrays = tuple(map(np.asarray, reader())) if reader else _READERS[name.removesuffix(".inputs")](place)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    source = SOURCES[name]
    for x, y, what in ((arrays[0], arrays[1], "train"), (arrays[2], arrays[3], "test")):
        if x.shape[1:] != source.shape:
            raise ValueError(f"{name} {what} inputs have shape {x.shape[1:]}; accepted is {source.shape}")
        wanted = (len(x),) if source.task != "regress" else (len(x), source.n_classes)
        if y.shape != wanted:
            raise ValueError(f"{name} has {len(x)} {what} inputs and labels of shape {y.shape}; accepted is {wanted}")
        if source.task == "classify" and len(y):
            lowest, highest = y.min(), y.max()
            if not (y == np.floor(y)).all() or lowest < 0 or highest >= source.n_classes:
                found = f"{name} has {what} labels from {lowest} to {highest}"
                raise ValueError(f"{found}; accepted are whole numbers from 0 to {source.n_classes - 1}")
    return *arrays, digest.hexdigest()


def _imagenet(folder: Path) -> tuple[list[Path], np.ndarray, list[Path], np.ndarray, str]:
    """Files and labels of both splits, and a digest of their names and sizes: the pictures themselves stay on disk."""
    x, y, xt, yt = labelled(folder / "train", folder / "val", SOURCES["imagenet"].n_classes)
    named = "".join(f"{file.relative_to(folder)} {file.stat().st_size}\n" for file in (*x, *xt))
    return x, y, xt, yt, hashlib.sha256(named.encode()).hexdigest()


def _digits(_: None) -> Arrays:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    # 0..16 grey levels -> 0..255, so that digits pass through the same /255 as every image set
    x = np.round(x * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(y))
    cut = SOURCES["digits"].n_train
    return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]


def _idx(path: Path) -> np.ndarray:
    """One IDX file: two zero bytes, type (8 = uint8), rank, big-endian sizes, data."""
    raw = path.read_bytes()
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, 4)
    if len(raw) - 4 - 4 * rank != math.prod(shape.tolist()):
        raise ValueError(f"{path} is not whole: its header promises {math.prod(shape.tolist())} bytes of data")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _mnist(folder: Path) -> Arrays:
    x, y, xt, yt = (_idx(folder / name) for name in MNIST_FILES)
    return x[:, None], y, xt[:, None], yt


def _cifar(folder: Path, name: str) -> Arrays:
    pickled, train, test, labels = CIFAR_FILES[name]
    if folder.name != pickled:
        return _image_folder(folder, SOURCES[name])

    def part(file: str) -> tuple[np.ndarray, np.ndarray]:
        try:
            held = pickle.loads((folder / file).read_bytes(), encoding="latin1")
            return np.asarray(held["data"], np.uint8).reshape(-1, 3, 32, 32), np.asarray(held[labels])
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder / file} is not a batch of {name} as its authors pickled it, with 'data' and '{labels}'"
            ) from error

    def read(files: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return _in_order(*(np.concatenate(arrays) for arrays in zip(*map(part, files), strict=True)))

    return *read(train), *read(test)


def _halved(pictures: np.ndarray) -> np.ndarray:
    """Means over squares of 2 x 2 pixels, rounded: (n, channels, height, width) to half the height and width."""
    n, channels, height, width = pictures.shape
    squares = pictures.reshape(n, channels, height // 2, 2, width // 2, 2)
    return np.round(squares.mean((3, 5), dtype=np.float32)).astype(np.uint8)


def _half(arrays: Arrays) -> Arrays:
    x, y, xt, yt = arrays
    return _halved(x), y, _halved(xt), yt


def _in_order(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Examples sorted by a digest of their pixels, so that a subset is the same one in every layout."""
    order = np.argsort([hashlib.sha1(image.tobytes() + bytes([label])).digest() for image, label in zip(x, y, strict=True)])
    return x[order], y[order]


def _image_folder(tree: Path, source: Source) -> Arrays:
    """``{train,test}/<class>/<image>``, decoded once and kept in the cache folder."""
    x, y, xt, yt = labelled(tree / "train", tree / "test", source.n_classes)
    stamps = [(str(f), s.st_size, s.st_mtime_ns) for f in sorted(tree.resolve().glob("*/*/*")) for s in (f.stat(),)]
    kept = paths.cache() / "data" / f"{tree.name}-{hashlib.sha1(repr(stamps).encode()).hexdigest()[:8]}.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return tuple(arrays[k] for k in ("x", "y", "xt", "yt"))
    arrays = *_in_order(_decoded(x, source.shape), y), *_in_order(_decoded(xt, source.shape), yt)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{kept.stem}.{uuid.uuid4().hex}.part.npz")
    np.savez(partial, **dict(zip(("x", "y", "xt", "yt"), arrays, strict=True)))
    partial.replace(kept)
    return arrays


def _decoded(files: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    out = np.empty((len(files), *shape), np.uint8)
    for i, file in enumerate(files):
        try:
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        except UnidentifiedImageError as error:
            raise ValueError(f"{file} is not a picture; accepted are pictures alone in the folders of the classes") from error
        if pixels.shape != shape:
            raise ValueError(f"{file} is of another size: inputs have shape {pixels.shape}; accepted is {shape}")
        out[i] = pixels
    return out


def _timit(path: Path) -> Arrays:
    """The user's own features: x_train (721329, 360), y_train (721329,), x_test (310621, 360), y_test (310621,)."""
    names = ("x_train", "y_train", "x_test", "y_test")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file; accepted is one of the arrays {', '.join(names)}")
    with np.load(path) as arrays:
        absent = [k for k in names if k not in arrays]
        if absent:
            raise ValueError(f"{path} lacks {', '.join(absent)}; accepted are {', '.join(names)}")
        out = tuple(arrays[k] for k in names)
    labels = np.concatenate([out[1].reshape(-1), out[3].reshape(-1)])
    if not labels.size or labels.min() < 0 or labels.max() >= SOURCES["timit"].n_classes:
        span = f"{labels.min()} to {labels.max()}" if labels.size else "none"
        raise ValueError(f"{path} has labels {span}; accepted are 0 to 1972")
    return out[0].astype(np.float32), out[1], out[2].astype(np.float32), out[3]


def _numbered(train: list[str], test: list[str], vocabulary: int) -> Arrays:
    """Words as numbers: the most frequent words of the training text, in that order; any other word is ``<unk>``."""
    known = {"<unk>": 0}
    for word, _ in sorted(collections.Counter(train).items(), key=lambda item: (-item[1], item[0])):
        if len(known) == vocabulary:
            break
        known.setdefault(word, len(known))
    x, xt = (np.array([known.get(word, 0) for word in words]) for words in (train, test))
    return x, x, xt, xt


def _text(folder: Path, name: str) -> Arrays:
    """Words separated by spaces, the end of each line one more word, as Mikolov's files and WikiText-2 are read."""

    def words(file: Path) -> list[str]:
        return [word for line in file.read_text(encoding="utf-8").splitlines() for word in (*line.split(), "<eos>")]

    _, train, test = TEXT_FILES[name]
    return _numbered(words(folder / train), words(folder / test), SOURCES[name].n_classes)


def _topics(_: None) -> Arrays:
    """The help texts of the Python language, which CPython ships; they differ a little from version to version."""
    from pydoc_data.topics import topics

    words = re.findall(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]", " ".join(topics[name] for name in sorted(topics)))
    source = SOURCES["topics"]
    return _numbered(words[: source.n_train], words[source.n_train :][: source.n_test], source.n_classes)


_READERS = {
    "topics": _topics,
    "ptb": lambda folder: _text(folder, "ptb"),
    "wikitext2": lambda folder: _text(folder, "wikitext2"),
    "wikitext2.valid": lambda folder: _text(folder, "wikitext2.valid"),
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": lambda folder: _cifar(folder, "cifar10"),
    "cifar10.half": lambda folder: _half(_cifar(folder, "cifar10")),
    "cifar100": lambda folder: _cifar(folder, "cifar100"),
    "timit": _timit,
}


def available(name: str) -> str:
    """One line: 'here' with its folder, or where it was looked for."""
    try:
        folder = locate(name)
    except DataMissing as missing:
        return f"missing: {missing}"
    return f"here: {folder}" if folder else "embedded"


def fetch(name: str) -> Path:
    """Download a data set through torchvision (which shows progress and checks MD5 sums) into the data folder."""
    classes = {"mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
    if name not in classes:
        raise ValueError(
            f"fetch is '{name}'; accepted are {', '.join(classes)} (digits is embedded, TIMIT and ImageNet are licensed)"
        )
    dataset = getattr(torchvision().datasets, classes[name])
    for train in (True, False):
        dataset(root=str(paths.data()), train=train, download=True)
    _raw.cache_clear()
    return paths.data()


def torchvision():
    """Import torchvision, also beside a CPU build of torch.

    The wheel on the registry is built for CUDA; beside a CPU torch only the registration of fake kernels for its
    compiled operators fails, and nothing used here needs those: an empty module in its place lets the rest load.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise ValueError(
            "torchvision is not installed; accepted is an environment with it (pip install lbgap[vision])"
        ) from error
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
        return importlib.import_module("torchvision")
