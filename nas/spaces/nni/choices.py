"""NNI's mutables as choices, and the mapping between options and NNI's values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain, combinations
from typing import Any

from espalier.nas.architecture import Architecture, Option
from espalier.nas.choices import ValueChoice
from espalier.nas.errors import UserError
from espalier.nas.spaces.nni.library import WHERE

MAX_SUBSETS = 4096
"""Largest number of options of one choice between subsets."""


class MutableChoice(ValueChoice):
    """The choice for one of NNI's mutables, named after its label.

    The options of a `Categorical` are its values; lists and objects are written as strings. The options of a
    `CategoricalMultiple` are the subsets of its values, as tuples of increasing indices.

    Args:
        label: of the mutable.
        options: NNI's value for each option.

    Attributes:
        label: of the mutable; the choice's name has `:` in place of dots.
        values: NNI's value of each option.
    """

    def __init__(self, label: str, options: Mapping[Option, Any]) -> None:
        super().__init__(label.replace(".", ":"), tuple(options))
        self.label = label
        self.values = tuple(options.values())

    @property
    def is_size(self) -> bool:
        """Whether the values are numbers, which may be sizes of layers; the largest one needs the most weights."""
        return all(type(value) in (int, float) for value in self.values)

    @property
    def is_subset(self) -> bool:
        """Whether the options are subsets."""
        return isinstance(self.options[0], tuple)


def choices_of(mutables: Mapping[str, Any]) -> list[MutableChoice]:
    """A choice for each mutable of a simplified model space, except constraints.

    Raises:
        UserError: a mutable is continuous, has too many subsets, or is of an unknown kind.
    """
    from nni.mutable import Categorical, CategoricalMultiple
    from nni.mutable.annotation import MutableAnnotation

    choices = []
    for label, mutable in mutables.items():
        if isinstance(mutable, CategoricalMultiple):
            choices.append(MutableChoice(label, _subsets(label, mutable)))
        elif isinstance(mutable, Categorical):
            choices.append(MutableChoice(label, _values(label, mutable.values)))
        elif not isinstance(mutable, MutableAnnotation):
            problem = f"{label!r} is a {type(mutable).__name__}, but choices must have finitely many options"
            raise UserError(WHERE, problem, allowed=("Categorical", "CategoricalMultiple"), code="unsupported")
    names = [choice.name for choice in choices]
    if clash := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(WHERE, f"two mutables have the same name {clash[0]!r}", code="unsupported")
    return choices


def sample_of(choices: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """NNI's sample of an architecture: the value of each label."""
    return {choice.label: choice.values[choice.options.index(architecture[name])] for name, choice in choices.items()}


def architecture_of(choices: Mapping[str, Any], sample: Mapping[str, Any]) -> Architecture:
    """The architecture of NNI's sample; labels of constraints are ignored.

    Args:
        choices: by name.
        sample: value by label.

    Raises:
        UserError: a choice is missing, or has no such value.
    """
    options: dict[str, Option] = {}
    for name, choice in choices.items():
        value = sample.get(choice.label)
        value = (
            sorted(value, key=choice.values[-1].index)
            if isinstance(value, list) and value not in choice.values
            else value
        )
        if value not in choice.values:
            raise UserError(
                f"sample.{choice.label}", f"there is no value {value!r}", allowed=choice.values, given=value
            )
        options[name] = choice.options[choice.values.index(value)]
    return Architecture(options)


def _values(label: str, values: list[Any]) -> dict[Option, Any]:
    plain = {value if type(value) in (str, int, float, bool) else str(value): value for value in values}
    if len(plain) != len(values):
        raise UserError(WHERE, f"two values of {label!r} are written alike", code="unsupported")
    return plain


def _subsets(label: str, mutable: Any) -> dict[Option, Any]:
    count = len(mutable.values)
    sizes = range(count + 1) if mutable.n_chosen is None else (mutable.n_chosen,)
    total = sum(math.comb(count, size) for size in sizes)
    if total > MAX_SUBSETS:
        raise UserError(
            WHERE, f"{label!r} has {total} subsets; at most {MAX_SUBSETS} are supported", code="unsupported"
        )
    subsets = chain.from_iterable(combinations(range(count), size) for size in sizes)
    return {subset: [mutable.values[i] for i in subset] for subset in subsets}
