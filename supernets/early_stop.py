"""Ending a supernet's training before its preferences collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from espalier.nas.errors import UserError
from espalier.nas.settings import Settings
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.supernets.curvature import GROWTH, WINDOW, eigenvalue_growth, sharpness
from espalier.supernets.diagnosis import parameter_free
from espalier.supernets.strategy import Strategy


class StopSettings(Settings):
    """When to end the training of a supernet early."""

    eigenvalue_growth: float | None = Field(GROWTH, gt=1)
    """Stop once the dominant eigenvalue of d2 L_val / d alpha2, a mean over five epochs, is this many times its value
    five epochs before; null does not measure it. Each epoch it costs a few passes of the whole mixture on one batch."""
    parameter_free_share: float | None = Field(None, gt=0, le=1)
    """Stop once this share of the choices prefers an operation without parameters, a mean over five epochs."""

    @model_validator(mode="after")
    def _something_to_stop_by(self) -> StopSettings:
        if self.eigenvalue_growth is None and self.parameter_free_share is None:
            raise ValueError("names nothing to stop by; leave the section out to train to the end")
        return self


class EarlyStop:
    """What to measure after each epoch, and when to stop. Its only state are the training's rows.

    Args:
        settings: see `StopSettings`.
        supernet: in training.
        strategy: of its training.
        batch: validation images, the same for all epochs so that they can be compared.
        seed: of the first direction.

    Raises:
        UserError: the strategy has no preferences to measure.
    """

    def __init__(
        self, settings: StopSettings, supernet: SearchSpace, strategy: Strategy, batch: Batch, *, seed: int
    ) -> None:
        if not strategy.learns:
            problem = f"{strategy.name} learns no preferences, so there is nothing to stop by"
            raise UserError("supernet.stop", problem, code="unsupported")
        self._settings = settings
        self._supernet = supernet
        self._strategy = strategy
        self._batch = batch
        self._seed = seed

    def measure(self) -> dict[str, float]:
        """`parameter_free_share` and `eigenvalue`, if asked for, for the epoch's row.

        Raises:
            Diverged: the curvature is not finite.
        """
        row: dict[str, float] = {}
        if self._settings.parameter_free_share is not None:
            row["parameter_free_share"] = parameter_free(self._supernet, self._strategy).share
        if self._settings.eigenvalue_growth is not None:
            eigenvalue = sharpness(self._supernet, self._strategy, self._batch, seed=self._seed)
            if eigenvalue is not None:
                row["eigenvalue"] = eigenvalue
        return row

    def reason(self, rows: Sequence[Mapping[str, float]]) -> str | None:
        """Why the training should end after these epochs; None while it should not."""
        most, growth = self._settings.eigenvalue_growth, eigenvalue_growth(rows)
        if most is not None and growth is not None and growth > most:
            return (
                f"after epoch {len(rows)} the dominant eigenvalue in alpha had grown ×{growth:.2f} in {WINDOW} epochs, "
                f"more than ×{most:.2f}"
            )
        most, shares = self._settings.parameter_free_share, [row.get("parameter_free_share") for row in rows[-WINDOW:]]
        known = [share for share in shares if share is not None]
        if most is not None and len(known) == WINDOW and sum(known) / WINDOW >= most:
            return (
                f"after epoch {len(rows)} a share of {sum(known) / WINDOW:.2f} of the choices preferred an operation "
                f"without parameters, the mean over {WINDOW} epochs, at least {most:.2f}"
            )
        return None
