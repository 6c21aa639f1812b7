"""A supernet strategy: it produces gates, and may learn which ones to produce."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice
from espalier.nas.data.batches import Order
from espalier.nas.device import autocast
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch, Classification
from espalier.supernets.alphas import region_gates


@dataclass(frozen=True)
class Step:
    """What a strategy may use before and after one step of the weights.

    Attributes:
        supernet: in training mode.
        task: gives the loss.
        optimizer: of the weights.
        train: the batch of this step.
        validation: gives the next batch of the images for architecture parameters.
        generator: of the draws of gates, on the CPU.
        epoch: this epoch, counted from 0.
        epochs: their number.
        index: this step of the epoch, counted from 0.
        steps: steps in an epoch.
        penalty: a function of the gates that is added to every loss; None for none.
    """

    supernet: SearchSpace
    task: Classification
    optimizer: torch.optim.Optimizer
    train: Batch
    validation: Callable[[], Batch]
    generator: torch.Generator
    epoch: int
    epochs: int
    index: int
    steps: int
    penalty: Callable[[Gates], Tensor] | None = None

    @property
    def progress(self) -> float:
        """The share of the training that is done after this step."""
        return (self.epoch + (self.index + 1) / self.steps) / self.epochs

    def loss(self, batch: Batch, gates: Gates, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss of the supernet under these gates, with `weights` by name in place of its own."""
        x, y = batch
        with autocast(x.device):
            logits = self.supernet(x, gates) if weights is None else self._with(weights, x, gates)
            loss = self.task.loss(logits, y)
        return loss if self.penalty is None else loss + self.penalty(gates)

    def _with(self, weights: Mapping[str, Tensor], x: Tensor, gates: Gates) -> Tensor:
        return torch.func.functional_call(self.supernet, dict(weights), (x, gates))


@dataclass(kw_only=True, eq=False)
class Strategy(ABC):
    """How the weights of a supernet are shared between its architectures while they are trained.

    The keyword-only arguments of a subclass's constructor are its keys in a recipe. Ours are dataclasses, so that each
    option is written once, with its type, range and default; a constructor written by hand works as well.

    Args:
        space: the supernet.

    Attributes:
        name: as in recipes.
        supports: the kinds of choice it can open.
        learns: whether it has architecture parameters, which need images of their own.
        region: the options that it still opens; the whole space at first.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[type[Choice]]]
    learns: ClassVar[bool] = False

    space: SearchSpace = field(kw_only=False, repr=False)
    region: Region = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.region = Region.whole(self.space)

    @abstractmethod
    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The gates of one step of the weights; all randomness comes from `generator`."""

    def sample_paths(self, generator: torch.Generator) -> Sequence[Gates]:
        """The gates whose gradients are summed in one step of the weights; by default one draw of `weight_gates`."""
        return [self.weight_gates(generator)]

    def path_loss(self, task: Classification, logits: Tensor, targets: Tensor) -> Tensor:
        """What a step of the weights minimises; called once for each of the step's `sample_paths`, in order."""
        return task.loss(logits, targets)

    @property
    def image_order(self) -> Order | None:
        """What chooses the training images of an epoch; None takes each image once, in random order."""
        return None

    def mean_gates(self) -> Gates:
        """Gates that average over the architectures of the region; by default with equal weights."""
        device = next(self.space.parameters()).device

        def uniform(name: str) -> Tensor:
            options = self.region[name]
            return torch.full((len(self.space.choices()[name].options),), 1 / len(options), device=device)

        return region_gates(self.space, self.region, uniform)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027 - most work with any
        """Refuse, before the training starts, an optimiser of the weights that the strategy cannot work with.

        Raises:
            UserError: listing optimisers that work.
        """

    def check_schedule(self, epochs: int, steps: int) -> None:  # noqa: B027 - most work with any
        """Refuse, before the training starts, a schedule in which nothing would be learnt.

        Raises:
            UserError: naming the option.
        """

    def begin_epoch(self, epoch: int, epochs: int) -> None:  # noqa: B027
        """Called before each epoch (counted from 0), before its images are drawn."""

    def before_update(self, paths: Sequence[Gates]) -> None:  # noqa: B027
        """Called after the gradients of these paths are summed and clipped, before the optimiser's step."""

    def before_step(self, step: Step) -> None:  # noqa: B027 - most strategies do nothing here
        """Called before each step of the weights."""

    def after_step(self, step: Step) -> None:  # noqa: B027
        """Called after each step of the weights."""

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """Called after each epoch (counted from 0); the result is added to the epoch's row."""
        return {}

    @property
    def uses_cost(self) -> bool:
        """Whether the cost of networks influences what it learns."""
        return False

    def preferences(self) -> Mapping[str, Tensor]:
        """The probability of each option, for the choices that have architecture parameters."""
        return {}

    def preferred(self) -> Architecture:
        """The architecture that the preferences select.

        Raises:
            UserError: the strategy has no preferences.
        """
        problem = f"{self.name} learns no preferences, which argmax needs"
        raise UserError("select.methods", problem, code="unsupported")

    def state_dict(self) -> dict[str, Any]:
        """The state of the strategy: tensors, numbers and strings."""
        return {"region": self.region.to_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space; the choice is named.
        """
        self.region = Region.from_json(self.space, state["region"], where="checkpoint")


def check_supports(strategy: type[Strategy], space: SearchSpace) -> None:
    """Refuse a space with a kind of choice that the strategy does not support.

    Raises:
        UserError: naming the choice.
    """
    for choice in space.choices().values():
        if not isinstance(choice, tuple(strategy.supports)):
            kinds = sorted(kind.__name__ for kind in strategy.supports)
            problem = f"{strategy.name} cannot train the {type(choice).__name__} {choice.name!r}"
            raise UserError("supernet.strategy", problem, code="unsupported", allowed=kinds)
