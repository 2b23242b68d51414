"""Shared fixtures. ``rng`` is the only source of randomness in the tests."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from torch import nn

import lbgap
from lbgap.jobs import Cache
from lbgap.records import Store
from lbgap.spec import DataSpec, OptimizerSpec, Train

torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy generator; torch's global generator is seeded with it too."""
    torch.manual_seed(7)
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _no_outside(monkeypatch, tmp_path):
    """Tests see neither the user's data nor the user's cache and records."""
    monkeypatch.setenv("LBGAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LBGAP_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LBGAP_PAPERS", raising=False)
    monkeypatch.delenv("LBGAP_RESULTS", raising=False)


@pytest.fixture
def store(tmp_path) -> Store:
    """An empty store."""
    return Store(tmp_path / "results")


@pytest.fixture
def cache(tmp_path) -> Cache:
    """An empty cache of weights."""
    return Cache(tmp_path / "weights")


@pytest.fixture
def rescaled(rng) -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    """Two networks of one function, since ReLU lets a layer be multiplied by 10 and the next divided by it; and examples."""
    one = nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False)).double()
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight.mul_(10)
        other[2].weight.div_(10)
    return one, other, torch.tensor(rng.normal(size=(20, 4))), torch.tensor(rng.integers(3, size=20))


def digits_run(batch_size: int = 128, seed: int = 0, epochs: int = 3, width: int = 16, **changes) -> Train:
    """A small F1 on digits: a fraction of a second to train."""
    data = changes.pop("data", DataSpec(name="digits"))
    return Train(
        **{
            "data": data,
            "model": "keskar.F1",
            "options": {"width": width},
            "optimizer": OptimizerSpec(name="adam", learning_rate=1e-3),
            "batch_size": batch_size,
            "updates": epochs * math.ceil(data.size / batch_size),
            "seed": seed,
            **changes,
        }
    )


def topics_run(width: int = 8, **changes) -> Train:
    """A small LSTM on the embedded text."""
    return Train(
        **{
            "data": DataSpec(name="topics", n_train=2000, n_test=400),
            "model": "smith.LSTM",
            "options": {"width": width, "depth": 1},
            "optimizer": OptimizerSpec(name="sgd", learning_rate=1.0),
            "batch_size": 10,
            "updates": 20,
            "seed": 0,
            **changes,
        }
    )


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with the papers of a folder, and folders for records, cache and Jupyter's own files."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(lbgap.__file__).parents[1]),
        "LBGAP_PAPERS": str(home / "papers"),
        "LBGAP_RESULTS": str(home / "results"),
        "LBGAP_CACHE": str(home / "cache"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    environment.pop("MPLBACKEND", None)  # a notebook shows its figures inline
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, cwd=home)
