"""A model space of NNI as a search space."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nni.blueprint import Blueprint, is_norm
from espalier.nas.spaces.nni.choices import MutableChoice, architecture_of, choices_of, sample_of
from espalier.nas.spaces.nni.library import WHERE
from espalier.nas.spaces.nni.survey import survey
from espalier.nas.spaces.nni.tracing import as_graph
from espalier.nas.spaces.nni.weights import Path, SharedWeights

MAX_DRAWS = 1_000
"""Draws for one architecture that satisfies the constraints (half of NAS-Bench-101's cells do)."""
MAX_PATHS = 128
"""Networks of paths that are kept in memory: as many as are compared on one batch."""


class NniSpace(SearchSpace):
    """A model space of NNI's hub, or a user's own one, for search, scores, supernet training and export.

    Each mutable of NNI is a choice with the same label. `build` returns NNI's frozen model as a graph of plain layers.
    A supernet runs one path at a time: the network of the path, with parts of one shared set of weights. `size` counts
    architectures regardless of constraints.

    The shared weights are made on first use, since finding all layers takes seconds.

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        model: a name of `nni.nas.hub.pytorch`, or `FILE.py:CLASS`, a Python file with a `ModelSpace`.
        options: further arguments of the model space; `num_labels`, `in_channels` and `img_size` are filled in.

    Raises:
        UserError: NNI is not installed; there is no such model space or argument; a mutable has infinitely many
        options;
            or the networks do not take such images, or do not return `num_classes` outputs.
    """

    _place: Tensor

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        *,
        model: str,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self._blueprint = Blueprint(model, input_shape, num_classes, options or {})
        self._mutables = {choice.name: choice for choice in choices_of(self._blueprint.mutables)}
        self._paths: OrderedDict[tuple[int, ...], Path] = OrderedDict()
        self._seed = int(torch.randint(2**31, ()))
        self.register_buffer("_place", torch.empty(0), persistent=False)  # where the weights will be
        self._check_shapes()

    def choices(self) -> Mapping[str, MutableChoice]:
        """The choices by name, in NNI's order."""
        return self._mutables

    def sample(self, generator: torch.Generator) -> Architecture:
        """A uniform draw among the architectures that satisfy the constraints.

        Raises:
            UserError: hardly any architecture does.
        """
        return self._first_valid(super().sample, generator)

    def mutate(self, architecture: Architecture, generator: torch.Generator) -> Architecture:
        """A random valid neighbour: one choice is moved to another option.

        Raises:
            UserError: hardly any neighbour is valid.
        """
        return self._first_valid(functools.partial(super().mutate, architecture), generator)

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture with valid options satisfies the constraints of the model space."""
        return self._blueprint.violation(self.to_sample(architecture)) is None

    def check(self, architecture: Architecture, *, where: str = "architecture") -> Architecture:
        """The architecture itself, if it belongs to this space.

        Args:
            architecture: any architecture.
            where: its source, for messages.

        Raises:
            UserError: a choice or an option does not exist, or a constraint is violated.
        """
        violation = self._blueprint.violation(self.to_sample(super().check(architecture, where=where)))
        if violation is not None:
            raise UserError(where, violation, code="infeasible")
        return architecture

    def to_sample(self, architecture: Architecture) -> dict[str, Any]:
        """NNI's sample of an architecture, as `ModelSpace.freeze` takes it."""
        return sample_of(self._mutables, architecture)

    def from_sample(self, sample: Mapping[str, Any]) -> Architecture:
        """The architecture of NNI's sample; the inverse of `to_sample`.

        Raises:
            UserError: the sample is not of this space.
        """
        return self.check(architecture_of(self._mutables, sample), where="sample")

    def build(self, architecture: Architecture, *, weights: Literal["fresh", "inherited"] = "fresh") -> fx.GraphModule:
        """NNI's frozen model as a graph of plain torch layers.

        Args:
            architecture: an architecture of this space.
            weights: `fresh` initialises them as NNI's constructor does, with torch's global generator; `inherited`
                copies those of the supernet's path.

        Raises:
            UserError: not an architecture of this space.
        """
        sample = self.to_sample(self.check(architecture))
        if self._place.is_meta:
            return as_graph(self._blueprint.skeleton(sample).to("meta").train(self.training))
        network = self._blueprint.network(sample).to(self._place)
        if weights == "inherited":
            network.load_state_dict(self.shared.views(self._path(self.gates(architecture))), strict=False)
        return as_graph(network.train(self.training))

    def skeleton(self, architecture: Architecture) -> nn.Module:
        """The frozen model of a valid architecture without weights, with NNI's modules, on the meta device."""
        return self._blueprint.skeleton(self.to_sample(architecture))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """The logits of one path.

        Raises:
            UserError: a gate is a mixture.
        """
        path = self._path(gates)
        for module in path.network.modules():
            if not is_norm(module):  # norms are shared, and already in the mode of this module
                module.training = self.training
        logits: Tensor = torch.func.functional_call(path.network, self.shared.views(path), (x,))
        return logits

    @property
    def shared(self) -> SharedWeights:
        """The weights of all paths; made on first use."""
        if "_shared" not in self._modules:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._seed)
                self._shared = SharedWeights(survey(self)).to(self._place).train(self.training)
        return self._shared

    def named_modules(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Module]]:
        """As in any module; makes the shared weights if needed."""
        _ = self.shared
        return super().named_modules(*args, **options)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """As in any module; makes the shared weights if needed."""
        _ = self.shared
        return super().state_dict(*args, **options)

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """As in any module; makes the shared weights if needed."""
        _ = self.shared
        return super().load_state_dict(*args, **options)

    def _apply(self, *args: Any, **options: Any) -> Any:
        self._paths.clear()  # they have constants on the old device
        return super()._apply(*args, **options)

    def _path(self, gates: Gates) -> Path:
        options = tuple(_option(name, gates[name]) for name in self._mutables)
        if options not in self._paths:
            architecture = self.architecture(dict(zip(self._mutables, options, strict=True)))
            try:
                self._paths[options] = self.shared.path(self.skeleton(self.check(architecture)))
            except LookupError as error:
                problem = (
                    f"there are no weights for the layer {error} of {architecture.id}, which the survey did not find"
                )
                raise UserError(WHERE, problem, code="unsupported") from error
        self._paths.move_to_end(options)
        if len(self._paths) > MAX_PATHS:
            self._paths.popitem(last=False)
        return self._paths[options]

    def _first_valid(self, draw: Callable[[torch.Generator], Architecture], generator: torch.Generator) -> Architecture:
        for _ in range(MAX_DRAWS):
            if self.contains(architecture := draw(generator)):
                return architecture
        raise UserError(
            WHERE,
            f"none of {MAX_DRAWS} random architectures satisfies the constraints of {self._blueprint.model}",
            code="infeasible",
        )

    def _check_shapes(self) -> None:
        network = self.skeleton(self.sample(torch.Generator().manual_seed(0))).to("meta").eval()
        images = "x".join(map(str, self.input_shape))
        try:
            shape = tuple(network(torch.empty(2, *self.input_shape, device="meta")).shape)
        except Exception as error:  # a model may raise anything
            raise UserError(
                WHERE, f"{self._blueprint.model} does not take images {images}: {error}", code="user_code"
            ) from error
        if shape != (2, self.num_classes):
            raise UserError(
                WHERE,
                f"{self._blueprint.model} returns {shape[1:]} outputs for {self.num_classes} classes",
                code="mismatch",
            )


def _option(name: str, gate: Gate) -> int:
    if isinstance(gate, Mixture):
        problem = f"a model space of NNI runs one path at a time, but {name!r} is a mixture"
        raise UserError("supernet.strategy", problem, code="unsupported")
    return gate
