"""The papers: a module or package and a YAML file each, discovered here and in the folder named by ``LBGAP_PAPERS``."""

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from lbgap import paths
from lbgap.papers.contract import check, faults
from lbgap.papers.paper import Paper, Settings

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former, where it was built, takes a tenth of the time

__all__ = ["check", "faults", "from_module", "get", "names", "papers", "settings"]


def from_module(module: ModuleType) -> Paper:
    """The paper a module or package describes: ``<name>.yaml`` beside it, its ``PROFILES``, ``PaperSettings`` and ``study``."""
    path = Path(module.__file__)
    home = path.parent if path.name == "__init__.py" else path.with_suffix("")
    facts = yaml.load(home.with_suffix(".yaml").read_text(), LOADER)
    history = home / "history.yaml"
    rules = yaml.load(history.read_text(), LOADER) if history.exists() else {}
    return Paper(home.name, facts, module.PaperSettings, module.study, module.PROFILES, rules)


@lru_cache
def _discover(extra: Path | None) -> dict[str, Paper]:
    found = {}
    for folder in filter(None, (Path(__file__).parent, extra)):
        if not folder.is_dir():
            raise ValueError(f"LBGAP_PAPERS is {folder}; accepted is a folder of papers")
        for path in sorted(folder.glob("*.yaml")):
            if folder == extra and any((Path(__file__).parent / path.stem).with_suffix(kind).exists() for kind in ("", ".py")):
                raise ValueError(f"paper is {path}, whose name is that of one of lbgap's own modules; accepted is another name")
            try:
                found[path.stem] = from_module(_module(path.with_suffix("")))
            except Exception as error:  # a paper's module may fail in any way
                sys.modules.pop(f"{__name__}.{path.stem}", None)
                raise ValueError(
                    f"paper is {path}, which cannot be read ({type(error).__name__}: {error}); accepted is a YAML file beside "
                    "a module or package of its name with PROFILES, PaperSettings and study"
                ) from error
    return dict(sorted(found.items(), key=_age))


def _age(item: tuple[str, Paper]) -> tuple[str, str]:
    """Papers stand in the order in which they appeared; an arXiv number begins with year and month."""
    name, paper = item
    return paper.facts.get("citation", {}).get("arxiv", "~"), name


def _module(home: Path) -> ModuleType:
    name = f"{__name__}.{home.name}"
    if name in sys.modules:
        return sys.modules[name]
    path = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def papers() -> dict[str, Paper]:
    """Every paper by name: a YAML file with a module or package beside it, here and in ``LBGAP_PAPERS``."""
    return dict(_discover(paths.extra_papers()))


def get(name: str) -> Paper:
    """A paper by name; ValueError names the accepted ones."""
    known = papers()
    if name not in known:
        raise ValueError(f"paper is '{name}'; accepted are {', '.join(known)}")
    return known[name]


def names(one: str | None = None) -> list[str]:
    """Every paper's name, or that of one; ValueError names the accepted ones."""
    return list(papers()) if one is None else [get(one).name]


def settings(name: str, **values: Any) -> Settings:
    """Validated settings of a paper; ValueError in one sentence."""
    of = get(name)
    chosen = of.settings(**values)
    if chosen.profile not in of.profiles:
        raise ValueError(f"profile is '{chosen.profile}'; {name} accepts {', '.join(of.profiles)}")
    return chosen
