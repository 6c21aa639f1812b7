"""`supernet`: the training of the weights that all architectures share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from espalier.nas.training import TrainSettings
from espalier.recipes.config.options import method
from espalier.recipes.config.registry import STRATEGIES
from espalier.supernets.early_stop import StopSettings
from espalier.supernets.fewshot.plan import FewShotSettings


class SupernetSettings(TrainSettings):
    """Training of the weights that all architectures share."""

    strategy: method(STRATEGIES) = Field("spos", validate_default=True)  # type: ignore[valid-type]
    """How the weights are shared while they are trained: a name, or `{name: darts, order: 2}` with its options."""
    few_shot: FewShotSettings | None = None
    """Split the space, and train a supernet for each part; then `epochs` is not used."""
    decay: Literal["stored", "effective"] = "stored"
    """What weight_decay shrinks: the stored weights, or in elastic spaces those that count in a step."""
    stop: StopSettings | None = None
    """End the training early where preferences collapse; null trains to the end."""

    @model_validator(mode="after")
    def _some_epochs_after_each_warm_up(self) -> SupernetSettings:
        if self.few_shot is not None and self.warmup_epochs >= self.few_shot.shortest:
            least = f"the {self.few_shot.shortest} epochs of the shortest supernet of few_shot"
            raise ValueError(f"warmup_epochs must be fewer than {least}, not {self.warmup_epochs:g}")
        return self

    @model_validator(mode="after")
    def _one_supernet_to_stop(self) -> SupernetSettings:
        if self.stop is not None and self.few_shot is not None:
            raise ValueError("stop does not go with few_shot, whose supernets are split after fixed numbers of epochs")
        return self
