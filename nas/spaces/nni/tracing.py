"""A frozen model of NNI as a graph of plain layers."""

from __future__ import annotations

import logging

from torch import fx, nn

_log = logging.getLogger(__name__)


def as_graph(network: nn.Module) -> fx.GraphModule:
    """The network as a graph, in the same training mode; it shares the network's layers.

    If `torch.fx` cannot trace the forward pass, or if it differs between training and evaluation, the graph is a single
    call of the network. It can be trained, scored and exported to ONNX like any other, but its source code cannot be
    written.

    Args:
        network: a frozen model.
    """
    training, name = network.training, type(network).__name__
    graph = _trace(network.train())
    if graph is None or str(graph) != str(_trace(network.eval())):
        _log.debug("%s cannot be traced by torch.fx; its graph is one call of the network", name)
        graph = fx.Graph()
        graph.output(graph.call_module("network", (graph.placeholder("x"),)))
        network = nn.ModuleDict({"network": network})
    return fx.GraphModule(network, graph, class_name=name).train(training)


def _trace(network: nn.Module) -> fx.Graph | None:
    try:
        return fx.Tracer().trace(network)
    except Exception:  # noqa: BLE001 - a model's reactions to a stand-in for a tensor are its own
        return None
