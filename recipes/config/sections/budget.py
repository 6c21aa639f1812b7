"""`budget`: limits that whatever a run returns keeps."""

from __future__ import annotations

from pathlib import Path

from pydantic import PositiveFloat, model_validator

from espalier.nas.settings import Settings


class BudgetSettings(Settings):
    """Limits that whatever a run returns keeps, however it was found."""

    latency_ms: PositiveFloat | None = None
    """Milliseconds: the upper end of the interval of the median latency, measured as `profile` says."""
    macs: PositiveFloat | None = None
    """Multiply-accumulates of one image."""
    params: PositiveFloat | None = None
    """Parameters."""
    table: Path | None = None
    """Latencies of this device (`nas lut build`), which spare measurements; null learns from those of the run alone."""
    sources: tuple[Path, ...] = ()
    """Tables of other devices, which help where there are few measurements of this one."""

    @model_validator(mode="after")
    def _something_limited(self) -> BudgetSettings:
        if self.latency_ms is None and self.macs is None and self.params is None:
            raise ValueError("a budget needs a limit: latency_ms, macs or params")
        if self.latency_ms is None and (self.table or self.sources):
            raise ValueError("tables of latencies help only under a limit latency_ms")
        return self

    @property
    def costs(self) -> dict[str, float]:
        """The limits that are known without a measurement, by name."""
        limits = {"macs": self.macs, "params": self.params}
        return {name: limit for name, limit in limits.items() if limit is not None}
