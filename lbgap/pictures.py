"""A folder of pictures too large for memory, read where it is indexed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Pictures:
    """Colour pictures, decoded on demand: what of a tensor (n, 3, size, size) in [0, 1] training and evaluation use.

    The shorter side is scaled to ``size`` pixels and the middle square is taken.
    """

    def __init__(self, files: list[Path], size: int = 256, device: str = "cpu"):
        self.files, self.size, self.device = files, size, device

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return len(self.files), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor) -> Tensor:
        """The pictures of a one-dimensional index, (k, 3, size, size) float32."""
        with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
            pictures = list(pool.map(self._decode, [self.files[i] for i in index.tolist()]))
        return torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2).float().div_(255)

    def split(self, chunk: int) -> Iterator[Tensor]:
        """Consecutive parts, each decoded when it is asked for."""
        for start in range(0, len(self), chunk):
            yield self[torch.arange(start, min(start + chunk, len(self)))]

    def _decode(self, file: Path) -> np.ndarray:
        from PIL import Image, ImageOps

        with Image.open(file) as picture:
            return np.asarray(ImageOps.fit(picture.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR))


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
