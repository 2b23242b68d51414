"""A folder of pictures, read where it is indexed: the same pixels, whichever way they are asked for."""

import numpy as np
import pytest
import torch
from conftest import digits_run
from PIL import Image

from lbgap import data, train
from lbgap.data import DataMissing, Source, load
from lbgap.pictures import Pictures, labelled
from lbgap.spec import DataSpec


@pytest.fixture
def tree(tmp_path, rng, monkeypatch):
    """A small ImageNet: two classes, pictures of several shapes and modes, under LBGAP_DATA."""
    monkeypatch.setitem(data.SOURCES, "imagenet", Source(6, 4, (3, 36, 36), 2))
    root = tmp_path / "data" / "imagenet"
    sizes = [(40, 60), (50, 36), (36, 36)]
    for split, each in (("train", 3), ("val", 2)):
        for name in ("apple", "pear"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (*sizes[i][::-1], 3)).astype(np.uint8)
                picture = Image.fromarray(pixels).convert("L" if i == 1 else "RGB")
                picture.save(folder / f"{i}.png")
    return root


def test_a_square_picture_of_the_right_size_comes_back_as_it_is(tree):
    files, labels, *_ = labelled(tree / "train", tree / "val", 2)
    square = [i for i, f in enumerate(files) if f.name == "2.png"]
    x = Pictures(files, 36)[torch.tensor(square)]
    assert (x.shape, x.dtype) == ((2, 3, 36, 36), torch.float32)
    for row, i in zip(x, square, strict=True):
        pixels = np.asarray(Image.open(files[i])).transpose(2, 0, 1)
        assert torch.equal(row, torch.tensor(pixels).float().div_(255))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_shorter_side_is_scaled_and_the_middle_taken(tmp_path):
    """A ramp along the longer side, twice the size: the middle half of it is left, and nothing is stretched."""
    ramp = np.repeat(np.linspace(0, 255, 144).astype(np.uint8)[None, :, None], 72, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    x = Pictures([tmp_path / "ramp.png"], 36)[torch.tensor([0])][0]
    columns = x.mean((0, 1)) * 255
    # 144 columns become 72, of which columns 18 to 53 are left; their centres lay at 2 (18 + i) + 0.5 of 143
    expected = torch.tensor([255 * (2 * (18 + i) + 0.5) / 143 for i in range(36)])
    assert (columns - expected).abs().max() < 1.5
    assert (x - x[:, :1]).abs().max() == 0


def test_parts_are_those_of_the_whole_in_order(tree):
    pictures = Pictures(labelled(tree / "train", tree / "val", 2)[0], 36)
    whole = pictures[torch.arange(6)]
    assert torch.equal(torch.cat(list(pictures.split(4))), whole)
    assert [len(part) for part in pictures.split(4)] == [4, 2]
    assert torch.equal(pictures[torch.tensor([5, 0, 5])], whole[[5, 0, 5]])
    assert (len(pictures), pictures.shape) == (6, (6, 3, 36, 36))


def test_imagenet_is_loaded_from_its_folders_and_a_subset_is_a_part(tree):
    whole, part = load("imagenet"), load("imagenet", n_train=4)
    assert (whole.train.x.shape, whole.test.x.shape, whole.n_classes) == ((6, 3, 36, 36), (4, 3, 36, 36), 2)
    assert whole.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(part.train.x.files) < set(whole.train.x.files)
    assert len(part.train.y) == 4
    for file, label in zip(part.train.x.files, part.train.y.tolist(), strict=True):
        assert file.parent.name == ("apple", "pear")[label]


def test_the_checksum_tells_other_files(tree):
    before = load("imagenet").checksum
    assert load("imagenet").checksum == before
    (tree / "val" / "pear" / "1.png").unlink()
    assert load("imagenet", n_test=3).checksum != before


def test_a_network_trains_on_pictures(tree):
    """The same as on a tensor of the same pixels."""
    spec = digits_run(3, data=DataSpec(name="imagenet"), updates=4, epochs=2)
    lazily = train.run(spec)
    assert lazily["final"]["test"]["running"]["accuracy"] >= 0
    loaded = load("imagenet")
    tensors = data.Data(
        data.Split(loaded.train.x[torch.arange(6)], loaded.train.y),
        data.Split(loaded.test.x[torch.arange(4)], loaded.test.y),
        2,
        loaded.checksum,
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "load", lambda *_, **__: tensors)
        assert train.run(spec) == lazily


def test_without_the_folder_one_sentence_says_how_to_get_it():
    with pytest.raises(DataMissing, match=r"^data set 'imagenet' not found at [^\n]*imagenet; [^\n]*\{train,val\}[^\n]*$"):
        load("imagenet")


def test_a_folder_without_pictures_is_refused(tree):
    for name in ("apple", "pear"):
        for file in (tree / "val" / name).iterdir():
            file.unlink()
    with pytest.raises(ValueError, match="val holds no pictures; accepted is a folder for each class with pictures in it$"):
        load("imagenet")


def test_a_class_of_one_split_alone_is_refused(tree):
    """Numbered split by split, pear would be 1 in one and 2 in the other."""
    (tree / "val" / "banana").mkdir()
    with pytest.raises(
        ValueError, match="train and .*val differ in the class 'banana'; accepted are the same classes in both$"
    ):
        load("imagenet")


def test_another_number_of_classes_is_refused(tree):
    for split in ("train", "val"):
        (tree / split / "banana").mkdir()
    with pytest.raises(ValueError, match="train holds 3 classes; accepted are 2, a folder of pictures each$"):
        load("imagenet")


def test_hidden_files_are_passed_over(tree):
    before = load("imagenet").checksum
    (tree / "train" / ".thumbnails").mkdir()
    (tree / "train" / "apple" / ".DS_Store").write_bytes(b"x")
    assert load("imagenet").checksum == before
