"""The trained supernets of a run: one, or one for each part of a divided space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from espalier.nas.checkpoint import load_state, load_weights, save_state, save_weights
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining


@dataclass(frozen=True, eq=False)
class TrainedSupernet:
    """A supernet as its training left it.

    Attributes:
        name: `root`, or `root.0.1` of a divided space.
        space: with its weights, on the device.
        strategy: with what it has learnt.
    """

    name: str
    space: SearchSpace
    strategy: Strategy

    @property
    def region(self) -> Region:
        """The part of the space that it was trained for."""
        return self.strategy.region


@dataclass(frozen=True)
class SupernetStore:
    """Keeps trained supernets as files.

    Attributes:
        folder: for the files.
        key: the cache key of the stage `supernet`, part of their names.
        supernets: makes the supernets that the weights are loaded into.
    """

    folder: Path
    key: str
    supernets: SupernetFactory

    def keep(self, name: str, training: SupernetTraining) -> None:
        """Write a trained supernet: its weights, and what its strategy has learnt."""
        save_weights(self._weights(name), training.space)
        save_state(self._state(name), training.strategy.state_dict())

    def find(self, name: str) -> TrainedSupernet:
        """A supernet that `keep` wrote, on the device.

        Raises:
            UserError: a file is missing, damaged or of another space.
        """
        space, strategy = self.supernets.untrained()
        load_weights(self._weights(name), space)
        strategy.load_state_dict(load_state(self._state(name)))
        return TrainedSupernet(name, space, strategy)

    def _weights(self, name: str) -> Path:
        return self.folder / f"supernet-{self.key}-{name}.safetensors"

    def _state(self, name: str) -> Path:
        return self.folder / f"strategy-{self.key}-{name}.pt"
