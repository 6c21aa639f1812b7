from __future__ import annotations

import operator

import pytest
import torch
from small_networks import SHAPE, cell_network, small_network
from torch import fx, nn

from espalier.export.errors import ExportError
from espalier.export.source import check_source, python_source
from user_errors import user_error

IMAGES = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


class Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class Mixed(nn.Module):
    """Nested paths, a value used late, a parameter and a buffer read by the graph, methods and operators."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.ModuleDict({"edge_1": nn.Conv2d(3, 3, (3, 1), padding=(1, 0), groups=3)})])
        self.scale = nn.Parameter(torch.rand(3, 1, 1))
        self.register_buffer("shift", torch.rand(3, 1, 1))
        self.norm = nn.LayerNorm(8, elementwise_affine=False)
        self.act = nn.PReLU(3, init=0.1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = self.act(self.cells[0]["edge_1"](input)) * self.scale + self.shift
        y = operator.add(self.norm(y), torch.zeros_like(input))
        return torch.flatten(torch.cat([y, input.clamp(max=float("inf"))], dim=1), 1)[:, :7]


@pytest.mark.parametrize(
    "network",
    [
        small_network(),
        fx.symbolic_trace(Mixed()).eval(),
        cell_network("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"),
    ],
    ids=["sequential", "mixed", "nasbench201"],
)
def test_the_source_alone_rebuilds_the_network(network: fx.GraphModule) -> None:
    source = python_source(network, "Net")
    check_source(source, "Net", network, IMAGES)
    namespace: dict[str, type[nn.Module]] = {}
    exec(source, namespace)
    rebuilt = namespace["Net"]().eval()
    rebuilt.load_state_dict(network.state_dict(), strict=True)
    torch.testing.assert_close(rebuilt(IMAGES), network(IMAGES), rtol=1e-5, atol=1e-6)


def test_lines_are_readable() -> None:
    source = python_source(small_network(), "Net")
    assert "_add(self, '0', nn.Conv2d(3, 4, (3, 3), padding=(1, 1), bias=False))" in source
    assert "nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)" in source
    assert "        x = layer('0')(x)\n        x = layer('1')(x)\n" in source


def test_a_layer_that_is_not_of_torch_is_named() -> None:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, name: str) -> bool:
            return True

    model = nn.Sequential(nn.ReLU(), Own())
    with user_error("1", "unsupported", says="Own"):
        python_source(fx.GraphModule(model, Tracer().trace(model)), "Net")


def test_an_argument_that_is_no_literal_is_named() -> None:
    model = fx.symbolic_trace(nn.Sequential(nn.LeakyReLU(torch.tensor(0.1))))  # type: ignore[arg-type]
    with user_error("0", "unsupported", says="negative_slope"):
        python_source(model, "Net")


def test_a_function_that_is_not_of_torch_is_named() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(small_network, (graph.placeholder("x"),)))
    with pytest.raises(ExportError, match=r"small_network.* small_networks"):
        python_source(fx.GraphModule(nn.Module(), graph), "Net")


def test_the_check_finds_other_numbers_and_other_keys() -> None:
    network = small_network()
    source = python_source(network, "Net")
    with user_error("Net", "failed"):
        check_source(source.replace(", count_include_pad=False", ""), "Net", network, IMAGES)
    with user_error("6.bias", "failed"):
        check_source(source.replace("nn.Linear(4, 5)", "nn.Linear(4, 5, bias=False)"), "Net", network, IMAGES)


def test_bad_names_and_several_inputs_are_refused() -> None:
    with user_error("class_name", "invalid"):
        python_source(small_network(), "class")
    graph = fx.Graph()
    graph.output(graph.call_function(operator.add, (graph.placeholder("a"), graph.placeholder("b"))))
    with user_error("forward", "unsupported", says="2 inputs (a, b)"):
        python_source(fx.GraphModule(nn.Module(), graph), "Net")


def test_a_network_that_draws_at_random_is_said_to() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    network = fx.symbolic_trace(Noisy()).eval()
    with user_error("Net", "unsupported"):
        check_source(python_source(network, "Net"), "Net", network, IMAGES)
