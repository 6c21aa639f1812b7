"""What `nas quantize` can be told: the options of the command line and `key=value` beside them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt, ValidationError, field_validator

from espalier.export.comparison import MIN_ROUNDS
from espalier.export.quantize.forms import METHODS, Method
from espalier.nas.settings import Settings
from espalier.recipes.config.prune_settings import PruneDataSettings
from espalier.recipes.config.sections.profile import ProfileSettings
from espalier.recipes.config.validation_errors import first_cause


class QuantizeSettings(Settings):
    """How a given network is quantised, judged and timed."""

    methods: tuple[Method, ...] = Field(METHODS, min_length=1)
    """The forms to try beside float32."""
    max_drop: float = Field(0.01, ge=0, le=1)
    """Accuracy that a form may lose at most, as a share of the test images: the upper bound of its drop."""
    calibration_images: PositiveInt = 256
    """Training images that ranges of activations are taken from."""
    per_channel: bool = True
    """Weights have a scale for each output channel, else one for each tensor."""
    keep_all: bool = False
    """Keep the files of all forms beside the one that is chosen."""
    outputs: str | None = None
    """Which output is the prediction: a name, or a place from 0; null takes `logits`, `out` or the first one."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the images that are drawn."""
    data: PruneDataSettings
    profile: ProfileSettings = ProfileSettings()

    @field_validator("outputs", mode="before")
    @classmethod
    def _as_text(cls, place: Any) -> Any:
        return str(place) if isinstance(place, int) and not isinstance(place, bool) else place

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"{', '.join(methods)} names one of them twice")
        return methods

    @property
    def rounds(self) -> int:
        """Rounds of the comparison on the device."""
        return max(MIN_ROUNDS, self.profile.sessions)


def quantize_settings(document: dict[str, Any]) -> QuantizeSettings:
    """Checked settings from a document.

    Raises:
        UserError: the first thing that is wrong.
    """
    try:
        return QuantizeSettings.model_validate(document)
    except ValidationError as error:
        raise first_cause(error, QuantizeSettings) from error
