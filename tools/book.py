"""Execute, build, refresh and check the book: `python tools/book.py STEP [CHAPTER ...]`. Run by the Makefile.

execute   run every chapter with papermill into _build/run; the checkout is not touched
html      build _build/html from the executed chapters; a warning is an error
check     are the images described, the numbers led to records, the local links good, the pages free of outside requests?
refresh   re-run the stored chapters in place, on committed records, without times or paths
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup
from papermill import inspect_notebook

import lbgap
from lbgap import pages, papers, report

ROOT = Path(__file__).resolve().parents[1]
BOOK, BUILD = ROOT / "book", ROOT / "_build"
RUN, SOURCE, HTML = BUILD / "run", BUILD / "src", BUILD / "html"
NOTEBOOKS = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints")
KERNEL = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # no debugger text on stderr
SHAPES_A_CHAPTER = (
    "lbgap/**/*.py",
    "lbgap/**/*.yaml",
    "lbgap/**/*.html",
    "book/example_paper/*.*",
    "results/**/*.json",
    "requirements.txt",
)


def chapters() -> list[Path]:
    """The notebooks of the table of contents, in its order."""

    def files(node):
        if isinstance(node, dict):
            for key, value in node.items():
                yield from [value] if key in ("file", "root") else files(value)
        elif isinstance(node, list):
            for item in node:
                yield from files(item)

    paths = [ROOT / f"{name}.ipynb" for name in files(yaml.safe_load((ROOT / "_toc.yml").read_text()))]
    return [path for path in paths if path.exists()]


def named(chosen: list[str]) -> list[Path]:
    """The chapters of these names, or all of them; an unknown name ends it with a sentence."""
    known = {path.stem: path for path in chapters()}
    for name in chosen:
        if name not in known:
            sys.exit(f"chapter is '{name}'; accepted are {', '.join(known)}")
    return [path for name, path in known.items() if not chosen or name in chosen]


def digest(notebook: Path, profile: str) -> str:
    """A hash of what shapes an executed chapter: itself, the library, the records, the pinned versions.

    A paper's chapter shows no other paper: their modules and records do not shape it.
    """
    value = hashlib.sha256(f"{profile} {sys.version_info[:3]}".encode())
    for path in [notebook, *sorted(p for pattern in SHAPES_A_CHAPTER for p in ROOT.glob(pattern) if shapes(notebook, p))]:
        value.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return value.hexdigest()


def shapes(notebook: Path, path: Path) -> bool:
    """Whether a file of the library or a record can change what a chapter shows."""
    others = set(papers.papers()) - {notebook.stem}
    if notebook.stem not in papers.papers():
        return True
    parts = path.relative_to(ROOT).parts
    if parts[0] == "book":  # the example that a page of its own shows
        return False
    if parts[0] == "results":
        return path.stem in _keys(notebook.stem) or path.parent == ROOT / "results"
    return not (parts[:2] == ("lbgap", "papers") and parts[2].removesuffix(path.suffix) in others)


@lru_cache
def _keys(paper: str) -> frozenset[str]:
    """The keys of every job of a paper's committed profiles, and of the runs that they need."""
    jobs = [job for study in report.committed_studies(paper) for job in study.jobs()]
    return frozenset(key for job in jobs for key in (job.key, *(weights.run.key for weights in job.parents)))


def execute(profile: str, force: bool, chosen: list[str]) -> None:
    """Run the chapters into `_build/run`; a chapter is kept when nothing that shapes it has changed."""
    RUN.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | KERNEL
    log = BUILD / "execution.json"  # chapter -> digest, profile, seconds
    done = json.loads(log.read_text()) if log.exists() else {}
    for notebook in named(chosen):
        name, output, key = notebook.stem, RUN / notebook.name, digest(notebook, profile)
        if not force and output.exists() and done.get(name, {}).get("digest") == key:
            print(f"{name}: unchanged", flush=True)
            continue
        print(f"{name}: executing, profile {profile}", flush=True)
        output.unlink(missing_ok=True)
        start, partial = time.monotonic(), BUILD / f"{name}.partial.ipynb"
        command = [sys.executable, "-m", "papermill", str(notebook), str(partial), "--kernel", "python3"]
        command += ["--cwd", str(RUN), "--no-progress-bar", "--log-level", "WARNING"]
        command += ["-p", "profile", profile] if "profile" in inspect_notebook(notebook) else []
        subprocess.run(command, check=True, env=environment)
        nbformat.write(tidy(nbformat.read(partial, as_version=4), keep_injected=True), output)
        partial.unlink()
        done[name] = {"digest": key, "profile": profile, "seconds": round(time.monotonic() - start, 1)}
        log.write_text(json.dumps(done, indent=1) + "\n")


def tidy(notebook, keep_injected: bool = False):
    """Remove what differs from run to run and from machine to machine: times, paths, injected cells."""
    if not keep_injected:
        own = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
        notebook.cells = own
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in (tags := cell.metadata.get("tags", [])) and "hide-input" not in tags:
            tags.append("hide-input")
        if not tags:
            cell.metadata.pop("tags", None)
    notebook.metadata.clear()
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def configuration() -> dict:
    """The book's settings, with a footer that says which state of the repository it was made from."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    url = config["repository"]["url"].rstrip("/")
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%h %cs"]
    found = subprocess.run(git, capture_output=True, text=True).stdout.split()  # empty: no repository
    state = ""
    if found:
        commit, date = found
        state = f", {date}, commit " + (f'<a href="{url}/commit/{commit}">{commit}</a>' if url else commit)
    licence = f'<a href="{url}/blob/main/LICENSE">MIT licence</a>' if url else "MIT licence"
    footer = f"Version {lbgap.__version__}{state}. {licence}."
    config["sphinx"]["config"]["html_theme_options"] |= {
        "extra_footer": footer,
        "repository_url": url,
        "use_repository_button": bool(url),
    }
    return config


def html() -> None:
    """Build the pages from one source folder: the settings, the executed chapters and MathJax."""
    missing = [path.name for path in chapters() if not (RUN / path.name).exists()]
    if missing:
        sys.exit(f"not executed yet: {', '.join(missing)}; run `python tools/book.py execute` first")
    for folder in (SOURCE, HTML, BUILD / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BOOK, SOURCE / "book", ignore=NOTEBOOKS)
    for path in chapters():
        shutil.copy(RUN / path.name, SOURCE / "book")
    # Records and numbers lie on the site where they lie seen from a notebook: ../results, downloads.
    downloads = SOURCE / "extra" / "book" / "downloads"
    downloads.mkdir(parents=True)
    pages.export(downloads)
    shutil.copytree(ROOT / "results", SOURCE / "extra" / "results", ignore=shutil.ignore_patterns(".*"))
    (SOURCE / "book" / "records-table.html").write_text(pages.records_table())
    shutil.copy(ROOT / "_toc.yml", SOURCE)
    (SOURCE / "_config.yml").write_text(yaml.safe_dump(configuration(), sort_keys=False, allow_unicode=True))
    mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = SOURCE / "mathjax-static" / "mathjax"
    target.mkdir(parents=True)
    shutil.copy(mathjax / "tex-svg-full.js", target)  # draws its glyphs: one file, no fonts
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(SOURCE)]
    command += ["--path-output", str(ROOT), "--all", "-n", "-W", "--keep-going", "--quiet"]
    subprocess.run(command, check=True)
    print(f"The book: {HTML / 'index.html'}")


class Page:
    """A built page: its elements, and its parts by id."""

    def __init__(self, path: Path):
        self.soup = BeautifulSoup(path.read_bytes(), "html.parser")
        with_id = self.soup.find_all(id=True)
        self.ids = Counter(element["id"] for element in with_id)
        self.places = {element["id"]: element for element in with_id}

    def undescribed(self) -> Iterator[str]:
        """Images and drawings without words."""
        for image in self.soup.find_all("img"):
            words = image.get("alt") or ""
            if len(words) < 10 or re.search(r"\.(png|svg|jpe?g)$", words):
                yield f"no alternative text for {image.get('src')} (it has {words!r})"
        for drawing in self.soup.find_all("svg", role="img"):
            if len(words := drawing.get("aria-label") or "") < 10:
                yield f"no alternative text for a drawing (it has {words!r})"

    def fetched(self) -> list[str]:
        """What a browser loads by itself."""
        kept = {"canonical", "next", "prev", "author"}
        links = [e["href"] for e in self.soup.find_all("link", href=True) if not kept & set(e.get("rel") or ())]
        return links + [e["src"] for e in self.soup.find_all(src=True)]

    def idle(self) -> Iterator[str]:
        """What is loaded for nothing: MathJax without a formula."""
        if not self.soup.find(class_="math"):
            yield from (url for url in self.fetched() if "mathjax" in url)

    def links(self) -> list[str]:
        """What a reader may follow."""
        return [e["href"] for e in self.soup.find_all("a", href=True)]

    def outside(self) -> Iterator[str]:
        """What is loaded from elsewhere, by an element or a script."""
        yield from (url for url in self.fetched() if re.match(r"(https?:)?//", url))
        for script in self.soup.find_all("script"):
            yield from re.findall(r"https?://[^\s\"']*(?:cdn|unpkg|jsdelivr|googleapis)[^\s\"']*", script.string or "")

    def numbers(self) -> list[str]:
        """Where its numbers lead."""
        return sorted({e["href"] for e in self.soup.find_all("a", class_="lbgap-number")})

    def has_record(self, id: str) -> bool:
        """Whether a place has a link to a record, in its row or beneath it; of no place, nothing is asked."""
        place = self.places.get(id)
        around = place and (place.find_parent("tr") or place.find_parent("details") or place.parent)
        return not around or bool(around.find("a", href=re.compile(r"\.json$")))


def check() -> None:
    """Exit with the list of what is wrong with the built pages."""
    faults = []
    built = {path: Page(path) for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts}
    for path, page in built.items():
        found = [*page.undescribed(), *(f"fetched from outside: {url}" for url in page.outside())]
        found += [f"fetched without need: {url}" for url in page.idle()]
        for url in sorted({*page.fetched(), *page.links()}):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.exists() if parts.path else True
            place = unquote(parts.fragment)
            if not there or (place and target in built and place not in built[target].ids):
                found.append(f"broken link to {url}")
        found += [f"the id {name} stands twice" for name, times in page.ids.items() if times > 1]
        for url in page.numbers():
            there, _, place = url.partition("#")
            target = built.get((path.parent / there).resolve() if there else path)
            if target and not target.has_record(place):
                found.append(f"a number leads to {url}, where no record is")
        faults += [f"{path.relative_to(HTML)}: {fault}" for fault in found]
    for path in HTML.rglob("*.css"):
        outside = re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)", path.read_text("utf-8"))
        faults += [f"{path.relative_to(HTML)}: fetched from outside: {url}" for url in outside]
    if faults or not built:
        sys.exit("\n".join(faults or [f"no pages in {HTML}"]))
    print(
        f"{len(built)} pages: every image described, every number with its records, every local link good, nothing from outside"
    )


def refresh(chosen: list[str]) -> None:
    """Re-run the committed chapters with their own default parameters and store the outputs in place."""
    from nbclient import NotebookClient

    os.environ |= KERNEL
    os.environ.pop("MPLBACKEND", None)  # a kernel chooses its own; another one would store no figures
    for path in named(chosen):
        notebook = tidy(nbformat.read(path, as_version=4))
        resources = {"metadata": {"path": str(BOOK)}}
        NotebookClient(
            notebook, kernel_name="python3", record_timing=False, coalesce_streams=True, resources=resources
        ).execute()
        text = nbformat.writes(tidy(notebook)) + "\n"
        if str(ROOT) in text or str(Path.home()) + os.sep in text:
            sys.exit(f"{path.name}: its outputs name a folder of this machine; nothing was written")
        print(f"{path.name}: {'unchanged' if path.read_text() == text else 'refreshed'}", flush=True)
        path.write_text(text)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("step", choices=("execute", "html", "check", "refresh"))
    parser.add_argument("chapter", nargs="*", help="of `execute` and `refresh`: these chapters alone")
    parser.add_argument("--profile", default="quick", help="what `execute` trains live (default: quick)")
    parser.add_argument("--force", action="store_true", help="execute chapters that have not changed, too")
    options = parser.parse_args()
    try:
        if options.step == "execute":
            execute(options.profile, options.force, options.chapter)
        elif options.step == "refresh":
            refresh(options.chapter)
        else:
            {"html": html, "check": check}[options.step]()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{options.step} failed: exit code {error.returncode}")


if __name__ == "__main__":
    main()
