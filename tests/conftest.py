"""Shared fixtures. ``rng`` is the only source of randomness in the tests."""

import math
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

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
