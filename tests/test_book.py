"""The stored chapters are fit to publish: figures described, citations resolvable, no trace of a machine."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("book_tool", ROOT / "tools" / "book.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

CHAPTERS = tool.chapters()
PAGES = sorted((ROOT / "book").glob("*.md")) + CHAPTERS


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def test_every_notebook_is_in_the_table_of_contents():
    assert sorted((ROOT / "book").glob("*.ipynb")) == sorted(CHAPTERS)


def test_parameters_stand_in_one_cell(chapter):
    assert sum("parameters" in tags(cell) for cell in chapter.cells) <= 1
    assert not any("injected-parameters" in tags(cell) for cell in chapter.cells)


def test_nothing_of_a_run_or_a_machine_is_stored(chapter):
    text = nbformat.writes(chapter)
    assert not re.search(r"/home/|/Users/|/root/|/tmp/|[A-Z]:\\\\", text)
    assert "papermill" not in chapter.metadata
    assert chapter.metadata.kernelspec.name == "python3"


def test_every_cell_has_run_without_error_or_stderr(chapter):
    for cell in chapter.cells:
        if cell.cell_type == "code":
            assert cell.execution_count is not None
            assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs)


def test_every_figure_has_words_a_caption_and_a_name(chapter):
    for cell in chapter.cells:
        images = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        if images:
            assert len(images) == 1, "one figure a cell: the alternative text belongs to the cell"
            shown = cell.metadata["mystnb"]
            assert len(shown["image"]["alt"]) > 20
            assert shown["figure"]["caption"] and shown["figure"]["name"]


def test_citations_resolve_and_keys_are_unique():
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), re.M)
    assert len(keys) == len(set(keys))
    for page in PAGES:
        for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text()):
            assert {key.strip() for key in cited.split(",")} <= set(keys), page.name


def test_a_page_with_faults_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "HTML", tmp_path)
    (tmp_path / "page.html").write_text(
        '<img src="data:," alt="figure.png"><script src="https://example.org/x.js"></script><a href="gone.html">gone</a>'
    )
    with pytest.raises(SystemExit) as stopped:
        tool.check()
    report = str(stopped.value)
    assert "no alternative text" in report
    assert "https://example.org/x.js" in report
    assert "gone.html" in report
