"""Keep the history of the rules (lbgap/papers/<paper>/history.yaml): what was fixed or changed, and when.

Without an argument, an entry of now is added for each claim whose rules are no longer those of its last entry; say in it by
hand ``why``, and what it ``moved`` of a verdict. ``--from-git`` makes the whole history anew from the commits that touched the
rules, with their subjects for ``why``; entries that change words alone were then taken out by hand.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import yaml

from lbgap import papers
from lbgap.verdicts import rules_in_force

ROOT = Path(__file__).resolve().parents[1]
# what a tree of the past is asked: the rules of its papers, by claim, as rules_in_force has them where there is one
ASK = """
import json, re
from lbgap import papers
try:
    from lbgap.verdicts import rules_in_force
except ImportError:
    def rules_in_force(name):
        out = {}
        for profile in ("paper", "cpu"):
            study = papers.get(name).study(papers.settings(name, profile=profile))
            for claim in (*study.claims, *getattr(study, "questions", ())):
                texts = out.setdefault(claim.id, {})
                for s in claim.settings:
                    network = re.split("[,:]", s.label)[0]
                    texts[f"{s.label.removeprefix(network).lstrip(':, ')}: {s.rule}"] = None
                if claim.needed:
                    texts[f"on {claim.needed} of {len(claim.settings)} settings of profile {profile}"] = None
        return {claim: list(texts) for claim, texts in out.items()}
print(json.dumps({name: rules_in_force(name) for name in papers.papers()}))
"""


HEAD = """\
# When each rule was fixed or changed; made from the commits by tools/history.py, the words on why and what it moved by hand.
# Entries that changed words alone are left out; "judged today": the rule before, on the records that are there now.
"""


class Plain(yaml.SafeDumper):
    """YAML in which every entry stands for itself."""

    def ignore_aliases(self, data) -> bool:
        """No references from one entry to another."""
        return True


def text(history: dict) -> str:
    """A history as it stands in its file."""
    return HEAD + yaml.dump(history, Dumper=Plain, sort_keys=False, allow_unicode=True, width=120)


def git(*arguments: str) -> str:
    """What git answers."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def rules_at(commit: str) -> dict[str, dict[str, list[str]]]:
    """The rules of every paper at a commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit, "lbgap"], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)
        environment = os.environ | {"PYTHONPATH": folder}
        done = subprocess.run([sys.executable, "-c", ASK], cwd=folder, env=environment, check=True, capture_output=True)
        return json.loads(done.stdout)


def extended(history: dict, rules: dict[str, list[str]], date: datetime, why: str) -> dict:
    """A history with an entry for each claim whose rules are not those of its last entry."""
    out = {claim: list(entries) for claim, entries in history.items()}
    for claim, texts in rules.items():
        entries = out.setdefault(claim, [])
        if texts and (not entries or entries[-1]["rules"] != texts):
            entries.append({"date": date, "rules": texts, "why": why, "moved": ""})
    return {claim: out[claim] for claim in [*rules, *(set(out) - set(rules))]}


def main() -> None:
    """Write each paper's history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-git", action="store_true", help="make it anew from the commits")
    histories: dict[str, dict] = {}
    if parser.parse_args().from_git:
        commits = git("log", "--reverse", "--format=%H %aI %s", "--", "lbgap/papers", "lbgap/stats.py").splitlines()
        for commit, date, subject in (line.split(" ", 2) for line in commits):
            for name, rules in rules_at(commit).items():
                histories[name] = extended(histories.get(name, {}), rules, datetime.fromisoformat(date), subject)
    else:
        now = datetime.now(UTC).replace(microsecond=0)
        for name, paper in papers.papers().items():
            histories[name] = extended(dict(paper.history), rules_in_force(name), now, "")
    for name, history in histories.items():
        folder = ROOT / "lbgap" / "papers" / name
        if folder.is_dir():
            (folder / "history.yaml").write_text(text(history))
        else:
            print(f"paper is {name}, no package {folder}: it has no history", file=sys.stderr)


if __name__ == "__main__":
    main()
