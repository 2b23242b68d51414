"""Five floors: a module knows only what stands on its own floor or below, and nothing knows itself in a circle."""

import ast
import graphlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import lbgap
from lbgap import papers

ROOT = Path(lbgap.__file__).parent
FLOORS = {
    5: {"cli", "chapter", "pages", "__main__"},
    4: {"report", "verdicts", "trace", "catalogue", "plots", "render", "badges", "prose", "advice"},
    3: {"sweep", "executors", "verify", "papers"},
    2: {"jobs", "records", "cost"},
    1: {
        "augment",
        "data",
        "evaluate",
        "measure",
        "models",
        "paths",
        "spec",
        "stats",
        "train",
        "ghost",
        "schedule",
        "pictures",
        "robust",
        "values",
        "sources",
        "networks",
        "measurements",
        "tasks",
        "gradient",
        "optimizers",
        "pauses",
        "ascent",
        "sam",
        "workers",
        "replicas",
    },
}
FLOOR = {part: floor for floor, parts in FLOORS.items() for part in parts}
FOREIGN_BELOW = {"torch", "numpy", "scipy", "sklearn", "PIL", "pydantic", "torchvision"}


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("lbgap", *path.relative_to(ROOT).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(name: str, top_only: bool = False) -> set[str]:
    """Modules that a module imports anywhere in its text (or when it is itself imported), by dotted name."""
    tree = ast.parse(MODULES[name].read_text())
    out: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                out.add(whole if whole in MODULES else node.module)
    return out


def part(name: str) -> str:
    """The part of the house that a module belongs to: lbgap.papers.keskar -> papers."""
    return name.split(".")[1]


def inside(name: str) -> set[str]:
    """The library's own modules that a module imports; the package itself (its version) stands below all."""
    return {m for m in imports(name) if m.split(".")[0] == "lbgap" and m != "lbgap"}


def test_every_part_has_its_floor():
    assert {part(name) for name in MODULES if name != "lbgap"} <= set(FLOOR)


def test_the_readme_shows_the_floors():
    shown, floor = {}, 0
    for line in (ROOT.parent / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and (cells[0].isdecimal() or (floor == 1 and not cells[0])):
            floor = int(cells[0] or floor)
            shown.setdefault(floor, set()).update(part.strip("/") for part in re.findall("`([^`]+)`", cells[1]))
    assert shown == {floor: parts - {"__main__"} for floor, parts in FLOORS.items()}


def test_imports_are_of_modules_that_exist():
    assert all(m in MODULES for name in MODULES for m in inside(name))


def test_no_import_runs_upward():
    upward = [(name, m) for name in MODULES if name != "lbgap" for m in inside(name) if FLOOR[part(m)] > FLOOR[part(name)]]
    assert upward == []


def test_no_circle():
    graph = {name: inside(name) - {name} for name in MODULES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_nor_between_parts():
    """A package is one part: its modules may know each other, but not through something outside."""
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        if name != "lbgap":
            graph.setdefault(part(name), set()).update(part(m) for m in inside(name) if part(m) != part(name))
    assert set(graphlib.TopologicalSorter(graph).static_order()) == {part(name) for name in MODULES if name != "lbgap"}


def test_one_version_everywhere():
    top = ROOT.parent
    stated = {tomllib.loads((top / "pyproject.toml").read_text())["project"]["version"]}
    stated.add(str(yaml.safe_load((top / "CITATION.cff").read_text())["version"]))
    assert stated == {lbgap.__version__}


def test_the_ground_floor_stands_on_torch_numpy_and_scipy():
    """spec reads the sizes of data sets, data its folders; nobody there knows pandas, plots or a command line."""
    standard = set(sys.stdlib_module_names)
    for name in MODULES:
        if name != "lbgap" and FLOOR[part(name)] == 1:
            outside = {m.split(".")[0] for m in imports(name)} - {"lbgap"} - standard
            assert outside <= FOREIGN_BELOW, name


def test_only_papers_know_a_paper():
    """A paper's networks are a model of its name; nothing else of the library speaks of it, other papers neither."""
    for paper in papers.papers():
        home = f"lbgap.papers.{paper}"
        assert home in MODULES
        known = {name for name in MODULES for m in inside(name) if f"{m}.".startswith(f"{home}.")}
        assert {name for name in known if not f"{name}.".startswith(f"{home}.")} == set()


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"lbgap.__main__"}))
def test_modules_say_what_they_are(name):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text()))


PROBE = """
import builtins, io, pathlib, sys
opened = []
def hook(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
sys.addaudithook(hook)
import {module}
from lbgap import paths
folder = str(paths.data())
assert "torchvision" not in sys.modules, "torchvision was imported"
assert "sklearn.datasets" not in sys.modules, "scikit-learn's data sets were imported"
read = [name for name in opened if name.startswith(folder) or name.endswith((".npz", ".csv.gz", "-ubyte"))]
assert not read, read
print(len(opened))
"""


@pytest.mark.parametrize("module", ["lbgap", "lbgap.cli"])
def test_importing_reads_no_data_and_no_torchvision(module, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent), "LBGAP_DATA": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE.format(module=module)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert done.stderr == ""
