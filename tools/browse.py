"""Open every page of the built book in headless Chromium: `python tools/browse.py [PAGE ...] [--pictures FOLDER]`.

On each page, in both themes and at two widths: no serious or critical issue of axe-core, no warning or error on the console,
nothing wider than the window, and on a wide one no table wider than its column.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HTML = Path(__file__).resolve().parents[1] / "_build" / "html"
THEMES, WIDTHS = ("light", "dark"), (1280, 390)
GRAVE = {"serious", "critical"}
PATIENCE = 300_000  # milliseconds; how fast a busy machine is, is no fault of a page
TOO_WIDE = """() => [...document.querySelectorAll("article .lbgap-scroll:not(details *)")]
    .filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => `${box.getAttribute("aria-label")} (${box.scrollWidth} in ${box.clientWidth})`)"""


def chromium() -> str | None:
    """The browser of this machine, if it has one."""
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return next((path for path in found if path), None)


def pages() -> list[str]:
    """The pages a reader sees, as paths below :data:`HTML`."""
    return sorted(f"book/{path.name}" for path in (HTML / "book").glob("*.html"))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder behind an address of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def faults(only: list[str] | None = None, pictures: Path | None = None) -> list[str]:
    """What is wrong with the pages, a line a fault; each page is also photographed where ``pictures`` names a folder."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    out = []
    with served(HTML) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name in only or pages():
            for theme in THEMES:
                for width in WIDTHS:
                    where = f"{name}, {theme}, {width}"
                    # colours on their way from one to another are none that a reader reads
                    still = {"color_scheme": theme, "reduced_motion": "reduce"}
                    page = browser.new_page(viewport={"width": width, "height": 900}, **still)
                    page.set_default_timeout(PATIENCE)
                    said = []
                    page.on("console", lambda m, said=said: said.append(f"{m.type}: {m.text}"))
                    page.on("pageerror", lambda error, said=said: said.append(f"error: {error}"))
                    page.goto(f"{address}/{name}", wait_until="load")
                    page.wait_for_function("document.readyState === 'complete'")
                    out += [f"{where}: console {text}" for text in said if text.startswith(("error", "warning"))]
                    if page.evaluate("document.documentElement.scrollWidth") > width:
                        out.append(f"{where}: the page is wider than the window")
                    if width == max(WIDTHS):
                        out += [f"{where}: wider than its column: {label}" for label in page.evaluate(TOO_WIDE)]
                    if pictures:
                        pictures.mkdir(parents=True, exist_ok=True)
                        page.screenshot(path=pictures / f"{Path(name).stem}-{theme}-{width}.png", full_page=True)
                    out += [
                        f"{where}: {issue['id']} ({issue['impact']}, {len(issue['nodes'])}): {issue['nodes'][0]['html'][:200]}"
                        for issue in Axe().run(page).response["violations"]
                        if issue["impact"] in GRAVE
                    ]
                    page.close()
        browser.close()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="book/keskar.html ... (default: all)")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the pages")
    options = parser.parse_args()
    if chromium() is None:
        sys.exit("no Chromium on this machine; accepted is chromium or google-chrome on the path")
    found = faults(options.pages, options.pictures)
    print("\n".join(found) or "every page: accessible, quiet and within its window")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
