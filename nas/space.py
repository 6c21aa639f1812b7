"""A search space: a module with choices in it, which is its own supernet."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice
from espalier.nas.elastic.layer import Elastic
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates

ABSENT, ADDED, REPEATED = "absent", "added", "repeated"
"""Words for the states of layers, see `SearchSpace.states`."""
Edge = tuple[str, str, str]
"""An arrow of a diagram: source node, target node, label."""


class SearchSpace(nn.Module):
    """Networks that differ in their choices and share one set of weights.

    A subclass creates the modules and defines `forward(x, gates)`, which passes `gates` on to every choice inside.
    Everything else follows from that: sampling, the supernet (this module itself) and, by tracing the forward pass
    along one path, the plain network of an architecture. With fixed gates the forward pass must therefore be traceable
    by `torch.fx`: no control flow may depend on the value of a tensor.

    Attributes:
        input_shape: `(channels, height, width)` of one image.
        num_classes: number of outputs.
    """

    input_shape: tuple[int, int, int]
    num_classes: int

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """The logits of images under these gates.

        Args:
            x: images, `(batch, channels, height, width)`.
            gates: a gate for each choice.

        Returns:
            `(batch, num_classes)`.
        """
        raise NotImplementedError

    @functools.cached_property
    def _choices(self) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for module in self.modules():
            if isinstance(module, Choice):
                first = choices.setdefault(module.name, module)
                if first.options != module.options:
                    raise ValueError(f"two choices named {module.name} offer different options")
        return choices

    def choices(self) -> Mapping[str, Choice]:
        """The choices by name, in the order of the forward pass's modules."""
        return self._choices

    def choice_groups(self) -> Sequence[Collection[str]]:
        """Groups of choices that a method may decide independently; by default one group of all choices."""
        return [self.choices().keys()]

    @property
    def size(self) -> int:
        """The number of architectures."""
        return math.prod(len(choice.options) for choice in self.choices().values())

    def sample(self, generator: torch.Generator) -> Architecture:
        """A random architecture, with each option drawn uniformly and independently."""
        return Architecture(
            {name: choice.options[_randint(len(choice.options), generator)] for name, choice in self.choices().items()}
        )

    def mutate(self, architecture: Architecture, generator: torch.Generator) -> Architecture:
        """A random neighbour: one random choice is moved to another random option."""
        open_choices = [choice for choice in self.choices().values() if len(choice.options) > 1]
        choice = open_choices[_randint(len(open_choices), generator)]
        others = [option for option in choice.options if option != architecture[choice.name]]
        return architecture.replace(choice.name, others[_randint(len(others), generator)])

    def check(self, architecture: Architecture, *, where: str = "architecture") -> Architecture:
        """The architecture itself, if it belongs to this space.

        Args:
            architecture: any architecture.
            where: its source, for messages.

        Raises:
            UserError: a choice is unknown or missing, or an option does not exist.
        """
        choices = self.choices()
        for name, option in architecture.items():
            if name not in choices:
                raise UserError(f"{where}.{name}", "the space has no such choice", allowed=choices, given=name)
            if option not in choices[name].options:
                options = choices[name].options
                raise UserError(f"{where}.{name}", f"there is no option {option!r}", allowed=options, given=option)
        for name in choices:
            if name not in architecture:
                raise UserError(f"{where}.{name}", "the choice is missing", code="missing")
        return architecture

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture with valid options satisfies the space's further constraints; by default, always."""
        return True

    def gates(self, architecture: Architecture) -> dict[str, int]:
        """One-hot gates: the index of the architecture's option for each choice."""
        return {name: choice.options.index(architecture[name]) for name, choice in self.choices().items()}

    def architecture(self, gates: Mapping[str, int]) -> Architecture:
        """The architecture of one-hot gates; the inverse of `gates`."""
        return Architecture({name: choice.options[gates[name]] for name, choice in self.choices().items()})

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        """An architecture from the notation of the space; by default, JSON.

        Args:
            text: the notation of one architecture.
            where: the source of the text, for messages.

        Raises:
            UserError: `text` is not an architecture of this space.
        """
        return self.check(Architecture.from_json(text, where=where), where=where)

    def format(self, architecture: Architecture) -> str:
        """An architecture in the notation of the space; the inverse of `parse`."""
        return architecture.to_json()

    def inactive(self, architecture: Architecture) -> Collection[str]:
        """The choices without effect in an architecture, as in blocks that its depth leaves out; by default none."""
        return ()

    def states(self, architecture: Architecture) -> Mapping[str, str]:
        """How the layers of choices are run in a built network, where that differs from the space.

        By default the layers of inactive choices are absent, and all others are run as they are in the space.

        Returns:
            Words by choice, separated by spaces: `absent` if nothing reads the output; `added` if the output is added
            to that of another layer; `repeated` if another layer computes the same, so that only the addition is left.
            Spaces may use further words for other ways to run a layer, which then is a block of its own.
        """
        return dict.fromkeys(self.inactive(architecture), ABSENT)

    def dependencies(self, name: str) -> Collection[str]:
        """The other choices that a choice's state depends on, but for a depth that may leave its block out."""
        return ()

    def isomorphism_class(self, architecture: Architecture) -> str:
        """A name that architectures share if they are known to compute the same function.

        By default it is the id without inactive choices.
        """
        inactive = set(self.inactive(architecture))
        return Architecture({name: option for name, option in architecture.items() if name not in inactive}).id

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The arrows of a diagram; by default a chain of the active choices from input to output."""
        inactive = set(self.inactive(architecture))
        used = [name for name in self.choices() if name not in inactive]
        names = ["input", *used, "output"]
        labels = [f"{architecture[name]}" for name in used]
        return [(a, b, label) for a, b, label in zip(names, names[1:], [*labels, ""], strict=False)]

    def build(self, architecture: Architecture, *, weights: Literal["fresh", "inherited"] = "fresh") -> fx.GraphModule:
        """The plain stand-alone network of an architecture: ordinary torch layers and their data flow.

        The forward pass is traced along the architecture's path, so the network computes exactly what the supernet
        computes under `gates(architecture)`. The two share no tensor.

        Args:
            architecture: an architecture of this space.
            weights: `fresh` initialises every layer anew with torch's global generator (training alone, zero-cost
                scores); `inherited` copies the supernet's weights and buffers.

        Returns:
            The network, in the same training mode as this module.

        Raises:
            UserError: not an architecture of this space.
        """
        path = self.gates(self.check(architecture))
        graph = _Tracer().trace(_Path(self, path))
        parts: dict[str, Any] = {}
        memo: dict[int, Any] = {}  # a part with two names is copied once
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr"):
                node.target = str(node.target).removeprefix("space.")
                part = _attribute(self, node.target)
                if isinstance(part, Elastic):
                    parts.setdefault(node.target, part.extract(path))
                    node.args, node.kwargs = node.args[:-1], {}  # without the gates
                    node.op = "get_attr" if isinstance(parts[node.target], nn.Parameter) else node.op
                else:
                    parts[node.target] = copy.deepcopy(part, memo)
        network = fx.GraphModule(parts, graph, class_name=type(self).__name__).train(self.training)
        network.zero_grad(set_to_none=True)
        network = self.to_stand_alone(network)
        if weights == "fresh":
            self.initialise(network)
        return network

    def to_stand_alone(self, network: fx.GraphModule) -> fx.GraphModule:
        """Hook to add what a network trained alone has and the supernet does not, such as affine batch norms.

        It must not change the outputs. By default it adds nothing.

        Args:
            network: a network with the supernet's layers; may be changed in place.
        """
        return network

    def initialise(self, network: nn.Module) -> None:
        """Initialise all weights; by default as torch does. Spaces with parameters outside layers extend this.

        Args:
            network: a built network; changed in place.
        """
        for module in network.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


class _Tracer(fx.Tracer):
    """Does not trace into elastic layers, which `build` replaces by plain ones."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Elastic) or super().is_leaf_module(m, module_qualified_name)


class _Path(nn.Module):
    """A supernet with fixed gates, so that gates are not an input of the traced graph."""

    def __init__(self, space: SearchSpace, gates: Gates) -> None:
        super().__init__()
        self.space = space
        self.path = gates

    def forward(self, x: Tensor) -> Tensor:
        return self.space(x, self.path)


def _attribute(module: nn.Module, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), module)


def _randint(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator))
