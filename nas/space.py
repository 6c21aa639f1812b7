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
"""States of layers, see `SearchSpace.states`."""
Edge = tuple[str, str, str]
"""An arrow of a drawing: source node, target node, what happens on the way."""


class SearchSpace(nn.Module):
    """Networks that differ in their choices and share one set of weights.

    A subclass lays out the modules and writes `forward(x, gates)`, handing `gates` on to every choice inside. All
    else follows from that: sampling, the supernet (this module itself) and, by tracing the forward pass along one
    path, the plain network of an architecture. The forward pass must therefore be traceable by `torch.fx` once the
    gates are fixed: no decision on the value of a tensor.

    Attributes:
        input_shape: `(channels, height, width)` of one image.
        num_classes: number of outputs.
    """

    input_shape: tuple[int, int, int]
    num_classes: int

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """Logits `(batch, num_classes)` of images `x` `(batch, channels, height, width)` under these gates."""
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
        """Every choice in one of some groups, which a method may decide side by side; here one group of all."""
        return [self.choices().keys()]

    @property
    def size(self) -> int:
        """The number of architectures."""
        return math.prod(len(choice.options) for choice in self.choices().values())

    def sample(self, generator: torch.Generator) -> Architecture:
        """A uniform draw: each choice's option independently."""
        return Architecture(
            {name: choice.options[_randint(len(choice.options), generator)] for name, choice in self.choices().items()}
        )

    def mutate(self, architecture: Architecture, generator: torch.Generator) -> Architecture:
        """The architecture with one choice, drawn uniformly, moved to another of its options, drawn uniformly."""
        open_choices = [choice for choice in self.choices().values() if len(choice.options) > 1]
        choice = open_choices[_randint(len(open_choices), generator)]
        others = [option for option in choice.options if option != architecture[choice.name]]
        return architecture.replace(choice.name, others[_randint(len(others), generator)])

    def check(self, architecture: Architecture, *, where: str = "architecture") -> Architecture:
        """The architecture itself, if it is one of this space.

        Raises:
            UserError: a choice is unknown or missing, or an option is not among those offered.
        """
        choices = self.choices()
        for name, option in architecture.items():
            if name not in choices:
                raise UserError(f"{where}.{name}", "no such choice in the space", allowed=choices, given=name)
            if option not in choices[name].options:
                options = choices[name].options
                raise UserError(f"{where}.{name}", f"no option {option!r}", allowed=options, given=option)
        for name in choices:
            if name not in architecture:
                raise UserError(f"{where}.{name}", "the choice is missing", code="missing")
        return architecture

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture with options of this space keeps what the space demands beyond them; here always."""
        return True

    def gates(self, architecture: Architecture) -> dict[str, int]:
        """One-hot gates: the index of the architecture's option for each choice."""
        return {name: choice.options.index(architecture[name]) for name, choice in self.choices().items()}

    def architecture(self, gates: Mapping[str, int]) -> Architecture:
        """The architecture of one-hot gates; the inverse of `gates`."""
        return Architecture({name: choice.options[gates[name]] for name, choice in self.choices().items()})

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        """An architecture from the notation of the space; here its JSON.

        Raises:
            UserError: `text` is not an architecture of this space.
        """
        return self.check(Architecture.from_json(text, where=where), where=where)

    def format(self, architecture: Architecture) -> str:
        """An architecture in the notation of the space, such that `parse` gives it back."""
        return architecture.to_json()

    def inactive(self, architecture: Architecture) -> Collection[str]:
        """The choices that change nothing beside the others, as in blocks that a depth leaves out; here none."""
        return ()

    def states(self, architecture: Architecture) -> Mapping[str, str]:
        """What becomes of the layers of choices in a built network where they are not run as they stand in the space.

        Words: `absent`, nothing reads what they make; `added`, an addition to what another makes comes with them;
        `repeated`, another makes the same, and the addition alone is left. Any other word stands for another way to
        run them, which costs what it costs. Here the inactive ones are absent.
        """
        return dict.fromkeys(self.inactive(architecture), ABSENT)

    def dependencies(self, name: str) -> Collection[str]:
        """The other choices that the state of one depends on, but for a depth that leaves its block out; here none."""
        return ()

    def isomorphism_class(self, architecture: Architecture) -> str:
        """A name shared by architectures known to compute the same function; here the id without inactive choices."""
        inactive = set(self.inactive(architecture))
        return Architecture({name: option for name, option in architecture.items() if name not in inactive}).id

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The arrows to draw; here a chain of the choices that are not inactive, from input to output."""
        inactive = set(self.inactive(architecture))
        used = [name for name in self.choices() if name not in inactive]
        names = ["input", *used, "output"]
        labels = [f"{architecture[name]}" for name in used]
        return [(a, b, label) for a, b, label in zip(names, names[1:], [*labels, ""], strict=False)]

    def build(self, architecture: Architecture, *, weights: Literal["fresh", "inherited"] = "fresh") -> fx.GraphModule:
        """The plain stand-alone network of an architecture: torch layers and their data flow, nothing of ours.

        The forward pass is traced along the architecture's path, so the network computes exactly what the supernet
        computes under `gates(architecture)`. It shares no tensor with the supernet.

        Args:
            architecture: one of this space.
            weights: `fresh` initialises every layer anew with torch's global generator (training alone, zero-cost
                scores); `inherited` copies the supernet's weights and buffers.

        Returns:
            A `torch.fx.GraphModule`, in the training mode of this module.

        Raises:
            UserError: not an architecture of this space.
        """
        path = self.gates(self.check(architecture))
        graph = _Tracer().trace(_Path(self, path))
        parts: dict[str, Any] = {}
        memo: dict[int, Any] = {}  # one copy of a part that is reached under two names
        for node in graph.nodes:
            if node.op in ("call_module", "get_attr"):
                node.target = str(node.target).removeprefix("space.")
                part = _attribute(self, node.target)
                if isinstance(part, Elastic):
                    parts.setdefault(node.target, part.extract(path))
                    node.args, node.kwargs = node.args[:-1], {}  # all but the gates
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
        """What a network trained alone has and the supernet has not (affine batch norms, for one); here nothing.

        The outputs must not change.
        """
        return network

    def initialise(self, network: nn.Module) -> None:
        """Fresh weights; here torch's defaults of every layer. A space with parameters outside layers adds theirs."""
        for module in network.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


class _Tracer(fx.Tracer):
    """Stops at elastic layers, of which the path leaves plain ones."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Elastic) or super().is_leaf_module(m, module_qualified_name)


class _Path(nn.Module):
    """A supernet with its gates fixed, for the tracer, to which gates must not be an input."""

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
