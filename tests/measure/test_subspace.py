"""The random subspace: products and pseudo-inverse against the matrix written out, its distribution, and its memory."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lbgap.measure import RandomSubspace
from lbgap.measure.subspace import SCALES

N, P = 500, 12


@pytest.fixture(params=[1 << 16, 64, 7])
def rows(request, monkeypatch) -> int:
    """Rows generated at a time: all of the matrix, a few blocks, many; the last block is smaller."""
    monkeypatch.setattr(RandomSubspace, "ROWS", request.param)
    return request.param


def dense(a: RandomSubspace) -> np.ndarray:
    """A written out in float64, one column a unit vector."""
    return np.stack([a.matvec(e).double().numpy() for e in torch.eye(a.p)], axis=1)


def deviation(scale: str, n: int, p: int) -> float:
    return {"box": 1 / math.sqrt(p), "unit": 1 / math.sqrt(n), "standard": 1.0}[scale]


# ---------------------------------------------------------------- products


def test_products_are_those_of_one_matrix(rows, rng):
    a = RandomSubspace(N, P, seed=3)
    matrix = dense(a)
    assert matrix.shape == (N, P)
    y, v = torch.randn(P), torch.randn(N)
    # sums of P and of N float32 products
    np.testing.assert_allclose(a.matvec(y).numpy(), matrix @ y.numpy(), atol=1e-5)
    np.testing.assert_allclose(a.rmatvec(v).numpy(), matrix.T @ v.numpy(), atol=1e-4)


def test_the_two_products_are_adjoint(rows, rng):
    a = RandomSubspace(N, P, seed=3)
    y, v = torch.randn(P), torch.randn(N)
    left, right = float(a.matvec(y).double() @ v.double()), float(y.double() @ a.rmatvec(v))
    assert left == pytest.approx(right, abs=1e-5 * float(y.norm() * v.norm()))


@pytest.mark.parametrize("scale", SCALES)
def test_the_pseudo_inverse_is_that_of_numpy(rows, scale, rng):
    a, v = RandomSubspace(N, P, seed=3, scale=scale), torch.randn(N)
    expected = np.linalg.pinv(dense(a)) @ v.double().numpy()
    # float32 rounding of A'v, times a condition number below 2
    np.testing.assert_allclose(a.pinv(v).numpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_the_pseudo_inverse_finds_what_lies_in_the_subspace(rows, rng):
    a, y = RandomSubspace(N, P, seed=3), torch.randn(P)
    torch.testing.assert_close(a.pinv(a.matvec(y)), y.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [40, 79, 80])
@pytest.mark.parametrize("scale", SCALES)
def test_near_the_whole_space_the_pseudo_inverse_is_as_accurate(rows, p, scale, rng):
    """A is square or nearly so: its condition number costs some digits, its square would cost as many again."""
    a, v = RandomSubspace(80, p, seed=3, scale=scale), torch.randn(80, dtype=torch.float64)
    matrix = dense(a)
    expected = np.linalg.lstsq(matrix, v.numpy())[0]
    error = np.linalg.norm(a.pinv(v).numpy() - expected) / np.linalg.norm(expected)
    assert error < 10 * np.linalg.cond(matrix) * 80 * np.finfo(float).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_vectors_of_another_precision_are_multiplied_too(dtype, rng):
    a, y, v = RandomSubspace(N, P), torch.randn(P).to(dtype), torch.randn(N).to(dtype)
    torch.testing.assert_close(a.matvec(y).float(), a.matvec(y.float()), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(a.rmatvec(v), a.rmatvec(v.float()), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------- the entries


@pytest.mark.parametrize("scale", SCALES)
def test_entries_are_gaussian_of_the_stated_variance(scale):
    n, p = 4000, 50
    z = dense(RandomSubspace(n, p, seed=1, scale=scale)) / deviation(scale, n, p)
    # five standard errors of the mean, of the second and of the fourth moment of n p standard normals
    assert abs(z.mean()) < 5 / math.sqrt(n * p)
    assert np.mean(z**2) == pytest.approx(1, abs=5 * math.sqrt(2 / (n * p)))
    assert np.mean(z**4) == pytest.approx(3, abs=5 * math.sqrt(96 / (n * p)))


def test_no_two_rows_or_columns_are_alike(rows):
    """Also across blocks: a generator begun anew for each would repeat them."""
    matrix = dense(RandomSubspace(N, P, seed=1))
    for vectors in (matrix, matrix.T):
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors @ vectors.T / np.outer(lengths, lengths)
        np.fill_diagonal(cosines, 0)
        assert np.abs(cosines).max() < 0.999


def test_a_corner_of_the_default_box_moves_each_weight_by_epsilon_in_root_mean_square(rng):
    n, p, epsilon = 20_000, 100, 1e-3
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=p)).float()
    moved = RandomSubspace(n, p).matvec(epsilon * signs).double()
    # the mean of n squared normals has the standard error sqrt(2 / n)
    assert float(moved.square().mean()) == pytest.approx(epsilon**2, rel=5 * math.sqrt(2 / n))


def test_one_seed_is_one_matrix_and_another_seed_another(rows, rng):
    matrix = dense(RandomSubspace(N, P, seed=5))
    torch.randn(3)
    assert np.array_equal(dense(RandomSubspace(N, P, seed=5)), matrix)
    assert not np.allclose(dense(RandomSubspace(N, P, seed=6)), matrix)


def test_the_global_generator_is_not_used(rng):
    before = torch.get_rng_state()
    RandomSubspace(N, P).pinv(torch.ones(N))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("call", ["matvec", "rmatvec", "pinv"])
def test_the_matrix_is_never_stored(monkeypatch, call):
    monkeypatch.setattr(RandomSubspace, "ROWS", 32)
    n, p = 3000, 20
    a, argument = RandomSubspace(n, p), torch.ones(p if call == "matvec" else n)
    with Largest() as largest:
        getattr(a, call)(argument)
    assert 32 * p <= largest.elements <= max(32 * p, n, p * p)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("p", [0, -3, N + 1])
def test_a_dimension_outside_the_space_is_refused(p):
    with pytest.raises(ValueError, match=f"^p is {p}; accepted is 1 to the number of parameters, {N}$"):
        RandomSubspace(N, p)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="^scale is 'wide'; accepted are box, unit, standard or a number above 0$"):
        RandomSubspace(N, P, scale="wide")


def test_a_number_is_the_deviation_of_the_entries():
    """One basis, stretched: A y grows with the number and A^+ v shrinks."""
    y, v = torch.ones(3, dtype=torch.float64), torch.arange(50.0)
    standard, four = RandomSubspace(50, 3, scale="standard"), RandomSubspace(50, 3, scale=4.0)
    torch.testing.assert_close(four.matvec(y), 4 * standard.matvec(y))
    torch.testing.assert_close(four.pinv(v), standard.pinv(v) / 4)
    for scale in (0, -1.0, float("inf"), True):
        with pytest.raises(ValueError, match="^scale is .*; accepted are box, unit, standard or a number above 0$"):
            RandomSubspace(50, 3, scale=scale)
