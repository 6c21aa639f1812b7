"""A region: the part of a search space that is still open, a set of options for each choice.

What selection has decided, what a few-shot group may use and what a dropped edge rules out are all regions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace


class Region(Mapping[str, tuple[int, ...]]):
    """The increasing indices of the open options of each choice. Immutable; its architectures are their product."""

    def __init__(self, open_options: Mapping[str, Iterable[int]]) -> None:
        """Raises ValueError where a choice has nothing open, or its indices do not increase."""
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
        """The region with only `options` of one choice left.

        Raises:
            ValueError: one of them is not open, or there is none.
        """
        kept = tuple(sorted(options))
        if not set(kept) <= set(self[name]):
            raise ValueError(f"choice {name}: {kept} are not all among the open {self[name]}")
        return Region({**self._open, name: kept})

    def decide(self, name: str, option: int) -> Region:
        """The region with one option of one choice left."""
        return self.restrict(name, (option,))

    def is_decided(self, name: str) -> bool:
        """Whether one option is left."""
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
        """Whether an architecture's options are all open."""
        return all(index in self[name] for name, index in space.gates(architecture).items())

    def architecture(self, space: SearchSpace) -> Architecture:
        """The one architecture that is left.

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
        """What `to_json` gave.

        Raises:
            UserError: it is of another space; the first difference is named.
        """
        choices = space.choices()
        for name in [*value, *choices]:
            if name not in choices:
                raise UserError(
                    f"{where}.{name}", "of another space: it has no such choice", allowed=choices, code="mismatch"
                )
            if name not in value:
                raise UserError(f"{where}.{name}", "of another space: the choice is missing", code="mismatch")
            if not set(value[name]) <= set(range(len(choices[name].options))):
                raise UserError(
                    f"{where}.{name}", f"of another space: it has {len(choices[name].options)} options", code="mismatch"
                )
        return cls({name: value[name] for name in choices})
