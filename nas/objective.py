"""Objectives and constraints by name: `accuracy` up, `latency_ms` down, `params <= 0.6e6`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate, Measurement


@dataclass(frozen=True)
class Evaluator:
    """A number about an architecture that a search can optimise or constrain.

    Attributes:
        name: as written in recipes.
        direction: which way is better, as an objective.
        evaluate: returns the number, estimated or measured.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    evaluate: Callable[[Architecture], Estimate | Measurement]

    def __call__(self, architecture: Architecture) -> tuple[float, str]:
        """The bare number, and a remark: why it is not finite, or the verdict on a measurement that is not stable."""
        result = self.evaluate(architecture)
        if isinstance(result, Measurement):
            return result.latency_ms, "" if result.verdict == "stable" else result.verdict
        return result.value, result.reason


@dataclass(frozen=True)
class Constraint:
    """`name <= bound` or `name >= bound`.

    Attributes:
        name: of the evaluator.
        operator: which side of the bound is allowed.
        bound: a finite number.
    """

    name: str
    operator: Literal["<=", ">="]
    bound: float

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side of the bound; 0 or less if it is allowed."""
        return value - self.bound if self.operator == "<=" else self.bound - value

    def is_broken_by(self, value: float) -> bool:
        """Whether `value` is on the wrong side of the bound; values that are not finite are on neither side."""
        return math.isfinite(value) and self.violation(value) > 0

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.bound:g}"

    @classmethod
    def parse(cls, text: str, *, where: str = "constraint") -> Constraint:
        """A constraint from `name <= number` or `name >= number`.

        Raises:
            UserError: another form.
        """
        match = re.fullmatch(r"\s*([A-Za-z_./~]\S*?)\s*(<=|>=)\s*([-+.\w]+)\s*", text)
        try:
            name, operator, bound = match.groups()  # type: ignore[union-attr]
            number = float(bound)
            if not math.isfinite(number):
                raise ValueError(f"{bound} is not finite")
            return cls(name, operator, number)  # type: ignore[arg-type]
        except (AttributeError, ValueError) as error:
            raise UserError(where, f"{text!r} is not of the form 'name <= number' or 'name >= number'") from error


def find_evaluator(evaluators: Mapping[str, Evaluator], name: str, *, where: str) -> Evaluator:
    """The evaluator of a name.

    Args:
        evaluators: by name.
        name: as the user wrote it.
        where: the key it was written under, for messages.

    Raises:
        UserError: there is none.
    """
    if name not in evaluators:
        raise UserError(where, f"unknown name {name!r}", allowed=sorted(evaluators), given=name)
    return evaluators[name]
