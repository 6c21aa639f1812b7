"""`select`: architectures chosen from the supernet itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from espalier.nas.settings import Settings
from espalier.supernets.selection.criterion import Criterion
from espalier.supernets.selection.perturbation import Topology


class SelectSettings(Settings):
    """Choosing architectures from the supernet itself, each to be trained alone."""

    methods: tuple[Literal["argmax", "perturbation"], ...] = Field(("perturbation",), min_length=1)
    """argmax takes the largest architecture parameters, perturbation what the supernet can least do without."""
    criterion: Criterion = "auto"
    """What perturbation goes by; auto takes the accuracy where the difference is significant, else the loss."""
    topology: Topology = "conditional"
    """How perturbation drops edges: one after the other, or by the rank of each alone."""
    epochs: PositiveInt = 5
    """Epochs of further training between two visits of perturbation."""
    lr: PositiveFloat | None = None
    """Learning rate of that training, which stays as it is; null takes a tenth of the supernet's."""

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"{', '.join(methods)} names one of them twice")
        return methods
