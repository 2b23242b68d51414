"""Eigenvalues of the Hessian, against matrices known beforehand and against the Hessian of a network written out."""

import copy

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from test_sharpness import Counting, Weights, condition, linear, network, quadratic  # noqa: F401
from torch import nn

from lbgap.measure import largest_eigenvalues, mean_cross_entropy
from lbgap.measure.objective import Objective


def values(result: dict[str, float]) -> list[float]:
    return [value for name, value in result.items() if name.startswith("eigenvalue_")]


def written_out(model: nn.Module, loss) -> np.ndarray:
    """The Hessian in float64, by PyTorch's own second derivatives of a function of one vector."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    shapes = [model.get_parameter(name).shape for name in names]
    w = torch.cat([model.get_parameter(name).detach().reshape(-1) for name in names])

    def of(w: torch.Tensor) -> torch.Tensor:
        parts = (part.view(shape) for part, shape in zip(w.split([s.numel() for s in shapes]), shapes, strict=True))
        return loss(lambda x: torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)))

    return torch.autograd.functional.hessian(of, w).numpy()


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("n", [6, 60])
def test_of_a_quadratic_form_they_are_those_of_its_matrix(n, k, rng):
    a = rng.normal(size=(n, n))
    matrix = torch.from_numpy(a + a.T)
    model = Weights(rng.normal(size=n))
    result = largest_eigenvalues(model, lambda m: 0.5 * m.w @ matrix @ m.w + m.w.sum(), k, tolerance=1e-10)
    assert values(result) == pytest.approx(np.linalg.eigvalsh(matrix.numpy())[::-1][:k], rel=1e-8)
    assert result.keys() == {*(f"eigenvalue_{i}" for i in range(1, k + 1)), "residual", "products"}
    assert 0 <= result["residual"] < 1e-6 and result["products"] >= 1
    assert {type(v) for v in result.values()} == {float}


def test_the_residual_is_that_of_the_worst_pair(rng, monkeypatch):
    """Lanczos' method with the last of three vectors spoilt: |H v - lambda v| of each, by the matrix itself."""
    a = rng.normal(size=(20, 20))
    matrix, spoilt = a + a.T, []

    def method(operator, k, **options):
        values, vectors = eigsh(operator, k, **options)
        vectors[:, 0] += 0.1 * vectors[:, 1]  # of the smallest of the three
        spoilt.append((values, vectors))
        return values, vectors

    monkeypatch.setattr("lbgap.measure.curvature.eigsh", method)
    whole = torch.from_numpy(matrix)
    result = largest_eigenvalues(Weights(rng.normal(size=20)), lambda m: 0.5 * m.w @ whole @ m.w, 3, tolerance=1e-10)
    ((values, vectors),) = spoilt
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    assert residuals.argmax() == 0 and result["residual"] == pytest.approx(residuals[0])


def test_largest_is_meant_algebraically(rng):
    """Of a hill that is steepest where it falls."""
    result = largest_eigenvalues(Weights(rng.normal(size=5)), quadratic(np.array([-9.0, -1, -2, -3, -4]), np.zeros(5)), 2)
    assert values(result) == pytest.approx([-1, -2], rel=1e-4)


def test_of_a_loss_without_curvature_they_are_0():
    result = largest_eigenvalues(Weights(np.ones(5)), linear(np.ones(5), 0.0), 3)
    assert values(result) == [0, 0, 0] and result["residual"] == 0


@pytest.mark.parametrize("chunk", [7, 40])
def test_of_a_network_they_are_those_of_its_hessian_written_out(chunk, rng):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model[2].bias.requires_grad_(False)
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=40))
    expected = np.linalg.eigvalsh(written_out(model, lambda f: nn.functional.cross_entropy(f(x), y)))[::-1]
    result = largest_eigenvalues(model, mean_cross_entropy(x, y, chunk), 5, tolerance=1e-9)
    assert values(result) == pytest.approx(expected[:5], rel=1e-7)


@pytest.mark.parametrize("batch_norm", ["batch", "running"])
def test_batch_norm_is_read_as_asked(batch_norm, rng):
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    x, y = torch.randn(40, 4, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=40))
    model(3 * x + 1)
    other = copy.deepcopy(model).eval()
    if batch_norm == "batch":
        other[1].running_mean = other[1].running_var = None
    expected = np.linalg.eigvalsh(written_out(other, lambda f: nn.functional.cross_entropy(f(x), y)))[::-1]
    result = largest_eigenvalues(model, mean_cross_entropy(x, y), 2, batch_norm, tolerance=1e-9)
    assert values(result) == pytest.approx(expected[:2], rel=1e-6)


def test_float32_is_good_for_the_default_tolerance(rng):
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3))
    x, y = torch.randn(200, 10), torch.from_numpy(rng.integers(3, size=200))
    exact = largest_eigenvalues(copy.deepcopy(model).double(), mean_cross_entropy(x.double(), y), 3, tolerance=1e-9)
    assert values(largest_eigenvalues(model, mean_cross_entropy(x, y), 3)) == pytest.approx(values(exact), rel=1e-3)


@pytest.mark.parametrize("batch_norm", ["batch", "running", "reestimated"])
def test_the_network_comes_back_as_it_was(network, batch_norm):  # noqa: F811
    model, x, y = network
    before = condition(model)
    result = largest_eigenvalues(model, mean_cross_entropy(x, y, 25), 2, batch_norm, data=x)
    assert values(result)[0] >= values(result)[1]
    assert condition(model) == before


def test_buffers_of_ones_own_come_back_too(network):  # noqa: F811
    _, x, y = network
    model = Counting()
    largest_eigenvalues(model, mean_cross_entropy(x, y))
    assert model.calls == 0 and model.first is None


def test_attention_has_a_curvature():
    """Its fused kernels have no second derivative."""
    torch.manual_seed(0)
    model, x = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True), torch.randn(3, 5, 4)
    found = largest_eigenvalues(model, lambda m: m(x).square().mean(), 1)["eigenvalue_1"]
    objective = Objective(model, lambda m: m(x).square().mean())
    still = torch.zeros_like(objective.origin)
    hessian = torch.stack([objective.hessian_product(still, row) for row in torch.eye(len(still))])
    assert found == pytest.approx(float(torch.linalg.eigvalsh(hessian.double())[-1]), rel=1e-3)


def test_no_convergence_is_said(rng):
    """Two hundred eigenvalues close to one another, and one restart."""
    model, loss = Weights(rng.normal(size=200)), quadratic(np.linspace(1, 1.001, 200), np.zeros(200))
    with pytest.raises(
        ValueError, match=r"^iterations is 1; \d of 3 eigenvalues have come to the tolerance 1e-12, accepted are "
    ):
        largest_eigenvalues(model, loss, 3, iterations=1, tolerance=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [("k", 0), ("k", 5), ("k", 1.5), ("k", True), ("iterations", 0), ("tolerance", 0.0), ("tolerance", 1.0), ("seed", -1)],
)
def test_a_bad_argument_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is {value}; accepted is [^\n]*$"):
        largest_eigenvalues(Weights(np.ones(5)), linear(np.ones(5), 1.0), **{name: value})


def test_a_curvature_that_is_not_finite_is_refused():
    """|w|^1.5 has the slope 0 at 0 and no second derivative."""
    with pytest.raises(ValueError, match="^curvature is not finite at the solution; accepted is a finite curvature$"):
        largest_eigenvalues(Weights(np.zeros(5)), lambda m: m.w.abs().pow(1.5).sum())


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="^loss is nan at the solution; accepted is a finite loss$"):
        largest_eigenvalues(Weights(np.ones(5)), linear(np.ones(5), float("nan")))
