"""Where things lie: the one place that turns environment variables and the checkout into folders."""

import os
import tempfile
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


def writable(name: str, folder: Path) -> None:
    """Make a folder that is to be written to, and find out before anything runs whether it can be.

    Raises:
        ValueError: it cannot; the sentence begins with ``name``, what the user calls it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{name} is {folder}, where nothing can be written ({why(error)})") from error


def why(error: OSError) -> str:
    """What the system says of an error, without its number."""
    return error.strerror.lower() if error.strerror else str(error)


def in_words(error: BaseException) -> str:
    """An error as a sentence, also where the system raised it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename} cannot be used ({why(error)})" if error.filename else why(error)
    return str(error) or repr(error)


def extra_papers() -> Path | None:
    """A further folder of papers, named by ``LBGAP_PAPERS``, or None."""
    value = os.environ.get("LBGAP_PAPERS")
    return Path(value).expanduser() if value else None
