"""Regions: parts of a search space, given by the open options of each choice.

Selection narrows a region decision by decision, and each supernet of a few-shot search covers one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace


class Region(Mapping[str, tuple[int, ...]]):
    """The open options of each choice, as increasing indices. Immutable.

    The architectures of the region are all combinations of open options.

    Args:
        open_options: by choice.

    Raises:
        ValueError: a choice has no open option, or its indices do not increase.
    """

    def __init__(self, open_options: Mapping[str, Iterable[int]]) -> None:
        self._open = {name: tuple(options) for name, options in open_options.items()}
        for name, options in self._open.items():
            if not options or list(options) != sorted(set(options)):
                raise ValueError(f"choice {name}: {options} are not increasing indices, at least one")

    @classmethod
    def whole(cls, space: SearchSpace) -> Region:
        """Every option of every choice."""
        return cls({name: range(len(choice.options)) for name, choice in space.choices().items()})

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"Region({self._open})"

    def __hash__(self) -> int:
        return hash(frozenset(self._open.items()))

    def restrict(self, name: str, options: Iterable[int]) -> Region:
        """The region with only these options of one choice left open.

        Raises:
            ValueError: one of them is not open, or there is none.
        """
        kept = tuple(sorted(options))
        if not set(kept) <= set(self[name]):
            raise ValueError(f"choice {name}: {kept} are not all among the open {self[name]}")
        return Region({**self._open, name: kept})

    def decide(self, name: str, option: int) -> Region:
        """The region with one choice decided."""
        return self.restrict(name, (option,))

    def is_decided(self, name: str) -> bool:
        """Whether only one option of a choice is open."""
        return len(self[name]) == 1

    @property
    def undecided(self) -> tuple[str, ...]:
        """The choices with more than one open option, in the space's order."""
        return tuple(name for name in self if not self.is_decided(name))

    @property
    def size(self) -> int:
        """The number of architectures."""
        return math.prod(len(options) for options in self.values())

    def sample_gates(self, generator: torch.Generator) -> dict[str, int]:
        """A uniform draw as gates: each choice's open option independently."""
        draws = torch.rand(len(self), generator=generator, dtype=torch.float64).tolist()
        return {name: options[int(u * len(options))] for u, (name, options) in zip(draws, self.items(), strict=True)}

    def sample(self, space: SearchSpace, generator: torch.Generator) -> Architecture:
        """A uniform draw of an architecture."""
        return space.architecture(self.sample_gates(generator))

    def contains(self, space: SearchSpace, architecture: Architecture) -> bool:
        """Whether all options of an architecture are open."""
        return all(index in self[name] for name, index in space.gates(architecture).items())

    def architecture(self, space: SearchSpace) -> Architecture:
        """The only architecture of the region.

        Raises:
            ValueError: a choice is not decided.
        """
        if self.undecided:
            raise ValueError(f"not decided: {', '.join(self.undecided)}")
        return space.architecture({name: options[0] for name, options in self.items()})

    def to_json(self) -> dict[str, list[int]]:
        """Plain lists, for JSON and checkpoints."""
        return {name: list(options) for name, options in self.items()}

    @classmethod
    def from_json(cls, space: SearchSpace, value: Mapping[str, Iterable[int]], *, where: str = "region") -> Region:
        """The region that `to_json` described.

        Args:
            space: the space of the region.
            value: what `to_json` returned.
            where: the source of the value, for messages.

        Raises:
            UserError: it is of another space; the message names the first difference.
        """
        choices = space.choices()
        for name in [*value, *choices]:
            if name not in choices:
                raise UserError(
                    f"{where}.{name}",
                    "belongs to another space: there is no such choice",
                    allowed=choices,
                    code="mismatch",
                )
            if name not in value:
                raise UserError(f"{where}.{name}", "belongs to another space: the choice is missing", code="mismatch")
            if not set(value[name]) <= set(range(len(choices[name].options))):
                raise UserError(
                    f"{where}.{name}",
                    f"belongs to another space: this one has {len(choices[name].options)} options",
                    code="mismatch",
                )
        return cls({name: value[name] for name in choices})
