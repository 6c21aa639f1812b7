"""Whole elastic networks: one-hot gates, depth, the way out to ONNX (T4, T15, T19), and the sizes of the papers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from espalier.export.onnx import export_onnx
from espalier.export.source import check_source, python_source
from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.elastic.cost import elastic_costs
from espalier.nas.elastic.layer import Mode
from espalier.nas.elastic.norm import ElasticLayerNorm
from espalier.nas.errors import Code
from espalier.nas.gates import Mixture, mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.conv_macro import ConvMacro
from espalier.nas.spaces.macro import Macro
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.vit import ViT
from user_errors import user_error

SMALL: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "conv_macro": (ConvMacro, {"width": 0.25, "reductions": 1, "dropout": 0.0}),
    "macro": (Macro, {"widths": (8, 8, 16, 16, 24), "cells": (1, 2, 1), "reductions": 1}),
    "mobilenetv3": (
        MobileNetV3,
        {
            "widths": (8, 8, 8, 16, 8, 16, 16, 24, 32),
            "depths": (1, 2),
            "kernels": (3, 5),
            "expansions": (1, 2, 4),
            "reductions": 1,  # maps of 4x4, in which a kernel of 5 sees more than one of 3
        },
    ),
    "vit": (
        ViT,
        {
            "patch": 4,
            "embeddings": (8, 12, 16),
            "ratios": (1.5, 2),
            "heads": (1, 2, 3),
            "depths": (1, 2, 3),
            "head_size": 4,
        },
    ),
}
MODES: tuple[Mode, Mode] = ("superpose", "gate")
SHAPE = (1, 8, 8)


def small(name: str, mode: Mode, **options: Any) -> SearchSpace:
    """With random gains, shifts and statistics: ones and zeros would hide a norm that cuts out the wrong part."""
    torch.manual_seed(0)
    cls, defaults = SMALL[name]
    space: SearchSpace = cls(SHAPE, 10, entanglement=mode, **{**defaults, **options})
    for module in space.modules():
        if isinstance(module, nn.BatchNorm2d | ElasticLayerNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return space


def one_hot(space: SearchSpace, architecture: Architecture, dtype: torch.dtype) -> dict[str, Mixture]:
    """Mixtures in which every option is run."""
    choices = space.choices()
    return {
        name: mixture(torch.eye(len(choices[name].options), dtype=dtype)[index])
        for name, index in space.gates(architecture).items()
    }


def distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_one_hot_mixture_path_and_built_network_are_one(name: str, mode: Mode, training: bool, count: int) -> None:
    """T4, to 1e-12 in double precision."""
    space = small(name, mode).double().train(training)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    for _ in range(count):
        architecture = space.sample(generator)
        network = space.build(architecture, weights="inherited")
        path = space(x, space.gates(architecture))
        assert float(path.detach().abs().max()) > 1e-3
        assert distance(space(x, one_hot(space, architecture, torch.float64)), path) < 1e-12
        assert distance(network(x), path) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "depths"), [("vit", (1, 2, 3)), ("mobilenetv3", (1, 2))])
def test_a_depth_is_the_network_that_ends_there(name: str, depths: tuple[int, ...], mode: Mode) -> None:
    """T15: the space whose only depth is L, with the same weights, is the path and the one-hot mixture of depth L."""
    space = small(name, mode).double().eval()
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    state = space.state_dict()
    for depth in depths:
        truncated = small(name, mode, depths=(depth,)).double().eval()
        assert truncated.state_dict().keys() <= state.keys()
        truncated.load_state_dict({key: state[key] for key in truncated.state_dict()})
        last = {key: len(choice.options) - 1 for key, choice in truncated.choices().items()}
        expected = truncated(x, last)
        gates = {
            key: choice.options.index(depth) if key.startswith("depth") else len(choice.options) - 1
            for key, choice in space.choices().items()
        }
        assert distance(space(x, gates), expected) < 1e-12
        rows = one_hot(space, space.architecture(gates), torch.float64)
        assert distance(space(x, rows), expected) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_of_a_mixture_tells_the_options_of_every_choice_apart(name: str, mode: Mode) -> None:
    """Of a weighted sum of the logits; one that is the same for all options would change nothing on the simplex."""
    space = small(name, mode).double()
    theta = {
        key: torch.rand(len(choice.options), dtype=torch.float64).softmax(0).requires_grad_()
        for key, choice in space.choices().items()
    }
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    y = space(x, {key: mixture(weights) for key, weights in theta.items()})
    gradients = torch.autograd.grad((y * torch.randn_like(y)).sum(), list(theta.values()))
    for key, gradient in zip(theta, gradients, strict=True):
        assert torch.isfinite(gradient).all()
        assert len(gradient.unique()) == len(gradient), key


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("auto", marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SMALL)
def test_the_way_out_to_onnx(name: str, mode: Mode, exporter: Any, tmp_path: Path) -> None:
    """T19: built, through a state_dict, through ONNX: the one-hot supernet to 1e-4."""
    space = small(name, mode).eval()
    architecture = space.sample(torch.Generator().manual_seed(2))
    network = space.build(architecture)
    x = torch.randn(3, *SHAPE)
    expected = space(x, one_hot(space, architecture, torch.float32)).detach()
    assert distance(network(x), expected) > 1e-3  # fresh weights are others
    network.load_state_dict(space.build(architecture, weights="inherited").state_dict())
    exported = export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter=exporter)
    assert exported.fallback_reason is None
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x.numpy()})
    assert distance(torch.from_numpy(logits), expected) < 1e-4
    check_source(python_source(network, "Network"), "Network", network, x)


@pytest.mark.parametrize("unit", ["macs", "params"])
@pytest.mark.parametrize("name", SMALL)
def test_costs_by_layer_are_those_of_built_networks(name: str, unit: Any) -> None:
    space = small(name, "gate")
    costs, counter = elastic_costs(space, unit), CostCounter(space)
    generator = torch.Generator().manual_seed(3)
    for architecture in [space.sample(generator) for _ in range(3)]:
        assert costs.cost(architecture) == getattr(counter(architecture), unit)


def on_meta(make: Callable[[], SearchSpace]) -> SearchSpace:
    with torch.device("meta"):
        return make()


def extreme(space: SearchSpace, pick: Callable[[Any], Any]) -> Architecture:
    return Architecture({name: pick(choice.options) for name, choice in space.choices().items()})


@pytest.mark.parametrize(
    ("embedding", "heads", "params"), [(192, 3, 5_717_416 - 2 * 192), (384, 6, 22_050_664 - 2 * 384)]
)
def test_deit_is_a_point_of_it(embedding: int, heads: int, params: int) -> None:
    """DeiT-Ti and DeiT-S (Touvron et al., 2021; timm's counts), but for the class token and its position."""
    space = on_meta(lambda: ViT(embeddings=(embedding,), heads=(heads,), ratios=(4,), depths=(12,)))
    assert CostCounter(space)(extreme(space, max)).params == params


def test_autoformer_s_spaces() -> None:
    tiny, small = on_meta(ViT), on_meta(lambda: ViT(variant="small"))
    assert tiny.size == 3 * 3 * (2 * 2) ** 14
    assert small.size == 3 * 3 * (3 * 3) ** 14
    hidden = {
        tiny.build(extreme(tiny, min).replace("embedding", size)).get_submodule("depth.blocks.0.mlp.widen").out_features
        for size in (192, 216, 240)
    }
    assert hidden == {672, 756, 840}
    largest = tiny.build(extreme(tiny, max))
    assert largest.get_submodule("depth.blocks.13.attention.queries").weight.shape == (4 * 64, 240)
    assert largest.get_parameter("position").shape == (14 * 14, 240)


def test_fresh_transformers_start_as_the_paper_s() -> None:
    space = small("vit", "gate", embeddings=(64,), head_size=32, patch=1)
    network = space.build(extreme(space, max))
    weights = [network.get_parameter("position"), network.get_submodule("depth.blocks.1.mlp.widen").weight]
    for weight in weights:
        assert float(weight.detach().abs().max()) <= 2.0
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not network.get_submodule("head").bias.any()


def test_blocks_beyond_the_depth_make_no_difference() -> None:
    """e embeddings, d depths of b options a block: e (b + b^2) classes for depths 1 and 2."""
    space = small("vit", "gate", embeddings=(8, 12), ratios=(2,), heads=(1, 2, 3), depths=(1, 2))
    names = list(space.choices())
    options = [space.choices()[name].options for name in names]
    everything = [Architecture(dict(zip(names, joint, strict=True))) for joint in itertools.product(*options)]
    assert len(everything) == space.size == 2 * 2 * 3 * 3
    assert len({space.isomorphism_class(architecture) for architecture in everything}) == 2 * (3 + 9)
    shallow = extreme(space, min)
    assert set(space.inactive(shallow)) == {"heads_2", "ratio_2"}
    assert len(space.diagram(shallow)) == len(names) - 2 + 1
    x = torch.randn(2, *SHAPE)
    assert torch.equal(space(x, space.gates(shallow)), space(x, space.gates(shallow.replace("heads_2", 3))))


def test_once_for_all_s_largest_network() -> None:
    """566M multiply-accumulates (Sukthanker et al., 2024, table of the OFA space); with nothing left out it is all the
    weights there are."""
    space = on_meta(MobileNetV3)
    cost = CostCounter(space)(extreme(space, max))
    assert round(cost.macs / 1e6) == 566
    assert cost.params == sum(parameter.numel() for parameter in space.parameters())
    assert set(space.inactive(extreme(space, min))) == {
        f"{kind}_{s}_{i}" for kind in ("kernel", "expansion") for s in range(1, 6) for i in (3, 4)
    }


def test_squeezes_are_those_of_mobilenetv3_large() -> None:
    """A quarter of 120, 480, 672 and 960 hidden channels, rounded to multiples of 8: 32, 120, 168, 240."""
    space = on_meta(MobileNetV3)
    found = {}
    for stage in space.stages:  # type: ignore[union-attr]
        for block in stage.blocks:
            if block.squeeze is not None:
                hidden, squeezed = (dim.largest for dim in reversed(block.squeeze.expand.dims))
                found[hidden] = squeezed
    assert found == {144: 40, 240: 64, 480: 120, 672: 168, 960: 240}
    path = extreme(space, min)
    assert space.build(path).get_submodule("stages.1.blocks.1.squeeze.reduce").out_features == 32  # of 3 * 40


def test_tanglenas_s_convolutions() -> None:
    """428.7M multiply-accumulates in the convolutions of the largest network, 128.3M in the mean of all 6,561."""
    space = on_meta(ConvMacro)
    assert space.size == 6561
    network = space.build(extreme(space, max))
    features = 256 * 6 * 6
    assert network.get_submodule("head.1").in_features == features == 9216
    linear = (features + 1) * 256 + (256 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 10
    pixels = (32 * 32, 32 * 32, 16 * 16, 8 * 8)

    def biases(channels: tuple[float, ...]) -> float:
        return sum(a * b for a, b in zip(channels, pixels, strict=True)) + 256 * 6 * 6

    costs = elastic_costs(space, "macs")
    largest = costs.cost(extreme(space, max)) - linear - biases((32, 64, 128, 256))
    uniform = {name: torch.full((3,), 1 / 3, dtype=torch.float64) for name in space.choices()}
    mean = float(costs.expected(uniform)) - linear - biases((56 / 3, 112 / 3, 224 / 3, 448 / 3))
    assert (round(largest / 1e5), round(mean / 1e5)) == (4287, 1283)


def test_entangled_layers_of_nas_bench_macro_are_the_benchmark_s() -> None:
    """In notation, classes and cost of the built networks; the weights of the largest network hold all bottlenecks."""
    plain, entangled = on_meta(Macro), on_meta(lambda: Macro(entanglement="gate"))
    counters = CostCounter(plain), CostCounter(entangled)
    for text in ("00000000", "11111111", "22222222", "01202110"):
        a, b = plain.parse(text), entangled.parse(text)
        assert entangled.format(b) == text
        assert plain.isomorphism_class(a) == entangled.isomorphism_class(b)
        assert counters[0](a) == counters[1](b)
    identities = sum(p.numel() for name, p in entangled.named_parameters() if ".identity." in name)
    weights = sum(p.numel() for p in entangled.parameters())
    assert weights == counters[1](entangled.parse("22222222")).params + identities


def test_a_mixture_with_an_identity_scales_the_branch() -> None:
    """y = x + (theta_3 + theta_6) F(x); the identity alone is the input itself."""
    space = small("macro", "gate").eval()
    layer = space.layers[2]  # type: ignore[index]
    name, x = layer.choice.name, torch.randn(2, 16, 4, 4)
    weights = torch.tensor([0.5, 0.3, 0.2])
    full = layer.bottleneck(x, {name: mixture(weights)}, None) - x
    assert torch.allclose(layer(x, {name: mixture(weights)}), x + 0.5 * full, atol=1e-5)
    assert layer(x, {name: Mixture(weights, (0,))}) is x


def test_dropout_is_there_in_training_only() -> None:
    space = small("conv_macro", "gate", dropout=0.5)
    gates = space.gates(extreme(space, max))
    x = torch.randn(2, *SHAPE)
    assert not torch.equal(space(x, gates), space(x, gates))
    assert torch.equal(space.eval()(x, gates), space(x, gates))


@pytest.mark.parametrize(
    ("make", "where", "code", "says"),
    [
        (lambda: ViT((3, 32, 30)), "space.patch", "unsupported", "32x30"),
        (lambda: ConvMacro((1, 8, 8)), "space.reductions", "out_of_range", "8x8"),
        (lambda: ConvMacro(width=0.05), "space.width", "out_of_range", "[1, 1, 2]"),
        (lambda: MobileNetV3(reductions=6), "space.reductions", "out_of_range", "5"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], SearchSpace], where: str, code: Code, says: str) -> None:
    with user_error(where, code, says=says), torch.device("meta"):
        make()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize(
    "make",
    [
        lambda shape: ViT(shape, patch=4, embeddings=(24, 32), heads=(1, 2), depths=(2, 3), head_size=8),
        lambda shape: MobileNetV3(shape, width=0.25, depths=(1, 2), reductions=3),
        lambda shape: ConvMacro(shape, width=0.25, reductions=1),
    ],
)
def test_digits_and_cifar_fit(make: Callable[[tuple[int, int, int]], SearchSpace], shape: tuple[int, int, int]) -> None:
    space = make(shape)
    assert space(torch.randn(2, *shape), space.gates(extreme(space, min))).shape == (2, space.num_classes)
