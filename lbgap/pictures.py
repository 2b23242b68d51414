"""A folder of pictures too large for memory, read where it is indexed."""

import hashlib
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


def labelled(folder: Path) -> tuple[list[Path], np.ndarray, str]:
    """Files of ``folder/<class>/<picture>`` in the order of their names, their labels, and a digest of names and sizes.

    Raises:
        ValueError: no pictures there.
    """
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    files = [(file, label) for label, of in enumerate(classes) for file in sorted(of.iterdir())]
    if not files:
        raise ValueError(f"{folder} holds no pictures; accepted is a folder for each class with pictures in it")
    digest = hashlib.sha256("".join(f"{f.parent.name}/{f.name} {f.stat().st_size}\n" for f, _ in files).encode()).hexdigest()
    return [f for f, _ in files], np.array([label for _, label in files]), digest
