"""`rank`: how well predictors rank the architectures of a benchmark table."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveInt

from espalier.nas.settings import Settings
from espalier.recipes.config.predictor_name import PredictorName


class RankSettings(Settings):
    """How well predictors rank the architectures of a benchmark table."""

    table: Path
    """A CSV file, gzipped or not, with a column `arch` in the notation of the space."""
    target: str
    """The column with the true accuracy."""
    samples: PositiveInt = 200
    """Different architectures to draw from the table."""
    unique: bool = False
    """Draw no two architectures that are known to compute the same function."""
    predictors: tuple[PredictorName, ...] = ("params", "macs", "gradsign", "naswot", "synflow")
    """Predictors to compare; params and macs are always among them."""
