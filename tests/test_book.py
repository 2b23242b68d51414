"""The stored chapters are fit to publish: figures described, citations resolvable, no trace of a machine."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from lbgap import advice, papers, report

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


def sources(chapter) -> list[str]:
    """What the code cells of a chapter call."""
    return [cell.source for cell in chapter.cells if cell.cell_type == "code"]


def test_what_is_folded_away_says_what_it_is(chapter):
    prompts = [c.metadata.get("mystnb", {}).get("code_prompt_show") for c in chapter.cells if "hide-output" in tags(c)]
    assert None not in prompts and len(set(prompts)) == len(prompts)


def test_every_figure_has_a_caption_and_a_name_and_is_drawn_anew(chapter):
    """The layout of a drawing hangs on the fonts of a machine; the numbers beside it are compared instead."""
    for cell in chapter.cells:
        called = re.match(r"chapter\.(live_)?figure\(\"(\w+)\"\)$", cell.source)
        if cell.cell_type == "code" and called:
            shown = cell.metadata["mystnb"]
            assert shown["figure"]["caption"] and shown["figure"]["name"]
            if not called[1]:
                assert "nbval-ignore-output" in tags(cell)
                assert f'chapter.records("{called[2]}")' in sources(chapter)


NUMBER = re.compile(r"(?<!:::)\{([^{}`]+)\}(?!`)")


def ways(paper: str, of: str) -> list[str]:
    """The calls that put the fold of a table, figure or claim on its page."""
    studies = report.committed_studies(paper)
    if of in {c.id for study in studies for c in study.claims}:
        return ["chapter.verdicts()", f'chapter.records("{of}")']
    if of in {c.id for study in studies for c in study.questions}:
        return ["chapter.questions()", f'chapter.records("{of}")']
    table = of in {t.name for study in studies for t in study.tables}
    return [f'chapter.table("{of}")'] * table + [f'chapter.records("{of}")']


def leads_nowhere(name: str, paper: str, calls: str) -> str:
    """Why a number of a paper leads nowhere on the page that makes these calls; empty where it leads to its records."""
    found = ways(paper, name.partition(":")[0])
    return "" if any(way in calls for way in found) else f"{{{name}}} leads nowhere; it needs {' or '.join(found)}"


def test_every_number_in_prose_has_a_way_to_its_records(chapter):
    """A number that is filled in links to the fold of its table, figure or claim, and the page has that fold."""
    calls = "\n".join(sources(chapter))
    started = re.search(r'Chapter\("(\w+)"', calls)
    for source in sources(chapter):
        for name in NUMBER.findall(source) if source.startswith("chapter.prose(") else ():
            assert not leads_nowhere(name, started[1], calls)


def test_every_number_of_the_front_page_has_a_way_to_its_records():
    """It links to a fold of the page of the paper that it names; so do the gains of the table of advice."""
    calls = {
        path.stem: "\n".join(sources(nbformat.read(path, as_version=4))) for path in CHAPTERS if path.stem in papers.papers()
    }
    front = sources(nbformat.read(ROOT / "book" / "intro.ipynb", as_version=4))
    asked = [name.partition(":") for source in front if "prose(" in source for name in NUMBER.findall(source)]
    asked += [(gain["paper"], ":", gain["table"]) for row in advice.rows() for gain in row["gains"]]
    assert asked
    for paper, _, name in asked:
        assert not leads_nowhere(name, paper, calls[paper])


def test_no_result_is_typed_in_by_hand(chapter):
    """A mean with its deviation or its interval comes from records; what is typed in has no way to them."""
    for cell in chapter.cells:
        text = NUMBER.sub("", cell.source) if cell.cell_type == "markdown" or "prose(" in cell.source else ""
        assert not re.search(r"\d ?± ?\d|\[[+-]?\d[\d.,]*, [+-]?\d[\d.,]*\]", text)


def test_citations_resolve_and_keys_are_unique():
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), re.M)
    assert len(keys) == len(set(keys))
    for page in PAGES:
        for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text()):
            assert {key.strip() for key in cited.split(",")} <= set(keys), page.name


def test_a_page_with_faults_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "HTML", tmp_path)
    (tmp_path / "there.html").write_text("<p id='place'></p>")
    (tmp_path / "page.html").write_text(
        '<img src="data:," alt="figure.png"><svg role="img" aria-label="fig"></svg><script src="https://example.org/x.js"></script>'
        '<script src="there.html?mathjax"></script>'
        '<a href="gone.html">gone</a><a href="there.html#place">good</a><a href="there.html#nowhere">bad</a>'
        '<a href="#here">here</a>'
        '<a class="lbgap-number" href="#fold">1</a><p id="fold"></p><p id="fold"></p>'
        '<a class="lbgap-number" href="there.html#place">1</a>'
    )
    with pytest.raises(SystemExit) as stopped:
        tool.check()
    faults = str(stopped.value).splitlines()
    assert [fault.removeprefix("page.html: ") for fault in faults] == [
        "no alternative text for data:, (it has 'figure.png')",
        "no alternative text for a drawing (it has 'fig')",
        "fetched from outside: https://example.org/x.js",
        "fetched without need: there.html?mathjax",
        "broken link to #here",
        "broken link to gone.html",
        "broken link to there.html#nowhere",
        "the id fold stands twice",
        "a number leads to #fold, where no record is",
        "a number leads to there.html#place, where no record is",
    ]


def test_a_number_leads_to_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "HTML", tmp_path)
    (tmp_path / "ab.json").write_text("{}")
    (tmp_path / "page.html").write_text(
        "<a class='lbgap-number' href='#place'>1</a>"
        "<table><tr><th><span id='place'></span></th><td><a href='ab.json'>ab</a></td></tr></table>"
    )
    tool.check()


def test_a_chapter_is_shaped_by_its_own_paper_and_records_alone():
    keskar, status = (ROOT / "book" / f"{name}.ipynb" for name in ("keskar", "status"))
    claims = {name: ROOT / "lbgap" / "papers" / name / "claims.py" for name in ("keskar", "hoffer")}
    facts = ROOT / "lbgap" / "papers" / "hoffer.yaml"
    assert tool.shapes(keskar, claims["keskar"]) and not tool.shapes(keskar, claims["hoffer"])
    assert not tool.shapes(keskar, facts) and tool.shapes(status, facts)
    assert tool.shapes(keskar, ROOT / "lbgap" / "papers" / "walk.py")  # of no paper
    example = ROOT / "book" / "example_paper" / "halves.py"
    assert not tool.shapes(keskar, example) and tool.shapes(ROOT / "book" / "add_a_paper.ipynb", example)
    records = {path.stem: path for path in (ROOT / "results").glob("??/*.json")}
    own = {key for key, path in records.items() if tool.shapes(keskar, path)}
    wanted = {job.key for study in report.committed_studies("keskar") for job in study.jobs()}
    assert wanted & set(records) <= own < set(records)


def test_an_unknown_chapter_is_refused():
    with pytest.raises(SystemExit, match="^chapter is 'keskr'; accepted are intro, keskar"):
        tool.named(["keskr"])
