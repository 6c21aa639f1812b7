"""How good a network is, with the uncertainty of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """The quality of a network on test images.

    Attributes:
        name: what is measured, `accuracy` or `PSNR`.
        unit: `dB`, or an empty string for a share.
        value: the number.
        low: lower bound of its 95 % interval over images; None where there is one image.
        high: upper bound.
        count: how many images there are.
        images: what they are called.
    """

    name: str
    unit: str
    value: float
    low: float | None
    high: float | None
    count: int
    images: str

    def __str__(self) -> str:
        form, unit = (".2f", f" {self.unit}") if self.unit else (".2%", "")
        interval = "" if self.low is None or self.high is None else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}}{unit}{interval}"
