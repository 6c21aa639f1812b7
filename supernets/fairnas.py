"""FairNAS: Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS", ICCV 2021."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from espalier.nas.gates import Gates
from espalier.supernets.constraints import rejection_sample, satisfies_constraints
from espalier.supernets.spos import SinglePathOneShot

Decks = Mapping[str, tuple[int, ...]]


class FairNAS(SinglePathOneShot):
    """Strict fairness: in each step every option of every choice is trained equally often (algorithm 1 of the paper).

    A step runs K paths on the same images, K being the most open options of any choice: path k takes for each choice
    the k-th option of a fresh permutation. The gradients of the K losses are added up, then the optimiser takes one
    step. So it costs K steps of one path.

    A choice with n < K open options is dealt permutation after permutation; what is left of the last one is dealt
    first in the next step. So at any time its options differ by at most one use.
    """

    name = "fairnas"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._decks: Decks = {}

    def sample_paths(self, generator: torch.Generator) -> Sequence[Gates]:
        """K paths, all drawn again where the space does not contain one of them.

        Raises:
            UserError: it contains nothing, or hardly anything, of the region.
        """
        paths, self._decks = rejection_sample(
            lambda: self._deal(generator),
            lambda dealt: all(satisfies_constraints(self.space, path) for path in dealt[0]),
            where="supernet.strategy",
            problem=f"{self.name} finds no fair paths through the options that are open",
        )
        return paths

    def _deal(self, generator: torch.Generator) -> tuple[list[dict[str, int]], Decks]:
        count = max(len(options) for options in self.region.values())
        dealt, left = {}, {}
        for name, options in self.region.items():
            cards = [option for option in self._decks.get(name, ()) if option in options]
            while len(cards) < count:
                cards += [options[i] for i in torch.randperm(len(options), generator=generator).tolist()]
            dealt[name], left[name] = cards[:count], tuple(cards[count:])
        return [{name: cards[k] for name, cards in dealt.items()} for k in range(count)], left

    def state_dict(self) -> dict[str, Any]:
        """The region, and what has not been dealt."""
        return {**super().state_dict(), "decks": {name: list(cards) for name, cards in self._decks.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space; the choice is named.
        """
        super().load_state_dict(state)
        self._decks = {name: tuple(cards) for name, cards in state["decks"].items()}
