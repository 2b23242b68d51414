"""Every page of the built book in headless Chromium, in both themes and at two widths."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("browse_tool", ROOT / "tools" / "browse.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

# Continuous integration builds the book first and has a browser: there, nothing is passed over.
REQUIRED = os.environ.get("LBGAP_PAGES") == "required"
needs_chromium = pytest.mark.skipif(not REQUIRED and tool.chromium() is None, reason="no Chromium on this machine")

GOOD = """<!doctype html><html lang="en"><head><title>A page</title><link rel="icon" href="data:,"></head>
<body><main><h1>A page</h1>{}</main></body></html>"""


@needs_chromium
@pytest.mark.skipif(not REQUIRED and not tool.pages(), reason="the book is not built; `make book` builds it")
def test_pages_are_accessible_quiet_and_within_their_window():
    assert tool.pages()
    assert tool.faults() == []


@needs_chromium
@pytest.mark.parametrize(
    ("inside", "fault"),
    [
        ("<p>Good.</p>", None),
        ("<p style='color: #bbb; background: #fff'>Pale.</p>", "color-contrast (serious"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "image-alt (critical"),
        ("<script>console.warn('careful')</script>", "console warning: careful"),
        ("<script>undefined.gone</script>", "console error: "),
        ("<p style='width: 2000px'>Wide.</p>", "the page is wider than the window"),
        (
            "<article><div class='lbgap-scroll' tabindex='0' role='region' aria-label='Far' style='overflow: auto'>"
            "<p style='width: 2000px'>Wide.</p></div></article>",
            "wider than its column: Far",
        ),
    ],
)
def test_a_fault_is_found(tmp_path, monkeypatch, inside, fault):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.html").write_text(GOOD.format(inside))
    monkeypatch.setattr(tool, "HTML", tmp_path)
    monkeypatch.setattr(tool, "THEMES", ("light",))
    monkeypatch.setattr(tool, "WIDTHS", (1280,))
    found = tool.faults()
    assert found == [] if fault is None else any(fault in line for line in found)
