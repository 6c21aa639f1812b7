"""How good a network is, with the uncertainty of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Attributes:
    name: what is counted (`accuracy`, `PSNR`). unit: `""` for a share, or `dB`. value: the number.
    low, high: its 95 % interval over images. count: the images. images: what they are called.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    count: int
    images: str

    def __str__(self) -> str:
        if self.unit:
            return f"{self.value:.2f} {self.unit} [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"
