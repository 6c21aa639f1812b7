"""A frozen model of NNI as a graph of plain layers."""

from __future__ import annotations

from torch import fx, nn


def as_graph(network: nn.Module) -> fx.GraphModule:
    """The network as a graph, in its mode; it shares the network's layers.

    Where `torch.fx` cannot follow the forward pass, or finds another one in training than in evaluation, the graph
    is one call of the network itself: trained, scored and exported to ONNX like any other, but its source cannot be
    written.
    """
    training, name = network.training, type(network).__name__
    graph = _trace(network.train())
    if graph is None or str(graph) != str(_trace(network.eval())):
        graph = fx.Graph()
        graph.output(graph.call_module("network", (graph.placeholder("x"),)))
        network = nn.ModuleDict({"network": network})
    return fx.GraphModule(network, graph, class_name=name).train(training)


def _trace(network: nn.Module) -> fx.Graph | None:
    try:
        return fx.Tracer().trace(network)
    except Exception:  # noqa: BLE001 - a model's reactions to a stand-in for a tensor are its own
        return None
