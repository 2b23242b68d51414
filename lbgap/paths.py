"""Where things lie: the one place that turns environment variables and the checkout into folders."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else default


def results(demonstration: bool = False) -> Path:
    """Folder of the committed records, which ``LBGAP_RESULTS`` replaces; demonstrations stay out of it, in the cache."""
    return cache() / "scratch" if demonstration else _folder("LBGAP_RESULTS", ROOT / "results")


def cache() -> Path:
    """Folder of what can be computed again (weights, decoded images, scratch records); ``LBGAP_CACHE``."""
    return _folder("LBGAP_CACHE", ROOT / ".cache")


def data() -> Path:
    """Folder of the data sets, in torchvision's layouts; ``LBGAP_DATA``."""
    return _folder("LBGAP_DATA", ROOT / "data")


def extra_papers() -> Path | None:
    """A further folder of papers, named by ``LBGAP_PAPERS``, or None."""
    value = os.environ.get("LBGAP_PAPERS")
    return Path(value).expanduser() if value else None
