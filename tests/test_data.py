"""Data sets: what the readers make of files written here, against the arrays they were made from and other readers."""

import importlib.util
import pickle
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lbgap import data, paths

LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """Data sets read by other tests, from other folders, are forgotten."""
    data._raw.cache_clear()
    yield
    data._raw.cache_clear()


@pytest.fixture
def small(monkeypatch):
    """Data sets of a few examples."""

    def shrink(name: str, n_train: int, n_test: int, **more) -> None:
        monkeypatch.setitem(data.SOURCES, name, replace(data.SOURCES[name], n_train=n_train, n_test=n_test, **more))

    return shrink


def torchvision():
    """torchvision where it is installed: it is needed to download, and here as another reader."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    return data.torchvision()


# ---------------------------------------------------------------- files


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(rng, n_train: int = 20, n_test: int = 8) -> dict[str, np.ndarray]:
    folder = paths.data() / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        arrays[f"{prefix}-images-idx3"] = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1"] = rng.integers(10, size=n, dtype=np.uint8)
    for name, array in arrays.items():
        (folder / f"{name}-ubyte").write_bytes(idx(array))
    return arrays


def images(rng, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images in the order an image folder has them: by class."""
    return rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8), np.sort(np.arange(n) % n_classes)


def write_pickles(name: str, x, y, xt, yt) -> None:
    """The layout of the released archives; CIFAR-10's training set in five parts."""
    folder = paths.data() / ("cifar-10-batches-py" if name == "cifar10" else "cifar-100-python")
    folder.mkdir(parents=True)
    if name == "cifar10":
        parts = {f"data_batch_{i + 1}": part for i, part in enumerate(np.array_split(np.arange(len(y)), 5))}
    else:
        parts = {"train": np.arange(len(y))}
    for file, part in parts.items():
        content = {"data": x[part].reshape(len(part), -1), LABELS[name]: y[part].tolist(), "coarse_labels": [0] * len(part)}
        (folder / file).write_bytes(pickle.dumps(content))
    content = {"data": xt.reshape(len(xt), -1), LABELS[name]: yt.tolist(), "coarse_labels": [0] * len(xt)}
    (folder / ("test_batch" if name == "cifar10" else "test")).write_bytes(pickle.dumps(content))


def write_tree(name: str, x, y, xt, yt, suffix: str = "png") -> None:
    """``{train,test}/<class>/<image>``, without loss."""
    image = pytest.importorskip("PIL.Image")
    for split, inputs, labels in (("train", x, y), ("test", xt, yt)):
        for i, (array, label) in enumerate(zip(inputs, labels, strict=True)):
            folder = paths.data() / name / split / f"class_{label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            options = {"lossless": True} if suffix == "webp" else {}
            image.fromarray(array.transpose(1, 2, 0)).save(folder / f"image_{i:04d}.{suffix}", **options)


def write_timit(rng, **changes) -> dict[str, np.ndarray]:
    arrays = {
        "x_train": rng.normal(size=(12, 360)),
        "y_train": np.r_[0, 1972, rng.integers(1973, size=10)],
        "x_test": rng.normal(size=(5, 360)),
        "y_test": rng.integers(1973, size=5),
    } | changes
    paths.data().mkdir(parents=True, exist_ok=True)
    np.savez(paths.data() / "timit.npz", **{k: v for k, v in arrays.items() if v is not None})
    return arrays


def assert_split(split: data.Split, x: np.ndarray, y: np.ndarray) -> None:
    """The pixels / 255 and the labels, in their order."""
    assert split.x.dtype == torch.float32 and split.y.dtype == torch.int64
    np.testing.assert_array_equal(split.x.numpy(), x.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(split.y.numpy(), y)


def assert_examples(split: data.Split, x: np.ndarray, y: np.ndarray) -> None:
    """The same images with the same labels, in whatever order."""
    order = np.lexsort([*x.reshape(len(x), -1).T[:9]])
    found = np.lexsort([*split.x.numpy().reshape(len(x), -1).T[:9]])
    assert_split(data.Split(split.x[found], split.y[found]), x[order], y[order])


# ---------------------------------------------------------------- digits


def rows(x: np.ndarray, y: np.ndarray) -> list[tuple[int, ...]]:
    """Images and labels as a sorted list: what is there, in no order."""
    return sorted(map(tuple, np.column_stack([x.reshape(len(x), -1), y]).astype(int).tolist()))


def test_digits_are_those_of_scikit_learn_each_in_one_split():
    digits, (x, y) = data.load("digits"), load_digits(return_X_y=True)
    assert (len(digits.train), len(digits.test)) == (1438, 359)
    assert digits.train.x.shape[1:] == (1, 8, 8)
    both = torch.cat([digits.train.x, digits.test.x]).numpy()
    labels = torch.cat([digits.train.y, digits.test.y]).numpy()
    # 17 grey levels, each rounded to one of 256
    assert np.abs(both * 16 - np.round(both * 16)).max() <= 16 * 0.5 / 255 + 1e-6
    assert rows(np.round(both * 16), labels) == rows(x, y)


def test_every_digit_is_in_both_splits():
    digits = data.load("digits")
    assert set(digits.train.y.tolist()) == set(digits.test.y.tolist()) == set(range(digits.n_classes))


# ---------------------------------------------------------------- subsets


def positions(part: torch.Tensor, whole: torch.Tensor) -> list[int]:
    """Where each row of ``part`` stands in ``whole``."""
    where = {row.numpy().tobytes(): i for i, row in enumerate(whole)}
    return [where[row.numpy().tobytes()] for row in part]


def test_a_subset_is_the_same_in_every_run_and_takes_its_labels_along(rng):
    whole, subset = data.load("digits"), data.load("digits", 200, 50)
    assert (len(subset.train), len(subset.test)) == (200, 50)
    for name in ("train", "test"):
        found = positions(getattr(subset, name).x, getattr(whole, name).x)
        assert torch.equal(getattr(whole, name).y[found], getattr(subset, name).y)
    data._raw.cache_clear()
    np.random.default_rng(99).random()
    torch.manual_seed(99)
    assert torch.equal(data.load("digits", 200, 50).train.x, subset.train.x)


def test_a_subset_is_random_and_contains_the_smaller_ones():
    whole = data.load("digits").train.x
    found = {n: set(positions(data.load("digits", n).train.x, whole)) for n in (50, 100, 700)}
    assert [len(f) for f in found.values()] == [50, 100, 700]
    assert found[50] < found[100] < found[700]
    assert max(found[50]) > 700  # not the beginning: 50 of the first 700 alone has a chance below 2^-50


def test_another_subset_is_drawn_independently_and_leaves_the_test_examples():
    whole = data.load("digits").train.x
    first, second = (set(positions(data.load("digits", 700, 50, subset=i).train.x, whole)) for i in (0, 1))
    assert 700 * 700 / 1438 - 100 < len(first & second) < 700 * 700 / 1438 + 100  # hypergeometric, deviation 10
    a, b = (data.load("digits", 700, 50, subset=i).test for i in (0, 1))
    assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


@pytest.mark.parametrize("subset", [0, 3])
def test_held_out_examples_belong_to_neither_split(subset):
    whole = data.load("digits")
    held = data.load("digits", 200, 50, subset=subset, n_validation=100)
    assert torch.equal(held.train.x, data.load("digits", 200, subset=subset).train.x)
    found = positions(held.validation.x, whole.train.x)
    assert len(set(found)) == 100 and not set(found) & set(positions(held.train.x, whole.train.x))
    assert torch.equal(whole.train.y[found], held.validation.y)
    assert list(held.splits) == ["train", "test", "validation"] and list(whole.splits) == ["train", "test"]


@pytest.mark.parametrize("n, held_out", [(None, 1), (1400, 39)])
def test_held_out_examples_that_are_not_there_are_refused(n, held_out):
    with pytest.raises(ValueError, match=f"^n_validation is {held_out}; accepted is what n_train leaves of the 1438"):
        data.load("digits", n, n_validation=held_out)


def test_one_split_may_be_cut_alone():
    cut = data.load("digits", n_test=10)
    assert (len(cut.train), len(cut.test)) == (1438, 10)


@pytest.mark.parametrize("n", [0, -1, 1439])
def test_a_subset_outside_the_set_is_refused(n):
    with pytest.raises(ValueError, match=f"^n_train is {n}; digits accepts 1 to 1438$"):
        data.load("digits", n)
    n_test = min(n, 360)
    with pytest.raises(ValueError, match=f"^n_test is {n_test}; digits accepts 1 to 359$"):
        data.load("digits", None, n_test)


# ---------------------------------------------------------------- MNIST


def test_mnist_files_are_read_as_written(small, rng):
    small("mnist", 20, 8)
    arrays = write_mnist(rng)
    mnist = data.load("mnist")
    assert_split(mnist.train, arrays["train-images-idx3"][:, None], arrays["train-labels-idx1"])
    assert_split(mnist.test, arrays["t10k-images-idx3"][:, None], arrays["t10k-labels-idx1"])
    assert mnist.n_classes == 10


def test_mnist_is_what_torchvision_reads(small, rng):
    small("mnist", 20, 8)
    write_mnist(rng)
    theirs = torchvision().datasets.MNIST(str(paths.data()), train=False)
    assert_split(data.load("mnist").test, theirs.data.numpy()[:, None], theirs.targets.numpy())


@pytest.mark.parametrize("garbage", [b"", b"\x00\x00\x0d\x03" + bytes(12), b"PK\x03\x04" + bytes(40)])
def test_a_file_that_is_not_idx_is_named(small, rng, garbage):
    small("mnist", 20, 8)
    write_mnist(rng)
    (paths.data() / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(garbage)
    with pytest.raises(ValueError, match="train-labels-idx1-ubyte is not an IDX file of unsigned bytes"):
        data.load("mnist")


def test_a_truncated_idx_file_is_named(small, rng):
    small("mnist", 20, 8)
    write_mnist(rng)
    path = paths.data() / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte"):
        data.load("mnist")


def test_inputs_of_another_shape_are_refused(small, rng):
    small("mnist", 20, 8)
    write_mnist(rng)
    path = paths.data() / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((8, 27, 28), np.uint8)))
    with pytest.raises(ValueError, match=re.escape("mnist test inputs have shape (1, 27, 28); accepted is (1, 28, 28)")):
        data.load("mnist")


# ---------------------------------------------------------------- CIFAR


@pytest.mark.parametrize("name, suffix", [("cifar10", "png"), ("cifar10", "webp"), ("cifar100", "webp")])
def test_both_layouts_of_cifar_give_the_same_tensors(small, rng, monkeypatch, tmp_path, name, suffix):
    """The archives in an order of their own, the tree by class; a subset must not depend on it."""
    x, y = images(rng, 120, data.SOURCES[name].n_classes)
    xt, yt = images(rng, 100, data.SOURCES[name].n_classes)
    small(name, 120, 100)
    shuffled, other = rng.permutation(120), rng.permutation(100)
    write_pickles(name, x[shuffled], y[shuffled], xt[other], yt[other])
    pickled = data.load(name)
    assert_examples(pickled.train, x, y)
    assert_examples(pickled.test, xt, yt)
    monkeypatch.setenv("LBGAP_DATA", str(tmp_path / "tree"))
    data._raw.cache_clear()
    write_tree(name, x, y, xt, yt, suffix=suffix)
    tree = data.load(name)
    for split in ("train", "test"):
        assert torch.equal(getattr(tree, split).x, getattr(pickled, split).x)
        assert torch.equal(getattr(tree, split).y, getattr(pickled, split).y)
    assert tree.checksum == pickled.checksum


def test_half_the_resolution_is_the_mean_of_four_pixels(small, rng):
    """As adaptive average pooling has it, to the rounding of a grey level; the same examples in the same subsets."""
    x, y = images(rng, 40, 10)
    for name in ("cifar10", "cifar10.half"):
        small(name, 40, 40)
    write_pickles("cifar10", x, y, x, y)
    whole, half = (data.load(name, 20, n_validation=10) for name in ("cifar10", "cifar10.half"))
    for split in ("train", "test", "validation"):
        pooled = torch.nn.functional.adaptive_avg_pool2d(whole.splits[split].x, 16)
        assert half.splits[split].x.shape[1:] == (3, 16, 16)
        assert (half.splits[split].x - pooled).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(half.splits[split].y, whole.splits[split].y)


def test_a_tree_is_what_torchvision_reads(small, rng):
    """Classes are numbered in the order of their names."""
    image = pytest.importorskip("PIL.Image")
    for split in ("train", "test"):
        for name in ("truck", "airplane", "cat"):
            folder = paths.data() / "cifar10" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    small("cifar10", 12, 12, n_classes=3)
    theirs = torchvision().datasets.ImageFolder(paths.data() / "cifar10" / "train")
    x = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture, _ in theirs])
    assert_examples(data.load("cifar10").train, x, np.array(theirs.targets))


def test_grey_images_in_a_tree_become_three_channels(small, rng):
    image = pytest.importorskip("PIL.Image")
    grey = rng.integers(256, size=(32, 32), dtype=np.uint8)
    for split in ("train", "test"):
        (paths.data() / "cifar10" / split / "a").mkdir(parents=True)
        image.fromarray(grey).save(paths.data() / "cifar10" / split / "a" / "0.png")
    small("cifar10", 1, 1, n_classes=1)
    assert_split(data.load("cifar10").train, np.stack([grey] * 3)[None], np.array([0]))


def test_a_tree_is_decoded_once(small, rng, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    arrays = (*images(rng, 20, 10), *images(rng, 10, 10))
    small("cifar10", 20, 10)
    write_tree("cifar10", *arrays)
    data.load("cifar10")
    data._raw.cache_clear()
    monkeypatch.setattr(image, "open", lambda file: pytest.fail(f"{file} was decoded again"))
    assert_examples(data.load("cifar10").train, *arrays[:2])


def test_another_tree_is_not_taken_for_the_decoded_one(small, rng, monkeypatch, tmp_path):
    small("cifar10", 20, 10)
    write_tree("cifar10", *images(rng, 20, 10), *images(rng, 10, 10))
    data.load("cifar10")
    other = (*images(rng, 20, 10), *images(rng, 10, 10))
    monkeypatch.setenv("LBGAP_DATA", str(tmp_path / "other"))
    write_tree("cifar10", *other)
    assert_examples(data.load("cifar10").train, *other[:2])


def test_a_tree_that_was_refused_is_read_once_it_is_right(small, rng):
    image = pytest.importorskip("PIL.Image")
    small("cifar10", 1, 1, n_classes=1)
    for size in (28, 32):
        for split in ("train", "test"):
            folder = paths.data() / "cifar10" / split / "a"
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(rng.integers(256, size=(size, size, 3), dtype=np.uint8)).save(folder / "0.png")
        if size == 28:
            with pytest.raises(ValueError, match=re.escape("inputs have shape (3, 28, 28); accepted is (3, 32, 32)")):
                data.load("cifar10")
    assert len(data.load("cifar10").train) == 1


def test_a_class_folder_of_one_split_alone_is_refused(small, rng):
    arrays = (*images(rng, 20, 10), *images(rng, 10, 10))
    small("cifar10", 20, 10)
    write_tree("cifar10", *arrays)
    (paths.data() / "cifar10" / "test" / "class_009").rename(paths.data() / "cifar10" / "test" / "class_9")
    with pytest.raises(
        ValueError, match="train and .*test differ in the class 'class_009'; accepted are the same classes in both$"
    ):
        data.load("cifar10")


def test_a_file_that_is_no_picture_and_a_picture_of_another_size_are_named(small, rng):
    image = pytest.importorskip("PIL.Image")
    small("cifar10", 20, 10)
    write_tree("cifar10", *images(rng, 20, 10), *images(rng, 10, 10))
    file = paths.data() / "cifar10" / "train" / "class_003" / "zz.png"
    file.write_bytes(b"zz")
    with pytest.raises(ValueError, match=r"class_003/zz\.png is not a picture; accepted are pictures alone"):
        data.load("cifar10")
    image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(file)
    with pytest.raises(
        ValueError, match=r"zz\.png is of another size: inputs have shape \(3, 28, 28\); accepted is \(3, 32, 32\)"
    ):
        data.load("cifar10")


def test_a_damaged_batch_is_named(small, rng):
    small("cifar10", 20, 10)
    write_pickles("cifar10", *images(rng, 20, 10), *images(rng, 10, 10))
    (paths.data() / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"zz")
    with pytest.raises(ValueError, match="data_batch_3 is not a batch of cifar10 as its authors pickled it"):
        data.load("cifar10")


def test_an_archive_without_one_of_its_files_is_missing(small, rng):
    write_pickles("cifar10", *images(rng, 20, 10), *images(rng, 10, 10))
    (paths.data() / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(data.DataMissing, match="^data set 'cifar10' not found"):
        data.load("cifar10")


def test_a_set_of_another_size_is_refused_unless_a_subset_is_asked_for(small, rng):
    small("mnist", 21, 8)
    write_mnist(rng)
    with pytest.raises(ValueError, match="raw holds 20 train examples of mnist; accepted are 21, or a subset by n_train$"):
        data.load("mnist")
    assert len(data.load("mnist", 20).train) == 20


# ---------------------------------------------------------------- TIMIT


def test_timit_features_are_taken_as_they_are(small, rng):
    small("timit", 12, 5)
    arrays = write_timit(rng)
    timit = data.load("timit")
    for split, name in ((timit.train, "train"), (timit.test, "test")):
        np.testing.assert_array_equal(split.x.numpy(), arrays[f"x_{name}"].astype(np.float32))
        np.testing.assert_array_equal(split.y.numpy(), arrays[f"y_{name}"])
    assert timit.n_classes == 1973


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y_test": None, "x_train": None}, r"timit\.npz lacks x_train, y_test; accepted are x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((12, 361))}, r"^timit train inputs have shape \(361,\); accepted is \(360,\)"),
        ({"x_test": np.zeros((5, 359))}, r"^timit test inputs have shape \(359,\); accepted is \(360,\)"),
        ({"y_train": np.arange(12) - 1}, r"timit\.npz has labels -1 to 1[0-9]*; accepted are 0 to 1972"),
        ({"y_test": np.full(5, 1973)}, r"timit\.npz has labels 0 to 1973; accepted are 0 to 1972"),
        ({"y_train": np.zeros(11, int)}, r"^timit has 12 train inputs .*\(11,\)"),
        ({"y_train": np.zeros(0, int), "y_test": np.zeros(0, int)}, r"timit\.npz has labels none; accepted are 0 to 1972"),
        (
            {"x_train": np.zeros((11, 360)), "y_train": np.zeros(11, int)},
            r"timit\.npz holds 11 train examples .* accepted are 12",
        ),
        ({"y_test": np.zeros((5, 2), int)}, r"^timit has 5 test inputs .*\(5, 2\)"),
    ],
)
def test_timit_features_that_break_the_contract_are_refused(small, rng, changes, message):
    small("timit", 12, 5)
    write_timit(rng, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        data.load("timit")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_archive_is_refused(small):
    paths.data().mkdir(parents=True)
    (paths.data() / "timit.npz").write_bytes(b"zz")
    with pytest.raises(ValueError, match=r"timit\.npz is no \.npz file; accepted is one of the arrays x_train, "):
        data.load("timit")


def test_missing_timit_says_what_to_bring():
    with pytest.raises(data.DataMissing) as caught:
        data.load("timit")
    message = str(caught.value)
    assert str(paths.data() / "timit.npz") in message
    assert "licensed" in message and all(k in message for k in ("x_train", "y_train", "x_test", "y_test"))


# ---------------------------------------------------------------- in general


@pytest.mark.parametrize("name, folder", [("mnist", "MNIST/raw"), ("cifar10", "cifar10"), ("cifar100", "cifar-100-python")])
def test_missing_data_names_the_folder_and_the_command(name, folder):
    with pytest.raises(data.DataMissing) as caught:
        data.load(name)
    message = str(caught.value)
    assert str(paths.data() / folder) in message
    assert "LBGAP_DATA" in message and f"python -m lbgap data --fetch {name}" in message
    assert data.available(name) == f"missing: {message}"


def test_available_says_where_the_data_are(small, rng):
    assert data.available("digits") == "embedded"
    small("mnist", 20, 8)
    write_mnist(rng)
    assert str(paths.data()) in data.available("mnist")


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"^data is 'svhn'; accepted are {', '.join(data.SOURCES)}$"):
        data.load("svhn")


def test_the_checksum_follows_every_pixel_and_label_and_not_the_subset(small, rng):
    small("mnist", 20, 8)
    arrays, sums = write_mnist(rng), []
    for name in ("train-images-idx3", "t10k-labels-idx1"):
        data._raw.cache_clear()
        sums.append(data.load("mnist").checksum)
        assert data.load("mnist", 5).checksum == sums[-1]
        changed = arrays[name].copy()
        changed.flat[-1] ^= 1
        (paths.data() / "MNIST" / "raw" / f"{name}-ubyte").write_bytes(idx(changed))
    data._raw.cache_clear()
    sums.append(data.load("mnist").checksum)
    assert len(set(sums)) == 3


def test_a_loaded_set_can_be_changed_without_changing_the_next(small):
    first = data.load("digits")
    first.train.x.zero_()
    assert data.load("digits").train.x.any()


def test_fetching_downloads_both_splits_into_the_data_folder(monkeypatch):
    calls = []
    recorder = SimpleNamespace(datasets=SimpleNamespace(CIFAR100=lambda **arguments: calls.append(arguments)))
    monkeypatch.setattr(data, "torchvision", lambda: recorder)
    assert data.fetch("cifar100") == paths.data()
    assert calls == [{"root": str(paths.data()), "train": train, "download": True} for train in (True, False)]


@pytest.mark.parametrize("name", ["digits", "timit", "svhn"])
def test_what_cannot_be_fetched_is_refused(name):
    with pytest.raises(ValueError, match=f"^fetch is '{name}'; accepted are mnist, cifar10, cifar100"):
        data.fetch(name)


def test_importing_the_library_does_not_import_torchvision():
    code = "import sys, lbgap, lbgap.data, lbgap.cli; print('torchvision' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


# ---------------------------------------------------------------- label noise


def test_a_share_of_the_training_labels_is_drawn_anew_and_nothing_else_changes():
    clean, noisy = (data.load("digits", 1000, 100, n_validation=200, label_noise=share) for share in (0.0, 0.6))
    assert torch.equal(clean.train.x, noisy.train.x)
    for split in ("test", "validation"):
        assert torch.equal(clean.splits[split].y, noisy.splits[split].y)
    # of 600 labels drawn from ten classes, about 60 come out as they were
    changed = int((clean.train.y != noisy.train.y).sum())
    assert changed == pytest.approx(540, abs=4 * (600 * 0.1 * 0.9) ** 0.5)
    drawn = noisy.train.y[clean.train.y != noisy.train.y]
    assert torch.bincount(drawn, minlength=10).min() > 30


def test_noisy_labels_are_those_that_records_were_made_with():
    """The stream, step by step: one of its own, apart from the subset's; which labels first, then all of their new values."""
    clean, noisy = (data.load("digits", 1000, 100, subset=3, label_noise=share).train.y for share in (0.0, 0.4))
    stream = np.random.default_rng([3, 1])
    chosen = stream.permutation(1000)[:400]
    expected = clean.numpy().copy()
    expected[chosen] = stream.integers(10, size=400)
    assert noisy.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("labels", "found"), [([0, 1, 2, 3], "0 to 3"), ([1, 2, -1, 0], "-1 to 2"), ([0.0, 0.9, 1.8, 2.0], "0.0 to 2.0")]
)
def test_labels_that_are_no_classes_are_refused(labels, found, monkeypatch):
    x, y = np.zeros((4, 2), np.float32), np.array(labels)
    monkeypatch.setitem(data.SOURCES, "mine", data.Source(4, 4, (2,), 3, reader=lambda: (x, np.zeros(4, int), x, y)))
    with pytest.raises(ValueError, match=f"^mine has test labels from {found}; accepted are whole numbers from 0 to 2$"):
        data.load("mine")


def test_a_reader_that_returns_another_number_is_named(monkeypatch):
    x, y = np.zeros((4, 2), np.float32), np.zeros(4, int)
    monkeypatch.setitem(data.SOURCES, "mine", data.Source(5, 4, (2,), 3, reader=lambda: (x, y, x, y)))
    sentence = "^the reader of mine holds 4 train examples of mine; accepted are 5, or a subset by n_train$"
    with pytest.raises(ValueError, match=sentence):
        data.load("mine")


def test_the_subset_decides_which_labels_are_drawn_anew():
    one, again, other = (data.load("digits", 1438, label_noise=0.4, subset=seed).train.y for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_without_torchvision_a_sentence_says_what_to_install(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(data.importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"^torchvision is not installed; accepted is an environment with it \(pip install "):
        data.torchvision()
