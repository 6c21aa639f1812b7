"""Selection by magnitude: the options with the largest architecture parameters. The baseline."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace


def argmax(space: SearchSpace, preferences: Mapping[str, Tensor], region: Region) -> Architecture:
    """The largest option of every choice (Liu et al., DARTS, section 2.4); ties go to the lower index.

    Where nodes keep a fixed number of edges, no edge is `none` while it has another open option, kept without a choice
    or not. An input choice keeps those edges whose strongest operation, `none` aside, is strongest.

    Args:
        space: the search space.
        preferences: for each undecided choice how much each option counts; choices between inputs that come from layer
            choices need none.
        region: the options to choose among.
    """
    strength: dict[str, list[float]] = {name: weights.tolist() for name, weights in preferences.items()}
    choices = space.choices()
    edges = {edge for choice in choices.values() if isinstance(choice, InputChoice) for edge in choice.edges or ()}

    def candidates(name: str) -> list[int]:
        choice, options = choices[name], list(region[name])
        if isinstance(choice, LayerChoice) and (choice.kept or name in edges):
            return [index for index in options if not choice.is_zero(index)] or options
        return options

    best: dict[str, int] = {}
    for name, choice in choices.items():
        if isinstance(choice, InputChoice) and choice.edges:
            strongest = [max(strength[edge][o] for o in candidates(edge)) for edge in choice.edges]
            sums = {index: sum(strongest[i] for i in choice.subsets[index]) for index in region[name]}
            best[name] = max(sums, key=lambda index: sums[index])
        else:
            best[name] = max(candidates(name), key=lambda index: strength[name][index])
    return space.architecture(best)
