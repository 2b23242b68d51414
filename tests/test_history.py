"""The tool that keeps the history of the rules: it adds what changed, and nothing else."""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lbgap import papers

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("history_tool", ROOT / "tools" / "history.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def entry(*rules: str, why: str = "first fixed") -> dict:
    """An entry of an earlier day."""
    return {"date": datetime(2026, 1, 1, tzinfo=UTC), "rules": list(rules), "why": why, "moved": "–"}


def test_a_changed_rule_is_a_new_entry_and_an_unchanged_one_is_none():
    before = {"K1": [entry("a < 0")], "K2": [entry("b > 0")]}
    after = tool.extended(before, {"K1": ["a < 0"], "K2": ["b > 1"], "K3": ["c < 0"], "K4": []}, NOW, "because")
    assert after["K1"] == before["K1"]
    assert after["K2"][0] == before["K2"][0]
    new = {"date": NOW, "why": "because", "moved": ""}
    assert (after["K2"][1:], after["K3"], after["K4"]) == ([new | {"rules": ["b > 1"]}], [new | {"rules": ["c < 0"]}], [])
    assert list(after) == ["K1", "K2", "K3", "K4"]
    assert before == {"K1": [entry("a < 0")], "K2": [entry("b > 0")]}


@pytest.mark.parametrize("name", [name for name, of in papers.papers().items() if of.history])
def test_the_file_is_as_the_tool_writes_it(name):
    path = ROOT / "lbgap" / "papers" / name / "history.yaml"
    assert path.read_text() == tool.text(papers.get(name).history)
