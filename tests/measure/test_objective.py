"""A loss as a function of a flat displacement: values, gradients and the way back, on small networks."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from lbgap.measure import mean_cross_entropy
from lbgap.measure.objective import Objective


@pytest.fixture
def model(rng) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.fixture
def xy(rng) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(30, 4, dtype=torch.float64), torch.from_numpy(rng.integers(3, size=30))


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    """Mean cross entropy in nats."""
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("chunk", [1, 7, 30, 5000])
def test_mean_cross_entropy_is_the_formula_whatever_the_chunks(model, xy, chunk):
    terms = [float(t.detach()) for t in mean_cross_entropy(*xy, chunk=chunk)(model)]
    assert len(terms) == -(-30 // chunk)
    assert sum(terms) == pytest.approx(cross_entropy(model(xy[0]).detach().numpy(), xy[1].numpy()), rel=1e-12)


def test_a_loss_below_the_resolution_of_float32_is_not_lost():
    """Ten classes, the right one ahead by 20: log(1 + 9 exp(-20)), where float32 would say 0."""
    (term,) = mean_cross_entropy(20 * torch.eye(10), torch.arange(10))(nn.Identity())
    assert float(term) == pytest.approx(np.log1p(9 * np.exp(-20)), rel=1e-6)


# ---------------------------------------------------------------- value and gradient


def test_the_value_is_the_loss_of_the_displaced_weights(model, xy, rng):
    d = torch.from_numpy(rng.normal(size=count(model)))
    displaced = copy.deepcopy(model)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()) + d, displaced.parameters())
    value, _ = Objective(model, mean_cross_entropy(*xy)).value_and_gradient(d)
    assert value == pytest.approx(cross_entropy(displaced(xy[0]).detach().numpy(), xy[1].numpy()), rel=1e-12)


def test_the_value_alone_is_the_value_with_the_gradient(model, xy, rng):
    objective = Objective(model, mean_cross_entropy(*xy, chunk=7))
    d = torch.from_numpy(rng.normal(size=count(model)))
    value, _ = objective.value_and_gradient(d)
    objective.value_and_gradient(-d)
    assert objective.value(d) == value


def test_displacements_do_not_add_up(model, xy, rng):
    objective = Objective(model, mean_cross_entropy(*xy))
    d = torch.from_numpy(rng.normal(size=count(model)))
    first, _ = objective.value_and_gradient(d)
    objective.value_and_gradient(-3 * d)
    assert objective.value_and_gradient(d)[0] == first


def test_the_gradient_is_that_of_finite_differences(model, xy, rng):
    objective = Objective(model, mean_cross_entropy(*xy, chunk=7))
    at = torch.from_numpy(0.1 * rng.normal(size=count(model)))
    _, gradient = objective.value_and_gradient(at)
    h = 1e-5  # central differences: error of order h^2 and of 1e-16 / h
    unit = torch.eye(len(at), dtype=torch.float64)
    values = [[objective.value_and_gradient(at + s * h * e)[0] for s in (1, -1)] for e in unit]
    np.testing.assert_allclose(gradient.numpy(), [(up - down) / (2 * h) for up, down in values], atol=1e-8)


def test_the_product_with_the_hessian_is_the_difference_of_gradients(model, xy, rng):
    objective = Objective(model, mean_cross_entropy(*xy, chunk=7))
    at, v = (torch.from_numpy(scale * rng.normal(size=count(model))) for scale in (0.1, 1.0))
    h = 1e-5  # central differences: error of order h^2 and of 1e-16 / h
    up, down = (objective.value_and_gradient(at + s * h * v)[1] for s in (1, -1))
    product = objective.hessian_product(at, v)
    np.testing.assert_allclose(product.numpy(), ((up - down) / (2 * h)).numpy(), atol=1e-8)
    assert product.abs().max() > 1e-2


def test_a_linear_loss_has_no_curvature(xy):
    model = nn.Linear(4, 3, bias=False).double()
    objective = Objective(model, lambda m: (term for term in (m(xy[0]).sum(), m(xy[0]).square().sum())))
    v = torch.ones(12, dtype=torch.float64)
    expected = 2 * v.view(3, 4) @ xy[0].T @ xy[0]
    torch.testing.assert_close(objective.hessian_product(0 * v, v).view(3, 4), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_rounding_takes_of_a_step(dtype, rng):
    """Of a step of half a spacing from 1 all or as much again is lost; of one of the spacing itself nothing."""
    model, spacing = nn.Linear(3, 1, bias=False).to(dtype), torch.finfo(dtype).eps
    nn.init.ones_(model.weight)
    objective = Objective(model, lambda m: m.weight.sum())
    assert objective.rounded(torch.full((3,), spacing, dtype=dtype)) == 0
    assert objective.rounded(torch.full((3,), spacing / 2, dtype=dtype)) == 1
    assert objective.rounded(torch.full((3,), 1.25 * spacing, dtype=dtype)) == pytest.approx(0.2)


def test_a_loss_may_be_one_tensor_or_terms(model, xy):
    x, y = xy
    whole = Objective(model, lambda m: nn.functional.cross_entropy(m(x), y))
    terms = Objective(model, mean_cross_entropy(x, y, chunk=7))
    zero = torch.zeros(count(model), dtype=torch.float64)
    (one, gradient), (other, summed) = whole.value_and_gradient(zero), terms.value_and_gradient(zero)
    assert one == pytest.approx(other, rel=1e-12)
    torch.testing.assert_close(gradient, summed)


def test_gradients_are_found_where_they_are_switched_off(model, xy):
    objective, zero = Objective(model, mean_cross_entropy(*xy)), torch.zeros(count(model), dtype=torch.float64)
    expected = objective.value_and_gradient(zero)[1]
    with torch.no_grad():
        assert torch.equal(objective.value_and_gradient(zero)[1], expected)


def test_a_parameter_the_loss_does_not_use_has_gradient_zero(xy):
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(2, 2)}).double()
    objective = Objective(model, lambda m: nn.functional.cross_entropy(m["used"](xy[0]), xy[1]))
    _, gradient = objective.value_and_gradient(torch.zeros(count(model), dtype=torch.float64))
    assert gradient[:15].all() and not gradient[15:].any()


# ---------------------------------------------------------------- what moves, and the way back


def test_frozen_parameters_do_not_move(model, xy):
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    objective = Objective(model, mean_cross_entropy(*xy))
    assert len(objective.origin) == count(model) - 20
    objective.move(torch.ones(len(objective.origin), dtype=torch.float64))
    assert torch.equal(model[0].weight, before)


def test_a_shared_parameter_is_one_parameter(rng):
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    assert len(Objective(model, lambda m: m(torch.ones(1, 4)).sum()).origin) == 20


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_refused_in_any_layer(model, dtype):
    model[2].to(getattr(torch, dtype))
    with pytest.raises(ValueError, match=f"^model has weights in {dtype}, [^\n]*; accepted are float32 and float64$"):
        Objective(model, lambda m: torch.zeros(()))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda model: torch.zeros(3), "loss has shape (3,); accepted is a scalar, or scalar terms one by one"),
        (lambda model: 0.5, "loss is a float; accepted is a scalar tensor, or scalar terms one by one"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(model, loss, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        objective = Objective(model, loss)
        objective.value(torch.zeros_like(objective.origin))


def test_a_mean_loss_needs_as_many_targets_as_inputs(xy):
    x, y = xy
    with pytest.raises(ValueError, match=f"^x has {len(x)} examples and y has {len(y) - 1}; accepted are as many$"):
        mean_cross_entropy(x, y[1:])


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="^model has 0 trainable parameters; accepted is at least 1$"):
        Objective(nn.ReLU(), lambda m: torch.zeros(()))


@pytest.mark.parametrize("fails", [False, True])
def test_the_way_back_is_exact(model, xy, rng, fails):
    model.float()
    model[0].weight.data = model[0].weight.data.t().contiguous().t()  # another memory layout
    before = [(p.detach().numpy().tobytes(), p.stride(), p.data_ptr()) for p in model.parameters()]
    objective = Objective(model, mean_cross_entropy(xy[0].float(), xy[1]))
    try:
        with objective.restoring():
            for _ in range(3):
                objective.value_and_gradient(torch.from_numpy(rng.normal(size=count(model))).float())
            if fails:
                raise KeyError("midway")
    except KeyError:
        assert fails
    assert [(p.detach().numpy().tobytes(), p.stride(), p.data_ptr()) for p in model.parameters()] == before


def test_a_buffer_that_nothing_can_write_to_stops_no_way_back(model, xy, rng):
    """An expanded buffer shares one number: writing to it, even what it holds, is an error of torch's."""
    model[0].register_buffer("scales", torch.ones(1).expand(4))
    before = [p.detach().clone() for p in model.parameters()]
    objective = Objective(model, mean_cross_entropy(*xy))
    with objective.restoring():
        objective.value(torch.from_numpy(rng.normal(size=count(model))))
    assert all(map(torch.equal, before, model.parameters()))


def test_under_an_outer_autocast_the_weights_that_moved_are_those_that_are_read(model, xy, rng):
    objective = Objective(model.float(), mean_cross_entropy(xy[0].float(), xy[1]))
    displacements = [torch.from_numpy(rng.normal(size=count(model))).float() for _ in range(2)]
    alone = []
    for displacement in displacements:
        with torch.autocast("cpu", torch.bfloat16):
            alone.append(objective.value_and_gradient(displacement)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert [objective.value_and_gradient(displacement)[0] for displacement in displacements] == alone
    assert alone[0] != alone[1]


def test_gradients_of_the_model_are_not_touched(model, xy):
    model[0].weight.grad = torch.full_like(model[0].weight, 3.0)
    Objective(model, mean_cross_entropy(*xy)).value_and_gradient(torch.zeros(count(model), dtype=torch.float64))
    assert (model[0].weight.grad == 3).all() and model[0].bias.grad is None
