"""`train`: the chosen architectures, each trained alone."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from espalier.nas.training import TrainSettings
from espalier.recipes.config.predictor_name import PredictorName
from espalier.recipes.config.registry import INHERITED


class FinalTrainSettings(TrainSettings):
    """Training of chosen architectures alone, from fresh weights."""

    front: PositiveInt = 4
    """Architectures to take from the Pareto front, spread along it."""
    random: int = Field(0, ge=0)
    """Further architectures drawn at random from the space within the limits on params and MACs, as a control."""
    predictors: tuple[PredictorName, ...] = ("params", "macs", "gradsign", "naswot", "synflow", INHERITED)
    """Predictors to compare with the accuracies reached."""
