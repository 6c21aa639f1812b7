"""The networks that a run has trained alone, built again with their weights."""

from __future__ import annotations

from torch.fx import GraphModule

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import load_weights
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace


def trained_network(architecture: Architecture, space: SearchSpace, run: RunFolder) -> GraphModule:
    """The network of an architecture with the weights of the stage `train`, on the CPU, in evaluation mode.

    Raises:
        UserError: its file of weights is missing or damaged.
    """
    network = space.build(architecture)
    load_weights(run.architecture(architecture) / "model.safetensors", network)
    network.eval()
    return network
