"""Everything known of each trained network, gathered from the stages into one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from espalier.nas.intervals import Proportion
from espalier.nas.measurement import Measurement
from espalier.nas.pareto import non_dominated
from espalier.recipes.records.networks import ExportedFile, TrainedNetwork
from espalier.recipes.records.reading import Run

BUNDLE_FILES = ("model.onnx", "model.safetensors", "model.py", "README.md", "latency.json")


@dataclass(frozen=True)
class Network:
    """A trained network; what its run has not found out yet is None.

    Attributes:
        accuracy: on the images of `split`, what pages and tables show.
        selection: on the selection images.
        files: names of the bundle's files that are there, with their paths relative to the run folder.
    """

    trained: TrainedNetwork
    split: str
    accuracy: Proportion | None
    selection: Proportion
    measurement: Measurement | None
    exported: ExportedFile | None
    files: dict[str, str]
    on_front: bool = False

    @property
    def id(self) -> str:
        return self.trained.id


def gather_networks(run: Run) -> list[Network]:
    """The trained networks of a run, those of the front first, then the most accurate first.

    Accuracies are of the test images once there are any, else of the selection images, never a mixture. `on_front`
    means: no other trained network is at least as accurate and as fast by measurement, and better in one of them.
    Under a budget, networks that were measured over it are left out (`Run.over_budget`).
    """
    stages = run.stages
    networks = []
    left_out = run.over_budget
    for trained in stages.networks:
        if trained.id in left_out:
            continue
        selection = Proportion.of(trained.accuracy, trained.images)
        accuracy: Proportion | None = selection
        if stages.test:
            tested = stages.test.accuracy.get(trained.id)
            accuracy = None if tested is None else Proportion.of(tested, stages.test.images)
        networks.append(
            Network(
                trained=trained,
                split="test" if stages.test else "selection",
                accuracy=accuracy,
                selection=selection,
                measurement=(stages.profile or {}).get(trained.id),
                exported=(stages.export or {}).get(trained.id),
                files=_bundle(run.path, trained.id),
            )
        )
    return sorted(mark_front(networks), key=lambda n: (not n.on_front, -(n.accuracy or n.selection).value))


def mark_front(networks: list[Network]) -> list[Network]:
    """The same networks, with `on_front` set where one is not dominated in accuracy and measured median latency."""
    judged = [(n.id, n.accuracy.value, n.measurement.latency_ms) for n in networks if n.accuracy and n.measurement]
    mask = non_dominated([values for _, *values in judged], ("maximize", "minimize"))
    front = {id for (id, *_), on_front in zip(judged, mask, strict=True) if on_front}
    return [replace(network, on_front=network.id in front) for network in networks]


def _bundle(run: Path, id: str) -> dict[str, str]:
    folder = Path("architectures") / id
    return {name: (folder / name).as_posix() for name in BUNDLE_FILES if (run / folder / name).is_file()}
