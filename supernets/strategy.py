"""A supernet strategy: a producer of gates."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from nas.choices import Choice
from nas.errors import UserError
from nas.gates import Gates
from nas.space import SearchSpace


class Strategy(Protocol):
    """How the weights of a supernet are shared between its architectures while they are trained.

    Attributes:
        name: as in recipes. supports: the kinds of choice it can open.
    """

    name: str
    supports: frozenset[type[Choice]]

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The gates of one step of the weights; all randomness comes from `generator`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the strategy has learnt so far."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        ...


def check_supports(strategy: Strategy, space: SearchSpace) -> None:
    """Refuse a space with a kind of choice that the strategy cannot open, before any training.

    Raises:
        UserError: naming the choice.
    """
    for choice in space.choices().values():
        if not isinstance(choice, tuple(strategy.supports)):
            kinds = sorted(kind.__name__ for kind in strategy.supports)
            kind = type(choice).__name__
            raise UserError(
                "supernet.strategy", f"{strategy.name} cannot train the {kind} {choice.name!r}", allowed=kinds
            )
