"""A folder of pictures, read where it is indexed: the same pixels, whichever way they are asked for."""

import numpy as np
import pytest
import torch
from conftest import digits_run
from PIL import Image
from scipy import stats
from torch import nn

from lbgap import augment, data, gradient, networks, train
from lbgap.data import DataMissing, Source, load
from lbgap.evaluate import chunk_of
from lbgap.models.hoffer import BasicBlock, CenterCrop, Standardize
from lbgap.pictures import Pictures, crop, labelled
from lbgap.spec import DataSpec, OptimizerSpec


@pytest.fixture
def tree(tmp_path, rng, monkeypatch):
    """A small ImageNet: two classes, pictures of several shapes and modes, under LBGAP_DATA."""
    monkeypatch.setitem(data.SOURCES, "imagenet", Source(6, 4, (3, 36, 36), 2, on_disk=True))
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
    lazily = train.fit(spec)
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
        assert train.fit(spec) == lazily


# ---------------------------------------------------------------- crops of random size and shape


def test_crops_lie_within_and_have_the_areas_and_aspects_that_are_said(rng):
    """Of a square picture all that is drawn fits but what is longer than the side: below 3/4 of its area, nothing is."""
    boxes = np.array([crop(600, 600, rng) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes[:, :2].min() >= 0 and boxes[:, 2:].max() <= 600
    area, aspect = w * h / 600**2, w / h
    assert 0.079 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.745 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.34
    small = area < 0.7
    assert stats.kstest(area[small], stats.uniform(0.08, 0.62).cdf).pvalue > 0.001
    log = np.log(aspect[small]) / np.log(4 / 3)
    assert stats.kstest(log, stats.uniform(-1, 2).cdf).pvalue > 0.001
    # the place is uniform among those that are left
    free = small & (w < 500)
    assert stats.kstest(boxes[free, 0] / (600 - w[free]), stats.uniform().cdf).pvalue > 0.001


def test_what_never_fits_is_the_middle_square(rng):
    """A strip a hundred times as long as wide: a 8th of it is no crop of an aspect of 3/4 or more."""
    assert crop(1000, 10, rng) == (495, 0, 505, 10)
    assert crop(10, 1000, rng) == (0, 495, 10, 505)


@pytest.fixture
def ramps(tmp_path) -> Pictures:
    """One picture, many times: its red says the column, its green the row."""
    pixels = np.zeros((200, 240, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(240)[None], np.arange(200)[:, None]
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    return Pictures([tmp_path / "ramp.png"] * 60, 64)


def test_a_crop_is_scaled_and_half_of_them_are_mirrored(ramps):
    x = augment.goyal(ramps, torch.Generator().manual_seed(3))
    assert x.shape == (60, 3, 56, 56)  # 7/8 of 64
    pixels, mirrored = x[:] * 255, 0
    for picture in pixels:
        columns, rows = picture[0].mean(0), picture[1].mean(1)
        mirrored += bool(columns[0] > columns[-1])
        columns = columns.flip(0) if columns[0] > columns[-1] else columns
        for ramp in (columns, rows):
            inner = ramp[3:-3]  # where scaling does not meet the border
            steps = inner.diff()
            assert (steps - steps.mean()).abs().max() < 1.1  # rounding to whole grey levels, at both ends
            assert 0 <= ramp.min() and ramp.max() <= 240
    assert 15 < mirrored < 45
    assert len({tuple(picture.flatten()[:200].tolist()) for picture in pixels}) == 60


def test_a_crop_does_not_depend_on_who_decodes_it(ramps):
    x = augment.goyal(ramps, torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([x[0:7], x[7:60]]), x[:])
    assert torch.equal(x.chosen(torch.tensor([5, 0, 5]))[:], x[:][[5, 0, 5]])
    assert not torch.equal(x[:], augment.goyal(ramps, torch.Generator().manual_seed(4))[:])


def test_a_worker_decodes_its_own_slices_alone(ramps, monkeypatch):
    """The second of three, of slices of 8: the second, the fifth, the eighth."""
    decoded, decode = [], Pictures._decode
    monkeypatch.setattr(Pictures, "_decode", lambda self, i: decoded.append(i) or decode(self, i))

    class Second:
        rank, size = 1, 3

        def gathered(self, own):
            return [own] * 3

    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))

    def forward(x, y):
        outputs = model(x)
        return nn.functional.cross_entropy(outputs, y), (outputs.argmax(1) == y).sum()

    gradient.fill(model, list(model.parameters()), forward, ramps, torch.zeros(60, dtype=torch.long), 8, workers=Second())
    assert sorted(decoded) == [*range(8, 16), *range(32, 40), *range(56, 60)]


def test_crops_are_for_pictures_on_disk():
    with pytest.raises(
        ValueError, match="^augment is 'goyal'; digits accepts none, keskar, hoffer, cutout, since its pictures are small$"
    ):
        DataSpec(name="digits", augment="goyal")


def test_of_large_pictures_fewer_are_read_at_once():
    assert chunk_of(torch.empty(6, 3, 32, 32)) == chunk_of(torch.empty(6, 360)) == chunk_of(torch.empty(6)) == 5000
    assert 500 <= chunk_of(Pictures([], 256)) < 600


# ---------------------------------------------------------------- the whole path

SEEN = []


class Seen(nn.Module):
    """Says what comes in."""

    def forward(self, x):
        """What came."""
        SEEN.append((self.training, tuple(x.shape[1:]), x.detach().mean((2, 3))))
        return x


def small_residual(shape, n_classes) -> nn.Module:
    """As a network for ImageNet, but for its size: normalised colours, the middle 224 pixels, a block, a mean over places."""
    body = [nn.Conv2d(3, 8, 7, stride=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), BasicBlock(8, 8, 1)]
    return nn.Sequential(CenterCrop(224), Seen(), Standardize(3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def imagenet(tmp_path, rng, monkeypatch):
    """An ImageNet of three classes, noise of one colour each, in JPEG and PNG and several sizes, and a network for it."""
    monkeypatch.setitem(data.SOURCES, "imagenet", Source(18, 9, (3, 256, 256), 3, on_disk=True))
    monkeypatch.setitem(networks.NETWORKS, "small.residual", networks.Network(small_residual))
    for split, each in (("train", 6), ("val", 3)):
        for colour, name in enumerate(("n01", "n02", "n03")):
            folder = tmp_path / "data" / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                height, width = rng.integers(230, 400, 2)
                pixels = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
                pixels[..., colour] += 120
                Image.fromarray(pixels).save(folder / f"{i}.{('JPEG', 'png')[i % 2]}")


def test_a_network_learns_from_crops_and_is_validated_at_224(imagenet):
    """Decoded, cropped, mirrored, trained in slices, validated on the middle of the scaled picture."""
    SEEN.clear()
    run = digits_run(
        9,
        model="small.residual",
        options={},
        data=DataSpec(name="imagenet", augment="goyal"),
        optimizer=OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, decay_exempt="norms"),
        slice_size=3,
        updates=12,
    )
    found = train.fit(run)
    assert {shape for _, shape, _ in SEEN} == {(3, 224, 224)}
    assert sum(training for training, *_ in SEEN) == 12 * 3
    assert found["curve"]["train_loss"][-1] < 0.5 * found["curve"]["train_loss"][0]
    assert found["final"]["test"]["batch"]["accuracy"] == 100.0
    # [0, 1]: a class has one colour of mean 180/255 or so, two of 60/255
    means = torch.cat([means for *_, means in SEEN]).sort(1).values
    assert (means - torch.tensor([60, 60, 180]) / 255).abs().max() < 0.02
    assert train.fit(run) == found


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
