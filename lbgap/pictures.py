"""A folder of pictures too large for memory, read where it is indexed."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of a crop: its part of the picture, its width over its height
TRIES = 10


class Pictures:
    """Colour pictures, decoded on demand: what of a tensor (n, 3, size, size) in [0, 1] training and evaluation use.

    The shorter side is scaled to ``size`` pixels and the middle square is taken. With ``seeds``, one a picture, it is a random
    part of the picture as it was taken, by :func:`crop`, scaled to ``size``; half of them are mirrored.
    """

    def __init__(self, files: list[Path], size: int = 256, device: str = "cpu", seeds: list[int] | None = None):
        self.files, self.size, self.device, self.seeds = files, size, device, seeds

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return len(self.files), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.files)

    def chosen(self, index: Tensor) -> Self:
        """The pictures of a one-dimensional index, not yet decoded."""
        of = index.tolist()
        seeds = None if self.seeds is None else [self.seeds[i] for i in of]
        return type(self)([self.files[i] for i in of], self.size, self.device, seeds)

    def cropped(self, size: int, generator: torch.Generator) -> Self:
        """Random crops of ``size`` pixels, drawn here for every picture, whoever will decode it."""
        seeds = torch.randint(2**62, (len(self),), generator=generator, device=generator.device)
        return type(self)(self.files, size, self.device, seeds.tolist())

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """The pictures of a one-dimensional index or of a slice, (k, 3, size, size) float32."""
        of = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
            pictures = list(pool.map(self._decode, of))
        return torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float().div_(255)

    def split(self, chunk: int) -> Iterator[Tensor]:
        """Consecutive parts, each decoded when it is asked for."""
        return (self[start : start + chunk] for start in range(0, len(self), chunk))

    def _decode(self, i: int) -> np.ndarray:
        from PIL import Image, ImageOps

        square, smooth = (self.size, self.size), Image.Resampling.BILINEAR
        with Image.open(self.files[i]) as picture:
            picture = picture.convert("RGB")
            if self.seeds is None:
                return np.asarray(ImageOps.fit(picture, square, smooth))
            rng = np.random.default_rng(self.seeds[i])
            part = picture.resize(square, smooth, box=crop(*picture.size, rng))
            return np.asarray(ImageOps.mirror(part) if rng.random() < 0.5 else part)


def crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of a picture (left, upper, right, lower): scale and aspect-ratio augmentation.

    Its area is uniform from 8% to 100% of the picture's, its aspect ratio from 3/4 to 4/3, uniform in its logarithm
    (Szegedy et al. 2015, section 6, who leave that open); what does not fit into the picture is drawn again, and after ten
    times the largest middle square is taken.
    """
    for _ in range(TRIES):
        area, aspect = width * height * rng.uniform(*AREA), math.exp(rng.uniform(*np.log(ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, upper, left + w, upper + h
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side


def labelled(train: Path, test: Path, n_classes: int) -> tuple[list[Path], np.ndarray, list[Path], np.ndarray]:
    """Files of ``<split>/<class>/<picture>`` in the order of their names, and their labels: the place of the class's name.

    Hidden files and folders are passed over.

    Raises:
        ValueError: not ``n_classes`` classes, others in the test split than in the training split, or no pictures.
    """
    classes, others = ({p.name for p in _shown(split) if p.is_dir()} for split in (train, test))
    if len(classes) != n_classes:
        raise ValueError(f"{train} holds {len(classes)} classes; accepted are {n_classes}, a folder of pictures each")
    if odd := sorted(classes ^ others):
        raise ValueError(f"{train} and {test} differ in the class '{odd[0]}'; accepted are the same classes in both")
    out = []
    for split in (train, test):
        found = [(file, label) for label, name in enumerate(sorted(classes)) for file in _shown(split / name)]
        if not found:
            raise ValueError(f"{split} holds no pictures; accepted is a folder for each class with pictures in it")
        out += [[file for file, _ in found], np.array([label for _, label in found])]
    return tuple(out)


def _shown(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
