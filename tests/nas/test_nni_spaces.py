"""NNI's model spaces: hub and a user's own, as choices, as networks, and as supernets of one path at a time."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

from espalier.export.bundle import write_bundle
from espalier.export.onnx import export_onnx
from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter, count
from espalier.nas.errors import Code
from espalier.nas.gates import mixture
from espalier.nas.spaces.nni.library import hub
from espalier.nas.spaces.nni.space import NniSpace
from espalier.supernets.batch_norm import frozen_statistics
from user_errors import user_error

pytest.importorskip("nni", reason="NNI is not installed; it has wheels for x86-64 only")

HUB: dict[str, tuple[str, dict[str, Any], int]] = {
    "nasbench201": ("NasBench201", {"stem_out_channels": 4, "num_modules_per_stack": 1}, 6),
    "nasbench101": ("NasBench101", {"stem_out_channels": 8, "num_modules_per_stack": 1}, 12),
    "darts": ("DARTS", {"width": 4, "num_cells": 3, "drop_path_prob": 0.2}, 32),
    "mobilenetv3": ("MobileNetV3Space", {"width_multipliers": [0.5, 1.0], "depth_range": [1, 2]}, 41),
    "proxylessnas": ("ProxylessNAS", {"width_mult": 0.25}, 26),
    "shufflenet": ("ShuffleNetSpace", {}, 20),
    "autoformer": (
        "AutoFormer",
        {"search_embed_dim": [32, 48], "search_num_heads": [1, 2], "search_depth": [1, 2], "patch_size": 8},
        6,
    ),
}
"""Model of NNI's hub, arguments, and how many choices it has. In full size the fourth has 67: 8 widths, kernels of the
stem and the first stage, and in 5 stages a depth, and for 4 layers a ratio, a kernel and, in 3 stages, an SE."""
SHAPE = (3, 32, 32)
CLASSES = 7

OWN = '''
import nni
import torch.nn.functional as F
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from torch import nn
from user_errors import user_error


class Small(ModelSpace):
    """A width, a kernel size under a constraint, and a layer."""

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__()
        width = nni.choice("wi.dth", [2, 4, 6])
        kernel = nni.choice("kernel", [1, 3, 5])
        self.add_mutable(ExpressionConstraint(width + kernel <= 9, label="small"))
        self.stem = MutableConv2d(in_channels, width, kernel, padding="same")
        self.layer = LayerChoice({"pool": nn.AvgPool2d(3, 1, 1), "tanh": nn.Tanh()}, label="layer")
        self.head = MutableLinear(width, num_classes)

    def forward(self, x):
        return self.head(self.layer(self.stem(x)).mean((2, 3)))


class Continuous(ModelSpace):
    def __init__(self):
        super().__init__()
        self.add_mutable(nni.uniform("rate", 0.0, 1.0))


class Subsets(ModelSpace):
    def __init__(self):
        super().__init__()
        self.add_mutable(nni.mutable.CategoricalMultiple(range(13), label="edges"))


class Undecided(ModelSpace):
    """Its forward pass looks at a number of the images."""

    def __init__(self, num_labels: int):
        super().__init__()
        self.head = MutableLinear(3, num_labels, bias=nni.choice("bias", [True, False]))

    def forward(self, x):
        y = self.head(x.mean((2, 3)))
        return y if self.training else F.relu(y)
'''


@functools.cache
def hub_space(name: str) -> NniSpace:
    model, options, _ = HUB[name]
    torch.manual_seed(0)
    return NniSpace(SHAPE, CLASSES, model=model, options=options)


LARGE = ("darts", "proxylessnas", "shufflenet")
EACH = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in HUB]


@pytest.fixture(params=EACH)
def space(request: pytest.FixtureRequest) -> NniSpace:
    return hub_space(request.param)


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], NniSpace]:
    (tmp_path / "own_spaces.py").write_text(OWN)
    return lambda name: NniSpace(SHAPE, CLASSES, model=f"{tmp_path / 'own_spaces.py'}:{name}")


def draws(space: NniSpace, count: int) -> list[Architecture]:
    generator = torch.Generator().manual_seed(1)
    return [space.sample(generator) for _ in range(count)]


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", EACH)
def test_every_mutable_is_a_choice_and_samples_go_there_and_back(name: str) -> None:
    space = hub_space(name)
    assert len(space.choices()) == HUB[name][2]
    for architecture in draws(space, 5):
        assert space.from_sample(space.to_sample(architecture)) == architecture
        assert space.parse(space.format(architecture)) == architecture
        assert space.contains(space.mutate(architecture, torch.Generator().manual_seed(0)))


def test_the_built_network_is_plain_torch_and_costs_what_is_counted(space: NniSpace) -> None:
    for architecture in draws(space, 2):
        network = space.build(architecture)
        assert {type(m).__module__.split(".")[0] for m in network.modules()} == {"torch"}
        assert network.eval()(images()).shape == (2, CLASSES)
        assert CostCounter(space)(architecture) == count(network, SHAPE)


def test_a_width_changes_the_parameters() -> None:
    architecture = draws(hub_space("mobilenetv3"), 1)[0]
    narrow, wide = (
        hub_space("mobilenetv3").build(architecture.replace("s5_width_mult", multiplier)) for multiplier in (0.5, 1.0)
    )
    assert count(narrow, SHAPE).params < count(wide, SHAPE).params


def test_the_networks_are_nnis() -> None:
    """The same numbers from the same seed as NNI's own frozen model, where nothing of it is replaced."""
    from nni.nas.hub.pytorch import NasBench201
    from nni.nas.space import model_context

    space = hub_space("nasbench201")
    architecture = draws(space, 1)[0]
    torch.manual_seed(5)
    ours = space.build(architecture).eval()
    torch.manual_seed(5)
    with model_context(space.to_sample(architecture)):
        theirs = NasBench201(num_labels=CLASSES, **HUB["nasbench201"][1]).eval()
    torch.testing.assert_close(ours(images()), theirs(images()))


@pytest.mark.parametrize("name", ["autoformer", "nasbench101"])
def test_replaced_parts_compute_what_nnis_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative positions and NAS-Bench-101's cell: with and without repair, from one seed."""
    space = hub_space(name)
    for architecture in draws(space, 3):
        outputs = []
        for as_nni_has_it in (False, True):
            with monkeypatch.context() as patch:
                if as_nni_has_it:
                    patch.setattr("espalier.nas.spaces.nni.blueprint.repair", lambda network, *_: network)
                torch.manual_seed(5)
                network = space._blueprint.network(space.to_sample(architecture)).eval()
            outputs.append(network(images()))
        assert torch.allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_stochastic_depth_drops_whole_images() -> None:
    from espalier.nas.spaces.nni.repairs import SampleDropout

    torch.manual_seed(0)
    y = SampleDropout(0.5).train()(torch.ones(400, 2, 3, 3)).flatten(1)
    assert all(len(set(row.tolist())) == 1 for row in y)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert abs(y.mean() - 1) < 0.1


@pytest.mark.parametrize("name", ["nasbench201", "autoformer"])
def test_a_path_computes_what_the_network_that_inherits_it_does(name: str) -> None:
    space = hub_space(name)
    for training in (True, False):
        space.train(training)
        for architecture in draws(space, 3):
            network = space.build(architecture, weights="inherited")
            outputs = []
            for run in (network, functools.partial(space, gates=space.gates(architecture))):
                torch.manual_seed(3)  # of the dropout
                outputs.append(run(images()))
            torch.testing.assert_close(*outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "mobilenetv3", "proxylessnas", "shufflenet"])
def test_the_paths_of_the_larger_spaces_run(name: str) -> None:
    space = hub_space(name).eval()
    for architecture in draws(space, 40):
        logits = space(images(), space.gates(architecture))
    network = space.build(architecture, weights="inherited")
    torch.testing.assert_close(logits, network(images()))


@pytest.mark.slow
def test_a_space_whose_layers_are_entangled_is_refused_as_a_supernet() -> None:
    with user_error("space.model", "unsupported", says="supernet"):
        _ = hub_space("nasbench101").shared


@pytest.mark.parametrize("name", ["nasbench201", "autoformer"])
def test_a_step_trains_the_weights_of_its_path_and_no_others(name: str) -> None:
    space = hub_space(name).train()
    space.zero_grad()
    first, second = draws(space, 2)
    optimizer = torch.optim.SGD(space.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in space.state_dict().items()}
    nn.functional.cross_entropy(space(images(), space.gates(first)), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {key for key, value in space.state_dict().items() if not torch.equal(value, before[key])}
    used = {f"_shared.layers.{part.key}.{part.tensor}" for part in space._path(space.gates(first)).parts}
    assert changed and changed <= used
    assert used <= before.keys() and (name != "nasbench201" or used != before.keys())
    with frozen_statistics(space):
        statistics = {key: value.clone() for key, value in space.named_buffers()}
        space(images(), space.gates(second))
        assert all(torch.equal(value, statistics[key]) for key, value in space.named_buffers())


def test_shared_weights_are_drawn_from_the_seed_of_the_constructor_and_go_into_a_checkpoint(
    own: Callable[[str], NniSpace],
) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        space = own("Small")
        torch.manual_seed(99)  # what happens before the weights are first asked for changes nothing
        return {key: value.clone() for key, value in space.state_dict().items()}

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(one[key], same[key]) for key in one)
    space = own("Small")
    space.load_state_dict(other)
    assert all(torch.equal(value, other[key]) for key, value in space.state_dict().items())
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_smaller_layers_use_leading_channels_and_the_centre_of_the_kernel(own: Callable[[str], NniSpace]) -> None:
    space = own("Small")
    weight = next(value for key, value in space.state_dict().items() if key.endswith("stem:Conv2d:.weight"))
    assert weight.shape == (6, 3, 5, 5)  # the largest of each, though no valid network has both
    network = space.build(Architecture({"wi:dth": 4, "kernel": 3, "layer": "tanh"}), weights="inherited")
    assert torch.equal(network.stem.weight, weight[:4, :, 1:4, 1:4])


def test_constraints_and_labels_of_an_own_space(own: Callable[[str], NniSpace]) -> None:
    space = own("Small")
    assert {name: choice.options for name, choice in space.choices().items()} == {
        "wi:dth": (2, 4, 6),
        "kernel": (1, 3, 5),
        "layer": ("pool", "tanh"),
    }
    invalid = Architecture({"wi:dth": 6, "kernel": 5, "layer": "pool"})
    assert not space.contains(invalid)
    with user_error("architecture", "infeasible"):
        space.build(invalid)
    sums = {int(a["wi:dth"]) + int(a["kernel"]) for a in draws(space, 60)}
    assert sums == {3, 5, 7, 9}
    assert space.to_sample(draws(space, 1)[0]).keys() == {"wi.dth", "kernel", "layer"}


def test_what_cannot_be_traced_is_one_layer_and_still_works(own: Callable[[str], NniSpace], tmp_path: Path) -> None:
    space = own("Undecided")
    network = space.build(draws(space, 1)[0])
    assert [node.op for node in network.graph.nodes] == ["placeholder", "call_module", "output"]
    assert bool((network.eval()(images()) >= 0).all())
    assert bool((network.train()(images()) < 0).any())
    assert export_onnx(network, SHAPE, tmp_path / "model.onnx", exporter="torchscript").parity


def test_a_mixture_is_refused_by_name() -> None:
    space = hub_space("nasbench201")
    gates = {**space.gates(draws(space, 1)[0]), "cell/0_1": mixture(torch.full((5,), 0.2))}
    with user_error("supernet.strategy", "unsupported", says="'cell/0_1'"):
        space(images(), gates)


@pytest.mark.parametrize("name", ["nasbench201", pytest.param("autoformer", marks=pytest.mark.slow)])
def test_a_complete_bundle_comes_out(name: str, tmp_path: Path) -> None:
    space = hub_space(name)
    exported = write_bundle(
        tmp_path,
        space.build(draws(space, 1)[0]),
        input_shape=SHAPE,
        classes=tuple("abcdefg"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        facts={},
    )
    assert exported.path.is_file() and (tmp_path / "model.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "mobilenetv3", "nasbench101", "shufflenet"])
def test_onnx_comes_out_of_the_others(name: str, tmp_path: Path) -> None:
    network = hub_space(name).build(draws(hub_space(name), 1)[0])
    assert isinstance(network, fx.GraphModule)
    assert export_onnx(network, SHAPE, tmp_path / "model.onnx").exporter == "dynamo"


@pytest.mark.parametrize(
    ("model", "options", "where", "code", "says"),
    [
        ("MobileNetV3", {}, "space.model", "unknown", "'MobileNetV3Space'"),
        ("NasBench201", {"stem_channels": 4}, "space.options.stem_channels", "unknown", "'stem_out_channels'"),
        ("ShuffleNetSpace", {"num_labels": 3}, "space.model", "mismatch", "7 classes"),
        ("nothing.py:Space", {}, "nothing.py", "not_found", ""),
        ("NDS", {}, "space.model", "user_code", "op_candidates"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(
    model: str, options: dict[str, Any], where: str, code: Code, says: str
) -> None:
    with user_error(where, code, says=says):
        NniSpace(SHAPE, CLASSES, model=model, options=options)


@pytest.mark.parametrize(
    ("name", "where", "code", "says"),
    [
        ("Continuous", "space.model", "unsupported", "'rate' is a Numerical"),
        ("Subsets", "space.model", "unsupported", "'edges' has 8192 subsets"),
        ("OWN", "own_spaces.py", "unknown", "'OWN'"),
    ],
)
def test_an_own_space_that_cannot_be_used_is_refused_in_a_line(
    own: Callable[[str], NniSpace], name: str, where: str, code: Code, says: str
) -> None:
    with user_error(where, code, says=says):
        own(name)


def test_images_of_another_kind_are_refused() -> None:
    with user_error("space.model", "user_code", says="1x8x8"):
        NniSpace((1, 8, 8), CLASSES, model="NasBench201")


def test_without_nni_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nni.nas.strategy", None)
    with user_error("space.name", "unavailable", says="nni.nas.strategy"):
        hub.__wrapped__()


def test_nnis_log_stays_off_standard_output() -> None:
    hub_space("nasbench201")
    assert not logging.getLogger("nni").handlers
