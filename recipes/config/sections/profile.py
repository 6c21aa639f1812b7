"""`profile`: how latency is measured."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from espalier.export.devices.base import MeasureSpec
from espalier.nas.settings import Settings
from espalier.recipes.config.devices import DeviceAddress


class ProfileSettings(Settings):
    """How latency is measured."""

    device: DeviceAddress = "local"
    """Where to run: local, ssh://USER@HOST[:PORT], adb://SERIAL or replay:FILE."""
    provider: str | None = None
    """ONNX Runtime's execution provider, such as cuda; null takes CUDA's where there is one, else the CPU's."""
    threads: PositiveInt | None = None
    """Threads of the runtime; null takes one for each physical core."""
    batch: PositiveInt = 1
    """Images in one run."""
    sessions: int = Field(5, ge=2)
    """Fresh sessions of the runtime; what differs between them is the uncertainty."""
    seconds: PositiveFloat = 2.0
    """Time budget for the timed runs of one network."""
    search_seconds: PositiveFloat = 0.3
    """The same during the search, where `latency_ms` is asked for."""

    def spec(self, **changes: Any) -> MeasureSpec:
        """How to time one network, but for the changes."""
        given = {name: getattr(self, name) for name in ("threads", "batch", "sessions", "seconds", "provider")}
        return MeasureSpec(**given | changes)

    def search_spec(self) -> MeasureSpec:
        """How to time one candidate of the search."""
        return self.spec(sessions=2, seconds=self.search_seconds, min_runs=5)
