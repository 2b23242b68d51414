"""Ghost batch norm, against plain batch norm run on one ghost batch after another, and against what Algorithm 1 says of it."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lbgap.evaluate import batch_norm_reading, loss_and_metric
from lbgap.ghost import GhostBatchNorm, convert

SIZE, FEATURES = 4, 3
RANKS = [(), (5,), (3, 2)]  # what follows (n, features)
EVEN = [8, 12]
UNEVEN = [9, 14, 10, 11, 15]  # remainders of 1, 2, 2, 3 and 3 in 2, 3, 2, 2 and 3 ghost batches


def batch(n: int, rest: tuple[int, ...] = (), dtype=torch.float64) -> Tensor:
    """Every feature with a mean and a deviation of its own; every example with some of its own too."""
    shape = (1, FEATURES, *[1] * len(rest))
    x = torch.randn(n, FEATURES, *rest, dtype=dtype) + torch.randn(n, *[1] * (len(rest) + 1), dtype=dtype)
    return x * (torch.rand(shape, dtype=dtype) + 0.5) + 3 * torch.randn(shape, dtype=dtype)


def parts(x: Tensor, size: int = SIZE) -> list[Tensor]:
    """The ghost batches: one after another of the given size, the last one to the end."""
    last = max(0, len(x) // size - 1)
    return [*(x[i * size : (i + 1) * size] for i in range(last)), x[last * size :]]


def ghost(size: int = SIZE, averaging: str = "sequential", **options) -> GhostBatchNorm:
    """A layer in float64 whose scales, shifts and running averages are not those it is made with."""
    return drawn(GhostBatchNorm(FEATURES, size, averaging, **options).double())


def plain(rest: tuple[int, ...], layer: GhostBatchNorm | None = None, **options) -> _BatchNorm:
    """Batch norm of that rank, with the parameters and buffers of a ghost batch norm."""
    norm = (nn.BatchNorm2d if len(rest) == 2 else nn.BatchNorm1d)(FEATURES, **options).double()
    if layer is not None:
        norm.load_state_dict(layer.state_dict())
    return norm


def drawn(layer: _BatchNorm) -> _BatchNorm:
    with torch.no_grad():
        if layer.affine:
            layer.weight.uniform_(0.5, 2)
            layer.bias.normal_()
        if layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return layer


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def backward(model: nn.Module, x: Tensor, direction: Tensor) -> dict[str, Tensor]:
    """The output, and the gradient of its product with a direction at the input and at every parameter."""
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(direction)
    return {"y": y.detach(), "x": x.grad} | {name: p.grad for name, p in model.named_parameters()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------- statistics of the ghost batches


@pytest.mark.parametrize("rest", RANKS, ids=str)
@pytest.mark.parametrize("n", [SIZE, *EVEN, *UNEVEN])
def test_each_ghost_batch_has_mean_0_and_variance_1(n, rest, rng):
    layer = GhostBatchNorm(FEATURES, SIZE, eps=1e-30, affine=False).double()
    for part in parts(layer(batch(n, rest))):
        values = part.transpose(0, 1).reshape(FEATURES, -1).numpy()
        np.testing.assert_allclose(values.mean(1), 0, atol=1e-12)
        np.testing.assert_allclose(values.var(1), 1, rtol=1e-12)


@pytest.mark.parametrize("averaging", ["sequential", "mean"])
@pytest.mark.parametrize("rest", RANKS, ids=str)
@pytest.mark.parametrize("n", EVEN + UNEVEN)
def test_output_and_gradients_are_those_of_batch_norm_on_one_part_after_another(n, rest, averaging, rng):
    layer, x = ghost(averaging=averaging), batch(n, rest)
    direction = torch.randn_like(x)
    reference = plain(rest, layer)
    got = backward(layer, x, direction)
    expected = [backward(reference, *pair) for pair in zip(parts(x), parts(direction), strict=True)]
    for name in ("y", "x"):
        torch.testing.assert_close(got[name], torch.cat([part[name] for part in expected]))
    for name, p in reference.named_parameters():  # backward adds up
        torch.testing.assert_close(got[name], p.grad)


@pytest.mark.parametrize("n", EVEN + UNEVEN)
def test_an_example_is_seen_by_its_own_ghost_batch_alone(n, rng):
    layer, x = ghost(), batch(n)
    before = layer(x)
    for i in range(n):
        other = x.clone()
        other[i] += torch.randn(FEATURES)
        changed = (layer(other) != before).any(1)
        bounds = np.cumsum([0, *map(len, parts(x))])
        k = np.searchsorted(bounds, i, side="right")
        assert changed.nonzero().flatten().tolist() == list(range(bounds[k - 1], bounds[k]))


@pytest.mark.parametrize("n", [8, 9])
def test_memory_in_channels_last_changes_neither_the_values_nor_itself(n, rng):
    """Two ghost batches on a CPU, and in one pass as on an accelerator."""
    x, direction = batch(n, (3, 2)), torch.randn(n, FEATURES, 3, 2, dtype=torch.float64)
    layer = ghost()
    expected = backward(copy.deepcopy(layer), x, direction)
    last = backward(layer, x.contiguous(memory_format=torch.channels_last), direction)
    assert last["y"].is_contiguous(memory_format=torch.channels_last)
    assert expected["y"].is_contiguous()
    for name in expected:
        torch.testing.assert_close(last[name], expected[name])
    if n == 8:
        y = layer._in_one_pass(x.contiguous(memory_format=torch.channels_last), 2)[0]
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y.detach(), expected["y"])
        assert layer._in_one_pass(x, 2)[0].is_contiguous()


@pytest.mark.parametrize("rest", RANKS, ids=str)
def test_gradients_agree_with_finite_differences(rest, rng):
    """In turn, with a remainder, and in one pass."""
    layer = ghost(size=3)
    x = batch(7, rest).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, layer.weight, layer.bias))
    x = batch(6, rest).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer._in_one_pass(x, 2)[0], (x, layer.weight, layer.bias))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rest", RANKS, ids=str)
def test_one_pass_and_one_after_another_agree(rest, affine, rng):
    layer, x = ghost(affine=affine), batch(12, rest)
    direction, seen = torch.randn_like(x), []
    for path in (layer._in_one_pass, layer._in_turn):
        layer.zero_grad()
        inputs = x.clone().requires_grad_()
        y, mean, variance = path(inputs, 3)
        y.backward(direction)
        seen.append([y.detach(), mean, variance, inputs.grad, *(p.grad for p in layer.parameters())])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other)
    # and both are what NumPy finds
    values = x.unflatten(0, (3, 4)).transpose(1, 2).reshape(3, FEATURES, -1).numpy()
    np.testing.assert_allclose(seen[0][1].numpy(), values.mean(2), rtol=1e-9)
    np.testing.assert_allclose(seen[0][2].numpy(), values.var(2, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("n", [8, 9])
def test_a_layer_without_memory_can_be_run(n):
    """Sizes only, as they are counted on PyTorch's device "meta"."""
    with torch.device("meta"):
        layer = GhostBatchNorm(FEATURES, SIZE)
        assert layer(torch.zeros(n, FEATURES, 5, 5)).shape == (n, FEATURES, 5, 5)


@pytest.mark.parametrize("n", EVEN + UNEVEN)
def test_off_the_cpu_one_pass_is_for_ghost_batches_of_one_size_alone(n, monkeypatch):
    """The device "meta" stands for an accelerator."""
    taken = []
    for name in ("_in_one_pass", "_in_turn"):
        path = getattr(GhostBatchNorm, name)
        monkeypatch.setattr(GhostBatchNorm, name, lambda *a, name=name, path=path: (taken.append(name), path(*a))[1])
    with torch.device("meta"):
        GhostBatchNorm(FEATURES, SIZE)(torch.zeros(n, FEATURES))
    sizes = {len(part) for part in parts(torch.zeros(n))}
    assert taken == ["_in_one_pass" if len(sizes) == 1 else "_in_turn"]


# ---------------------------------------------------------------- a batch of one ghost batch, and evaluation


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("rest", RANKS, ids=str)
@pytest.mark.parametrize("n", [2, SIZE, 2 * SIZE - 1])
def test_a_batch_of_one_ghost_batch_or_less_is_that_of_batch_norm(n, rest, momentum, rng):
    """To the bit, over two updates: outputs, gradients, running averages and their count."""
    layer = ghost(momentum=momentum)
    reference = plain(rest, layer, momentum=momentum)
    for _ in range(2):
        x = batch(n, rest)
        direction = torch.randn_like(x)
        assert equal(backward(layer, x, direction), backward(reference, x, direction))
        assert equal(layer.state_dict(), reference.state_dict())


@pytest.mark.parametrize("rest", RANKS, ids=str)
def test_evaluation_is_that_of_batch_norm(rest, rng):
    layer = ghost()
    for _ in range(2):
        layer(batch(14, rest))
    reference, before = plain(rest, layer).eval(), copy.deepcopy(layer.state_dict())
    x = batch(14, rest)
    assert torch.equal(layer.eval()(x), reference(x))
    assert equal(layer.state_dict(), before)


def test_without_buffers_evaluation_reads_the_whole_batch(rng):
    layer, x = ghost(track_running_stats=False), batch(14)
    reference = plain((), layer, track_running_stats=False)
    torch.testing.assert_close(layer(x)[:SIZE], reference(x[:SIZE]))
    assert torch.equal(layer.eval()(x), reference.eval()(x))


# ---------------------------------------------------------------- running averages


def statistics(x: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and unbiased variance of every ghost batch."""
    values = [part.transpose(0, 1).reshape(FEATURES, -1).numpy() for part in parts(x)]
    return [(v.mean(1), v.var(1, ddof=1)) for v in values]


@pytest.mark.parametrize("averaging", ["sequential", "mean"])
@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, None])
@pytest.mark.parametrize("rest", RANKS, ids=str)
def test_running_averages_are_those_of_a_loop_over_ghost_batches(rest, momentum, averaging, rng):
    """r <- (1 - m) r + m s for each ghost batch, or for their mean once a batch; without a momentum the mean of all so far."""
    layer = ghost(averaging=averaging, momentum=momentum)
    running, count = [layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()], 0
    for n in (12, 14, 3, 9):
        x = batch(n, rest)
        layer(x)
        found = statistics(x)
        if averaging == "mean":
            found = [tuple(np.mean(values, axis=0) for values in zip(*found, strict=True))]
        for new in found:
            count += 1
            m = 1 / count if momentum is None else momentum
            running = [(1 - m) * old + m * value for old, value in zip(running, new, strict=True)]
        assert int(layer.num_batches_tracked) == count
        np.testing.assert_allclose(layer.running_mean.numpy(), running[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), running[1], rtol=1e-9)


@pytest.mark.parametrize("n", UNEVEN)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_averages_are_those_of_batch_norm_run_on_one_part_after_another(n, momentum, rng):
    layer, x = ghost(momentum=momentum), batch(n)
    reference = plain((), layer, momentum=momentum)
    layer(x)
    for part in parts(x):
        reference(part)
    torch.testing.assert_close(layer.state_dict(), reference.state_dict())


def test_a_momentum_of_0_leaves_the_running_averages_alone(rng):
    layer = ghost(momentum=0.0)
    before = copy.deepcopy(layer.state_dict())
    layer(batch(12))
    after = layer.state_dict()
    assert int(after.pop("num_batches_tracked")) == 3 and before.pop("num_batches_tracked") == 0
    assert equal(after, before)


def test_averagings_differ_in_the_averages_alone(rng):
    one, x = ghost(), batch(12)
    other = ghost(averaging="mean")
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    assert (one.running_mean != other.running_mean).all() and (one.running_var != other.running_var).all()


# ---------------------------------------------------------------- networks


class Branches(nn.Module):
    """Batch norms at several depths: inside a list, a dictionary and a residual block, under odd names."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), nn.ReLU())
        self.inner = nn.ModuleDict({"left": nn.ModuleList([nn.BatchNorm2d(4, affine=False)]), "right": nn.Identity()})
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 5))
        self.last = nn.BatchNorm1d(5, track_running_stats=False)

    def forward(self, x):
        x = self.stem(x)
        return self.last(self.head(x + self.inner["left"][0](x)))


@pytest.fixture
def model(rng) -> nn.Module:
    """Some scales and running averages of its own, and a layer in evaluation mode."""
    model = Branches().double()
    for layer in norms(model):
        drawn(layer)
    model.head[2].eval()
    return model


@pytest.mark.parametrize("n", [12, 14, 15])
def test_a_converted_network_is_gradient_accumulation_over_ghost_batches(n, rng):
    """As the released code trains: the network on one ghost batch after another, gradients added up, then one update."""
    reference = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)
    ).double()  # fmt: skip
    converted = convert(copy.deepcopy(reference), SIZE)
    x, y = torch.randn(n, 1, 5, 5, dtype=torch.float64), torch.from_numpy(rng.integers(5, size=n))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (reference, converted)]
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for part, labels in zip(parts(x), parts(y), strict=True):
            (F.cross_entropy(reference(part), labels) * len(part) / n).backward()
        F.cross_entropy(converted(x), y).backward()
        for p, q in zip(reference.parameters(), converted.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(converted.state_dict(), reference.state_dict())


def test_conversion_replaces_every_batch_norm_and_nothing_else(model):
    before = dict(model.named_modules())
    assert convert(model, SIZE, "mean") is model
    after = dict(model.named_modules())
    assert after.keys() == before.keys()
    for name, module in after.items():
        if isinstance(before[name], _BatchNorm):
            assert type(module) is GhostBatchNorm
            assert (module.ghost_batch_size, module.averaging) == (SIZE, "mean")
        else:
            assert module is before[name]


def test_conversion_keeps_parameters_buffers_and_settings(model):
    """The very tensors: an optimizer made before goes on with them."""
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    model.stem[1].weight.requires_grad_(False)
    settings = [(m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats, m.training) for m in norms(model)]
    state = copy.deepcopy(model.state_dict())
    convert(model, SIZE)
    assert [*model.state_dict()] == [*state] and equal(model.state_dict(), state)
    for found, kept in ((dict(model.named_parameters()), parameters), (dict(model.named_buffers()), buffers)):
        assert [*found] == [*kept] and all(found[k] is kept[k] for k in kept)
    assert not model.stem[1].weight.requires_grad
    assert settings == [(m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats, m.training) for m in norms(model)]
    assert len({setting[2] for setting in settings}) == 3 and {setting[5] for setting in settings} == {True, False}


def test_weights_go_to_and_fro_between_a_network_and_its_conversion(model, rng):
    other = convert(Branches().double(), SIZE)
    other.load_state_dict(model.state_dict())
    x = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    assert torch.equal(other.eval()(x), model.eval()(x))
    other.train()(torch.randn(12, 1, 3, 3, dtype=torch.float64))
    model.load_state_dict(other.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))


def test_a_parameter_that_two_layers_share_stays_one(rng):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    model[2].weight = model[0].weight
    convert(model, SIZE)
    assert model[2].weight is model[0].weight and model[2].bias is not model[0].bias
    assert len(list(model.parameters())) == 5


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_stands_in_two_places_is_replaced_in_both(nested, rng):
    shared = nn.BatchNorm1d(3)
    if nested:
        model = nn.Sequential(nn.Sequential(shared), nn.Linear(3, 3), nn.Sequential(shared))
    else:
        model = nn.Sequential(shared, nn.Linear(3, 3), shared)
    reference = copy.deepcopy(model).double()
    convert(model.double(), SIZE)
    x = batch(12)
    # the later place sees its ghost batches after the earlier one has seen all of its own: outputs alone can be compared
    torch.testing.assert_close(model(x), torch.cat([reference(part) for part in parts(x)]))
    assert len(norms(model)) == 1  # one layer with one set of running averages, as before


def test_a_model_that_is_itself_a_batch_norm_is_returned_replaced(rng):
    norm = nn.BatchNorm1d(FEATURES, momentum=0.2).double().eval()
    layer = convert(norm, SIZE)
    assert type(layer) is GhostBatchNorm and layer.weight is norm.weight and layer.running_var is norm.running_var
    assert layer.momentum == 0.2 and not layer.training
    x = batch(12)
    torch.testing.assert_close(layer.train()(x), torch.cat([norm.train()(part) for part in parts(x)]))


def test_a_layer_says_what_it_is():
    text = repr(convert(nn.BatchNorm1d(5, momentum=0.3), 16, "mean"))
    assert all(part in text for part in ("GhostBatchNorm(5", "momentum=0.3", "ghost_batch_size=16", "averaging=mean"))


# ---------------------------------------------------------------- half precision, and the readings of evaluation


def test_under_autocast_it_is_still_batch_norm_on_one_part_after_another(rng):
    """What a convolution answers in bfloat16; statistics and running averages stay in float32, as batch norm keeps them."""
    reference = nn.BatchNorm2d(4)
    layer = convert(copy.deepcopy(reference), SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        x = nn.Conv2d(1, 4, 3)(3 * torch.randn(14, 1, 5, 5) + 1).detach()
        direction = torch.randn(x.shape).bfloat16()
        got = backward(layer, x, direction)
        expected = [backward(reference, *pair) for pair in zip(parts(x), parts(direction), strict=True)]
    assert x.dtype == got["y"].dtype == torch.bfloat16
    for name in ("y", "x"):
        assert torch.equal(got[name], torch.cat([part[name] for part in expected]))
    for name, p in reference.named_parameters():
        torch.testing.assert_close(got[name], p.grad)
    torch.testing.assert_close(layer.state_dict(), reference.state_dict())


def test_in_one_pass_under_autocast_the_statistics_are_those_of_float32(rng):
    layer = GhostBatchNorm(FEATURES, SIZE)
    x = batch(12, (3, 2), torch.float32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        one, other = layer._in_one_pass(x, 3), layer._in_turn(x, 3)
    for got, expected in zip(one, other, strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)
    assert one[0].dtype == torch.bfloat16 and one[1].dtype == one[2].dtype == torch.float32


def test_reading_the_batch_takes_the_whole_chunk(rng):
    layer, x = ghost(), batch(14)
    reference = plain((), layer)
    with batch_norm_reading(layer, "batch"):
        got = layer(x)
    torch.testing.assert_close(got, reference(x))


def test_reading_the_running_averages_is_that_of_batch_norm(rng):
    layer, x = ghost(), batch(14)
    with batch_norm_reading(layer, "running"):
        got = layer(x)
    assert torch.equal(got, plain((), layer).eval()(x))


@pytest.mark.parametrize("averaging", ["sequential", "mean"])
def test_reestimation_averages_over_ghost_batches(averaging, rng):
    """Of training data in chunks of three ghost batches: what the running averages estimate, under the present weights."""
    layer, x = ghost(averaging=averaging), batch(24)
    with batch_norm_reading(layer, "reestimated", x, chunk=12):
        mean, variance = layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()
    found = statistics(x)
    np.testing.assert_allclose(mean, np.mean([s[0] for s in found], axis=0), rtol=1e-9)
    np.testing.assert_allclose(variance, np.mean([s[1] for s in found], axis=0), rtol=1e-9)


@pytest.mark.parametrize("reading", ["batch", "running", "reestimated"])
def test_a_reading_leaves_the_network_as_it_was(model, reading, rng):
    convert(model, SIZE)
    before = copy.deepcopy(model.state_dict())
    settings = [(m.training, m.momentum) for m in norms(model)]
    x, y = torch.randn(30, 1, 3, 3, dtype=torch.float64), torch.arange(30) % 5
    loss_and_metric(model, x, y, reading, chunk=13, estimate_on=x)
    assert equal(model.state_dict(), before)
    assert [(m.training, m.momentum) for m in norms(model)] == settings


# ---------------------------------------------------------------- half precision throughout, vmap, what backward keeps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rest", RANKS, ids=str)
@pytest.mark.parametrize("n", [8, 9])
def test_a_layer_of_half_precision_is_batch_norm_of_half_precision_on_each_part(n, rest, dtype, rng):
    layer = drawn(GhostBatchNorm(FEATURES, SIZE)).to(dtype)
    reference = (nn.BatchNorm2d if len(rest) == 2 else nn.BatchNorm1d)(FEATURES).to(dtype)
    reference.load_state_dict(layer.state_dict())
    x = batch(n, rest, torch.float32).to(dtype)
    direction = torch.randn(x.shape).to(dtype)
    got = backward(layer, x, direction)
    expected = [backward(reference, *pair) for pair in zip(parts(x), parts(direction), strict=True)]
    assert {v.dtype for v in [*got.values(), layer.running_mean, layer.running_var]} == {dtype}
    step = torch.finfo(dtype).eps  # of the rounding of every value, on either side; gradients add up some of them
    for name in ("y", "x"):
        torch.testing.assert_close(got[name], torch.cat([part[name] for part in expected]), rtol=4 * step, atol=4 * step)
    for name, p in reference.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=8 * step, atol=8 * step)
    torch.testing.assert_close(layer.state_dict(), reference.state_dict(), rtol=4 * step, atol=4 * step)
    if n == 8:
        torch.testing.assert_close(layer._in_one_pass(x, 2), layer._in_turn(x, 2), rtol=step, atol=step)


@pytest.mark.parametrize("n", [SIZE, 9])
@pytest.mark.parametrize("first", ["evaluation", "training"])
def test_an_update_between_forward_and_backward_changes_no_gradient(first, n, rng):
    """Two passes and one backward: each part of the sum has the gradient it has alone."""
    layer, x, later = ghost(), batch(SIZE), batch(n)
    layer.train(first == "training")

    def gradients(between: bool) -> list[Tensor]:
        one = copy.deepcopy(layer)
        inputs = x.clone().requires_grad_()
        y = one(inputs).square().sum()
        if between:
            for _ in range(2):
                one.train()(later)
        y.backward()
        return [inputs.grad, one.weight.grad, one.bias.grad]

    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False), strict=True))


@pytest.mark.parametrize("path", ["_in_turn", "_in_one_pass"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_stacked_networks_under_vmap_are_the_single_ones(path, last, monkeypatch, rng):
    """Outputs, gradients and running averages of three networks at once."""
    monkeypatch.setattr(GhostBatchNorm, "_in_turn", getattr(GhostBatchNorm, path))
    models = [nn.Sequential(nn.Conv2d(2, FEATURES, 3), ghost()).double() for _ in range(3)]
    x = torch.randn(3, 2 * SIZE, 2, 5, 5, dtype=torch.float64)
    if last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters, buffers, x):
        return torch.func.functional_call(models[0], (parameters, buffers), (x,)).pow(3).sum()

    gradients, values = torch.func.vmap(torch.func.grad_and_value(loss))(parameters, buffers, x)
    for i, model in enumerate(models):
        value = model(x[i]).pow(3).sum()
        value.backward()
        torch.testing.assert_close(values[i], value.detach())
        for name, p in model.named_parameters():
            torch.testing.assert_close(gradients[name][i], p.grad)
        for name, b in model.named_buffers():
            torch.testing.assert_close(buffers[name][i], b)


@pytest.mark.parametrize("n", [SIZE, 2 * SIZE])
def test_under_vmap_running_averages_that_are_not_mapped_are_refused(n):
    layer, x = ghost(), torch.ones(2, n, FEATURES, dtype=torch.float64)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError) as caught:
        torch.func.vmap(layer)(x)
    assert str(caught.value) == "running averages are one for all that vmap maps over; accepted are stacked ones, or none"
    assert equal(layer.state_dict(), before)
    assert torch.func.vmap(layer.eval())(x).shape == x.shape


@pytest.mark.parametrize("momentum", [0.2, None])
def test_without_a_count_the_averages_are_those_of_batch_norm_without_one(momentum, rng):
    """Without a momentum either, batch norm leaves its averages alone."""
    layer, x = ghost(momentum=momentum), batch(14)
    reference = plain((), layer, momentum=momentum)
    layer.num_batches_tracked = reference.num_batches_tracked = None
    got, expected = layer(x), torch.cat([reference(part) for part in parts(x)])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(layer.state_dict(), reference.state_dict())
    with batch_norm_reading(layer, "reestimated", x):
        assert torch.equal(layer.num_batches_tracked, torch.tensor(len(parts(x))))
    assert layer.num_batches_tracked is None


# ---------------------------------------------------------------- what conversion keeps, and what it refuses


def test_batch_norm_of_volumes_is_converted_too(rng):
    reference = nn.BatchNorm3d(FEATURES).double()
    layer, x = convert(copy.deepcopy(reference), SIZE), batch(9, (2, 3, 2))
    torch.testing.assert_close(layer(x), torch.cat([reference(part) for part in parts(x)]))
    torch.testing.assert_close(layer.state_dict(), reference.state_dict())
    torch.testing.assert_close(layer._in_one_pass(x[:8], 2), layer._in_turn(x[:8], 2))


def test_conversion_keeps_hooks_and_attributes(rng):
    norm, seen = nn.BatchNorm1d(FEATURES).double(), []
    norm.note = "mine"
    handles = [
        norm.register_forward_pre_hook(lambda m, args: seen.append(("before", m))),
        norm.register_forward_hook(lambda m, args, out: seen.append(("after", m))),
        norm.register_full_backward_hook(lambda m, given, got: seen.append(("backward", m))),
    ]
    layer = convert(nn.Sequential(norm), SIZE)[0]
    layer(batch(8).requires_grad_()).sum().backward()
    assert seen == [("before", layer), ("after", layer), ("backward", layer)] and layer.note == "mine"
    for handle in handles:
        handle.remove()
    layer(batch(8))
    assert len(seen) == 3


class Doubled(nn.BatchNorm1d):
    """A subclass with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


def _parametrized() -> nn.Module:
    norm = nn.BatchNorm1d(FEATURES)
    nn.utils.parametrize.register_parametrization(norm, "weight", nn.Softplus())
    return norm


def _overridden() -> nn.Module:
    norm = nn.BatchNorm1d(FEATURES)
    norm.forward = lambda x: 2 * x
    return norm


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Doubled(FEATURES), "a Doubled"),
        (_parametrized, "a ParametrizedBatchNorm1d"),
        (_overridden, "a BatchNorm1d with a forward of its own"),
        (lambda: nn.SyncBatchNorm(FEATURES), "a SyncBatchNorm"),
        (lambda: nn.LazyBatchNorm1d(), "a LazyBatchNorm1d"),
        (lambda: GhostBatchNorm(FEATURES, 2), "a GhostBatchNorm"),
    ],
)
def test_a_batch_norm_that_is_more_than_that_is_refused_and_nothing_is_converted(make, words):
    model = nn.ModuleDict({"plain": nn.BatchNorm1d(FEATURES), "other": nn.Sequential(make())})
    kind = type(model["other"][0])
    accepted = "accepted batch norms are BatchNorm1d, BatchNorm2d, BatchNorm3d as PyTorch makes them"
    with pytest.raises(ValueError) as caught:
        convert(model, SIZE)
    assert str(caught.value) == f"layer 'other.0' is {words}; {accepted}"
    assert type(model["plain"]) is nn.BatchNorm1d and type(model["other"][0]) is kind
    with pytest.raises(ValueError, match=f"^model is {words}; {accepted}$"):
        convert(make(), SIZE)


def test_it_is_not_turned_into_a_batch_norm_of_all_processes_without_a_word():
    model = nn.Sequential(GhostBatchNorm(FEATURES, SIZE))
    with pytest.raises(TypeError, match=r"^GhostBatchNorm has no qconfig; SyncBatchNorm, [^\n]* cannot take its place$"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(model[0]) is GhostBatchNorm
    copy.deepcopy(model)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("make", [lambda *a: GhostBatchNorm(3, *a), lambda *a: convert(nn.BatchNorm1d(3), *a)])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "ghost_batch_size is 0; accepted is a whole number of 1 or more"),
        ((-4,), "ghost_batch_size is -4; accepted is a whole number of 1 or more"),
        ((2.5,), "ghost_batch_size is 2.5; accepted is a whole number of 1 or more"),
        ((True,), "ghost_batch_size is True; accepted is a whole number of 1 or more"),
        ((4, "median"), "averaging is 'median'; accepted are sequential, mean"),
    ],
)
def test_bad_input_ends_in_one_sentence(make, arguments, sentence):
    with pytest.raises(ValueError) as caught:
        make(*arguments)
    assert str(caught.value) == sentence


def test_a_model_whose_conversion_is_refused_stays_as_it_was(model):
    before = dict(model.named_modules())
    with pytest.raises(ValueError):
        convert(model, 0)
    assert all(module is before[name] for name, module in model.named_modules())


@pytest.mark.parametrize("make", [lambda: nn.Linear(3, 3), lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU())])
def test_a_model_without_batch_norm_is_refused(make):
    with pytest.raises(ValueError, match="^model is a (Linear|Sequential) without batch norm; [^\n]*$"):
        convert(make(), SIZE)


@pytest.mark.parametrize("n", [SIZE, 3 * SIZE])
@pytest.mark.parametrize("shape", [(), (2,), (2, 5, 5)])
def test_inputs_of_other_features_are_refused(n, shape):
    with pytest.raises(ValueError, match=rf"^x has shape \({n},.*\); accepted is \(n, {FEATURES}, \.\.\.\)$"):
        GhostBatchNorm(FEATURES, SIZE)(torch.zeros(n, *shape))


def test_a_ghost_batch_of_one_vector_has_no_variance():
    layer = GhostBatchNorm(FEATURES, 1)
    with pytest.raises(ValueError, match=r"^ghost_batch_size is 1; inputs of shape \(n, features\) accept 2 or more, [^\n]*$"):
        layer(torch.zeros(4, FEATURES))
    assert layer(torch.zeros(4, FEATURES, 2)).shape == (4, FEATURES, 2)
