"""The benchmark measures what training does, and keeps what it was not asked to measure. Nothing is timed here."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

SPEC = importlib.util.spec_from_file_location("benchmark_tool", Path(__file__).resolve().parents[1] / "tools" / "benchmark.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_the_gradient_lies_in_memory_as_the_output_does(memory, rng):
    norm, seen = nn.BatchNorm2d(3), []
    norm.register_full_backward_hook(lambda m, given, got: seen.append((given[0], got[0])))
    x = torch.randn(4, 3, 5, 6).to(memory_format=memory).requires_grad_()
    tool.forward_backward(norm, x)()
    assert all(gradient.is_contiguous(memory_format=memory) for gradient in seen[0])
    assert norm.weight.grad is None


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of two names, and measurements that take no time."""
    path = tmp_path / "benchmark.json"
    monkeypatch.setattr(tool, "FILE", path)
    line = {"what": "a", "against": "b", "ratio": 1.0, "least": 1.0, "greatest": 1.0, "milliseconds": 1.0}
    for number, name in enumerate(("ghost", "layout")):
        monkeypatch.setitem(tool.MEASURED, name, lambda device, n=number, name=name: [line | {"name": name, "ratio": n + 2.0}])
    monkeypatch.setattr(tool, "MEASURED", {name: tool.MEASURED[name] for name in ("ghost", "layout")})
    where = {"machine": f"one thread of {tool.jobs.processor()}", "torch": torch.__version__}
    path.write_text(json.dumps(where | {"ratios": [line | {"name": name} for name in ("ghost", "layout")]}))
    monkeypatch.setattr(tool.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tool.jobs, "keep_freed_memory", lambda: None)
    return path


@pytest.mark.parametrize(("names", "ratios"), [([], [2.0, 3.0]), (["layout"], [1.0, 3.0]), (["ghost"], [2.0, 1.0])], ids=str)
def test_ratios_that_were_not_asked_for_stay(names, ratios, file):
    tool.main(names)
    assert [line["ratio"] for line in json.loads(file.read_text())["ratios"]] == ratios


def test_ratios_of_another_machine_are_not_mixed_in(file):
    stored = json.loads(file.read_text()) | {"machine": "one thread of another"}
    file.write_text(json.dumps(stored))
    with pytest.raises(
        SystemExit, match="^benchmark.json is of one thread of another, [^\n]*; accepted elsewhere are all ratios"
    ):
        tool.main(["ghost"])
    assert json.loads(file.read_text()) == stored
    tool.main([])
    assert json.loads(file.read_text())["machine"] != stored["machine"]


def test_an_unknown_name_is_refused(file):
    before = file.read_text()
    with pytest.raises(SystemExit, match="^name is 'gohst'; accepted are ghost, layout$"):
        tool.main(["gohst"])
    assert file.read_text() == before
