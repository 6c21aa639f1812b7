"""Elastic layers: coverage, superposition, one-hot gates, gradients (T1 to T10 and T22 of weight entanglement)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.attention import ElasticAttention, ElasticMLP
from espalier.nas.elastic.conv import ElasticConv2d, kernel_dim
from espalier.nas.elastic.depth import ElasticDepth
from espalier.nas.elastic.dims import Coverage, Dim
from espalier.nas.elastic.layer import ElasticGate, ElasticLayer, Mode
from espalier.nas.elastic.linear import ElasticLinear, ElasticParameter
from espalier.nas.elastic.norm import ElasticBatchNorm2d, ElasticLayerNorm
from espalier.nas.gates import Gates, Mixture, mixture

E = ElasticChoice("embedding", (8, 12, 16))
W = ElasticChoice("width", (2, 4, 6))
K = ElasticChoice("kernel", (3, 5, 7))
R = ElasticChoice("ratio", (1.5, 2))
H = ElasticChoice("heads", (1, 2, 3))
CHOICES = {choice.name: choice for choice in (E, W, K, R, H)}
MODES: tuple[Mode, Mode] = ("superpose", "gate")


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def simplex(choice: ElasticChoice, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + len(choice.name))
    return torch.rand(len(choice.options), generator=generator).softmax(0)


def mixed(*choices: ElasticChoice, seed: int = 0) -> dict[str, Mixture]:
    return {choice.name: mixture(simplex(choice, seed=seed)) for choice in choices}


def paths(*choices: ElasticChoice) -> Iterator[dict[str, int]]:
    for indices in itertools.product(*(range(len(choice.options)) for choice in choices)):
        yield {choice.name: index for choice, index in zip(choices, indices, strict=True)}


def one_hot(path: dict[str, int]) -> dict[str, Mixture]:
    def row(name: str, index: int) -> Tensor:
        return torch.eye(len(CHOICES[name].options))[index]

    return {name: mixture(row(name, index)) for name, index in path.items()}


def random_norms(module: nn.Module) -> None:
    """All-ones gains would hide a norm that cuts out the wrong part."""
    for part in module.modules():
        if isinstance(part, ElasticBatchNorm2d | ElasticLayerNorm):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return a.shape == b.shape and float((a - b).detach().abs().max()) < tolerance


def test_coverage_is_the_suffix_sum_of_the_weights() -> None:
    """T2: u_p = sum of theta_i with c_i > p."""
    gates = {"width": mixture(torch.tensor([0.2, 0.3, 0.5])), "kernel": mixture(torch.tensor([0.2, 0.3, 0.5]))}
    coverage = Dim([W]).extent(gates).coverage
    assert coverage is not None
    assert coverage.tolist() == pytest.approx([1, 1, 0.8, 0.8, 0.5, 0.5])
    rings = kernel_dim(K).extent(gates).coverage
    assert rings is not None
    assert rings.tolist() == pytest.approx([1, 1, 0.8, 0.5])  # the centre, ring 3, ring 5, ring 7


def test_an_extent_reaches_as_far_as_the_largest_open_option() -> None:
    extent = Dim([W]).extent({"width": Mixture(torch.tensor([0.4, 0.6, 0.0]), (0, 1))})
    assert extent.size == 4
    assert extent.coverage is not None
    assert extent.coverage.tolist() == pytest.approx([1, 1, 0.6, 0.6])


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True), st.integers(0, 100))
def test_coverage_falls_and_sums_to_the_expected_size(sizes: list[int], seed: int) -> None:
    choice = ElasticChoice("c", sorted(sizes))
    theta = torch.rand(len(sizes), generator=torch.Generator().manual_seed(seed)).softmax(0)
    coverage = Dim([choice]).extent({"c": mixture(theta)}).coverage
    assert coverage is not None
    assert float(coverage.sum()) == pytest.approx(float(theta @ torch.tensor(sorted(sizes), dtype=theta.dtype)))
    assert bool((coverage.diff() <= 1e-12).all())
    assert float(coverage[0]) == pytest.approx(1)


def test_a_superposed_convolution_has_the_sum_of_the_padded_slices() -> None:
    """T1: |W * M - sum_c w_c pad(slice)| < 1e-6 over all 27 combinations of input, output and kernel."""
    into, out = ElasticChoice("into", (2, 4, 6)), ElasticChoice("out", (3, 5, 8))
    layer = ElasticConv2d(Dim([into]), Dim([out]), kernel_dim(K), bias=True, mode="superpose")
    theta = {choice.name: simplex(choice) for choice in (into, out, K)}
    weight, bias = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    for i, o, k in itertools.product(range(3), repeat=3):
        count = theta["into"][i] * theta["out"][o] * theta["kernel"][k]
        side = slice((7 - K.options[k]) // 2, (7 + K.options[k]) // 2)
        weight[: out.options[o], : into.options[i], side, side] += (
            count * layer.weight.detach()[: out.options[o], : into.options[i], side, side]
        )
        bias[: out.options[o]] += count * layer.bias.detach()[: out.options[o]]
    got_weight, got_bias = layer.effective({name: mixture(t) for name, t in theta.items()})
    assert close(got_weight, weight, 1e-12)
    assert got_bias is not None
    assert close(got_bias, bias, 1e-12)


def test_a_hidden_layer_of_two_choices_has_the_sum_of_its_six_slices() -> None:
    """T3: W_mix of fc1 with hidden = int(e r); the mask has rank 3 at most, one for each embedding."""
    e, r = ElasticChoice("e", (2, 4, 6)), ElasticChoice("r", (1.5, 2))
    hidden = Dim([e, r], lambda embedding, ratio: int(embedding * ratio))
    layer = ElasticLinear(Dim([e]), hidden, mode="superpose")
    theta, rho = simplex(e), simplex(r)
    weight = torch.zeros_like(layer.weight)
    for (i, size), (j, ratio) in itertools.product(enumerate(e.options), enumerate(r.options)):
        weight[: int(size * ratio), :size] += theta[i] * rho[j] * layer.weight.detach()[: int(size * ratio), :size]
    gates = {"e": mixture(theta), "r": mixture(rho)}
    assert close(layer.effective(gates)[0], weight)
    (_, mask), *others = Coverage([hidden, Dim([e])])(gates)
    assert not others
    assert int(torch.linalg.matrix_rank(mask)) <= 3


def test_hidden_sizes_are_those_of_autoformer() -> None:
    """T3: int(e r) for e = 192, 216, 240 and r = 3.5."""
    e, r = ElasticChoice("e", (192, 216, 240)), ElasticChoice("r", (3.5, 4))
    hidden = Dim([e, r], lambda embedding, ratio: int(embedding * ratio))
    assert [hidden.size({"e": i, "r": 0}) for i in range(3)] == [672, 756, 840]


class ConvBlock(nn.Module):
    """Two convolutions with a norm, the second depthwise, in one dim."""

    def __init__(self, mode: Mode, *, affine: bool = True) -> None:
        super().__init__()
        width = Dim([W])
        self.first = ElasticConv2d(3, width, kernel_dim(K), mode=mode)
        self.norm = ElasticBatchNorm2d(width, affine=affine, mode=mode)
        self.gate = ElasticGate(width, mode=mode, axis=1)
        self.depthwise = ElasticConv2d(width, width, kernel_dim(K), depthwise=True, stride=2, bias=True, mode=mode)
        self.after = ElasticGate(width, mode=mode, axis=1)
        self.last = ElasticConv2d(width, 5, 1, mode=mode)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.gate(F.relu(self.norm(self.first(x, gates), gates)), gates)
        return self.last(self.after(F.relu(self.depthwise(x, gates)), gates), gates)


class Transformer(nn.Module):
    """Positions, norm, attention, norm, MLP: a pre-norm block as in AutoFormer."""

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        embedding = Dim([E])
        hidden = Dim([E, R], lambda e, r: int(e * r))
        self.embed = ElasticLinear(4, embedding, mode=mode)
        self.positions = ElasticParameter((6,), embedding, std=0.5, mode=mode)
        self.norm1, self.norm2, self.norm3 = (ElasticLayerNorm(embedding) for _ in range(3))
        self.attention = ElasticAttention(embedding, Dim([H]), head_size=4, mode=mode)
        self.mlp = ElasticMLP(embedding, hidden, mode=mode)
        self.gate = ElasticGate(embedding, mode=mode, axis=-1)
        self.head = ElasticLinear(embedding, 3, mode=mode)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.gate(self.embed(x, gates) + self.positions(gates), gates)
        x = x + self.gate(self.attention(self.norm1(x, gates), gates), gates)
        x = x + self.gate(self.mlp(self.norm2(x, gates), gates), gates)
        return self.head(self.norm3(x, gates).mean(1), gates)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("make", "choices", "shape"), [(ConvBlock, (W, K), (2, 3, 9, 9)), (Transformer, (E, R, H), (2, 6, 4))]
)
def test_one_hot_gates_are_the_path(
    mode: Mode,
    training: bool,
    make: Callable[[Mode], nn.Module],
    choices: Sequence[ElasticChoice],
    shape: tuple[int, ...],
) -> None:
    """T4, T5: masked execution at one-hot gates equals sliced execution, in both modes, for all architectures."""
    block = make(mode).train(training)
    random_norms(block)
    x = torch.randn(shape)
    for path in paths(*choices):
        assert close(block(x, one_hot(path)), block(x, path))


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_extracted_is_the_layer_on_its_path(mode: Mode) -> None:
    """T4: the plain layer of every path computes the same."""
    width, embedding = Dim([W]), Dim([E])
    layers: list[tuple[ElasticLayer, Tensor]] = [
        (ElasticConv2d(width, Dim([E]), kernel_dim(K), stride=2, bias=True, mode=mode), torch.randn(2, 6, 8, 8)),
        (ElasticConv2d(width, width, kernel_dim(K), depthwise=True, dilation=2, mode=mode), torch.randn(2, 6, 9, 9)),
        (ElasticBatchNorm2d(width, mode=mode), torch.randn(4, 6, 3, 3)),
        (ElasticLinear(width, embedding, mode=mode), torch.randn(3, 6)),
        (ElasticLayerNorm(width), torch.randn(3, 6)),
    ]
    for layer, x in layers:
        random_norms(layer)
        names = {name for dim in layer.dims for name in dim.names}
        for path in paths(*(CHOICES[name] for name in sorted(names))):
            size = layer.input_size(path)
            inputs = x[:, :size]
            plain = layer.extract(path)
            assert type(plain).__module__.startswith("torch.nn.")
            torch.testing.assert_close(plain(inputs), layer(inputs, path), rtol=1e-10, atol=1e-12)
            assert all(parameter.is_contiguous() for parameter in plain.parameters())


def test_the_gradient_of_a_weight_is_that_of_its_slice() -> None:
    """T6: dL/dtheta_c = <dL/dW_mix, P_c(W)>, so nested options differ by the ring between them."""
    layer = ElasticConv2d(4, 5, kernel_dim(K), mode="superpose")
    theta = simplex(K).requires_grad_()
    effective, _ = layer.effective({"kernel": mixture(theta)})
    effective.retain_grad()
    F.conv2d(torch.randn(2, 4, 9, 9), effective, padding=3).sin().sum().backward()
    assert effective.grad is not None
    assert theta.grad is not None

    def inner(kernel: int) -> float:
        side = slice((7 - kernel) // 2, (7 + kernel) // 2)
        return float((effective.grad * layer.weight.detach())[:, :, side, side].sum())  # type: ignore[operator]

    assert theta.grad.tolist() == pytest.approx([inner(k) for k in K.options], rel=1e-10)
    ring = inner(7) - inner(5)
    assert float(theta.grad[2] - theta.grad[1]) == pytest.approx(ring, rel=1e-8)


def test_superposed_linear_maps_are_the_mixture_of_outputs_until_a_norm_comes_between() -> None:
    """T7: sum_c w_c conv(x, P_c(W)) = conv(x, W * M), but not so with a batch norm inside the options."""
    layer = ElasticConv2d(4, 5, kernel_dim(K), mode="superpose")
    norm = nn.BatchNorm2d(5, affine=False)
    x, theta = torch.randn(3, 4, 9, 9), simplex(K)
    outputs = [layer(x, {"kernel": i}) for i in range(3)]
    superposed = layer(x, {"kernel": mixture(theta)})
    assert close(superposed, sum(t * y for t, y in zip(theta, outputs, strict=True)))
    normed = sum(t * norm(y) for t, y in zip(theta, outputs, strict=True))
    assert float((norm(superposed) - normed).abs().max()) > 1e-3


def test_gated_hidden_units_and_heads_are_mixtures_of_outputs() -> None:
    """T8: sum_r rho_r f_r(x) = W_2 (u * phi(W_1 x)), and the same for heads of a fixed size."""
    embedding = Dim([E])
    x = torch.randn(2, 5, 16)
    mlp = ElasticMLP(embedding, Dim([R], lambda r: int(16 * r)), mode="gate")
    attention = ElasticAttention(embedding, Dim([H]), head_size=4, mode="gate")
    for layer, choice in ((mlp, R), (attention, H)):
        theta = simplex(choice)
        outputs = [layer(x, {"embedding": 2, choice.name: i}) for i in range(len(theta))]
        gated = layer(x, {"embedding": 2, choice.name: mixture(theta)})
        assert close(gated, sum(t * y for t, y in zip(theta, outputs, strict=True)))


def test_a_layer_norm_has_the_moments_of_what_is_covered() -> None:
    """T9: u = 1 is the plain norm, one-hot u the norm of the slice with zeros beside it; the gradient is right."""
    norm = ElasticLayerNorm(Dim([E]))
    random_norms(norm)
    x = torch.randn(3, 16)
    whole = F.layer_norm(x, (16,), norm.weight, norm.bias, norm.eps)
    assert close(norm(x, {"embedding": mixture(torch.tensor([0.0, 0.0, 1.0]))}), whole)
    sliced = F.layer_norm(x[:, :12], (12,), norm.weight[:12], norm.bias[:12], norm.eps)
    masked = norm(x, {"embedding": mixture(torch.tensor([0.0, 1.0, 0.0]))})
    assert close(masked[:, :12], sliced)
    assert bool((masked[:, 12:] == 0).all())
    theta = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: norm(x, {"embedding": mixture(t)}), (theta,))


def test_a_scale_before_a_batch_norm_is_undone_by_it() -> None:
    """T10: with a norm without gamma after it, superposing channels has no gradient in theta; gating after it has."""

    def gradient(mode: Mode) -> Tensor:
        torch.manual_seed(1)
        block = ConvBlock(mode, affine=False)
        theta = simplex(W).requires_grad_()
        gates: Gates = {"width": mixture(theta), "kernel": 0}
        x = 10 * torch.randn(4, 3, 9, 9)  # far above what the norm adds to the variance, which is not undone
        y = block.gate(F.relu(block.norm(block.first(x, gates), gates)), gates)
        (y * torch.linspace(0.5, 1.5, y.numel()).view_as(y)).sum().backward()
        assert theta.grad is not None
        return theta.grad

    assert float(gradient("superpose").abs().max()) < 1e-3 * float(gradient("gate").abs().max())


@pytest.mark.parametrize("mode", MODES)
def test_depth_at_one_hot_is_the_truncated_stack(mode: Mode) -> None:
    """T15: theta one-hot at L_i is the first L_i blocks; in a mixture, superposing mixes what comes out of each."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, gates: Gates, strength: Tensor | None) -> Tensor:
            y = self.layer(x).tanh()
            return x + (y if strength is None else strength * y)

    choice = ElasticChoice("depth", (2, 3, 5))
    blocks = [Residual() for _ in range(5)]
    stage = ElasticDepth(choice, blocks, mode=mode)
    x = torch.randn(3, 4)
    outputs = []
    for index, depth in enumerate(choice.options):
        y = x
        for block in blocks[:depth]:
            y = block(y, {}, None)
        outputs.append(y)
        assert torch.equal(stage(x, {"depth": index}), y)
        assert close(stage(x, {"depth": mixture(torch.eye(3)[index])}), y)
    theta = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    mixed_output = stage(x, {"depth": mixture(theta)})
    same = close(mixed_output, sum(t * y for t, y in zip(theta, outputs, strict=True)))
    assert same == (mode == "superpose")
    assert torch.autograd.gradcheck(lambda t: stage(x, {"depth": mixture(t)}), (theta,))


def test_a_superposed_convolution_saves_little_more_than_its_weight() -> None:
    """T22: bytes saved for the backward pass, beyond the activations, at most 4 |W| (a sum of 27 slices saves 27)."""
    out = ElasticChoice("out", (16, 32, 64))
    layer = ElasticConv2d(32, Dim([out]), kernel_dim(K), mode="superpose")
    x = torch.randn(2, 32, 6, 6, requires_grad=True)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = max(saved.get(tensor.data_ptr(), 0), tensor.numel())
        return tensor

    theta = {choice.name: mixture(simplex(choice).requires_grad_()) for choice in (out, K)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x, theta)
    assert sum(saved.values()) <= 4 * layer.weight.numel() + x.numel()


def test_wrong_dims_are_refused() -> None:
    with pytest.raises(ValueError, match="no centre"):
        kernel_dim(size=lambda: 4)
    with pytest.raises(ValueError, match="at least 1"):
        Dim([ElasticChoice("c", (0, 2))])
    with pytest.raises(ValueError, match="must increase"):
        ElasticChoice("c", (4, 2))
    with pytest.raises(ValueError, match="one dim"):
        ElasticConv2d(Dim([W]), Dim([E]), 3, depthwise=True, mode="gate")
    with pytest.raises(ValueError, match="depths"):
        ElasticDepth(ElasticChoice("depth", (1, 2)), [nn.Identity()], mode="gate")
