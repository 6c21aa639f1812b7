"""What a pruned network is asked to be: `sparsity=0.9`, `params=0.5`, `macs=0.5` or `latency_ms=3.0`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from espalier.nas.errors import UserError

Quantity = Literal["sparsity", "params", "macs", "latency_ms"]


@dataclass(frozen=True)
class Goal:
    """A limit on the pruned network.

    Attributes:
        quantity: what is limited.
        value: a share of the dense network's, or milliseconds. `sparsity` is the share of the prunable weights that
            are zero; all others are upper limits.
    """

    quantity: Quantity
    value: float

    @classmethod
    def parse(cls, text: str, *, where: str = "target") -> Goal:
        """From `quantity=value`.

        Raises:
            UserError: another form, no such quantity, or a value that cannot be reached.
        """
        name, equals, number = text.partition("=")
        known: tuple[Quantity, ...] = get_args(Quantity)
        quantity = next((one for one in known if one == name), None)
        if not equals or quantity is None:
            problem = f"{name!r} is not a quantity" if equals else f"{text!r} is not of the form quantity=value"
            raise UserError(where, problem, allowed=[f"{one}=" for one in known], given=name)
        try:
            value = float(number)
        except ValueError as error:
            raise UserError(where, f"{number!r} is not a number") from error
        most = math.inf if name == "latency_ms" else 1.0
        if not 0 < value < most:
            limits = "more than 0 ms" if name == "latency_ms" else "between 0 and 1, a share"
            raise UserError(where, f"{name} must be {limits}, not {number}")
        return cls(quantity, value)

    def __str__(self) -> str:
        return f"{self.quantity}={self.value:g}"
