"""The diagram of an architecture without its dead edges, as paths and as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice
from espalier.nas.space import Edge, SearchSpace

if TYPE_CHECKING:
    import networkx as nx


def live_edges(space: SearchSpace, architecture: Architecture) -> list[Edge]:
    """The edges of the diagram that lie on a path from one of its inputs to one of its outputs.

    Inputs are the nodes without incoming edges in the whole diagram, outputs those without outgoing ones. An edge is
    dead if its operation passes nothing (the `None` candidates of layer choices), or if only dead edges lead to it or
    leave from it.

    Raises:
        UserError: not an architecture of the space.
    """
    import networkx as nx

    layers = [choice for choice in space.choices().values() if isinstance(choice, LayerChoice)]
    nothing = {str(o) for layer in layers for o in layer.options if str(o) not in layer.candidates}
    drawn = space.diagram(space.check(architecture))
    sources, targets = {source for source, _, _ in drawn}, {target for _, target, _ in drawn}
    open_edges = [edge for edge in drawn if edge[2] not in nothing]
    graph = nx.DiGraph((source, target) for source, target, _ in open_edges)
    fed = {node for start in graph.nodes & (sources - targets) for node in (start, *nx.descendants(graph, start))}
    read = {node for end in graph.nodes & (targets - sources) for node in (end, *nx.ancestors(graph, end))}
    return [edge for edge in open_edges if edge[0] in fed and edge[1] in read]


def paths_to_output(edges: Sequence[Edge], node: str) -> list[str]:
    """All paths from a node to an output, each as its operations and the output."""
    following = [(target, label) for source, target, label in edges if source == node]
    if not following:
        return [node]
    return [f"{label}>{path}" for target, label in following for path in paths_to_output(edges, target)]


def edges_as_nodes(edges: Sequence[Edge]) -> nx.Graph:
    """The graph in which each edge becomes a node between its two ends.

    Inner nodes all have the same label, as their names are arbitrary.
    """
    import networkx as nx

    sources, targets = {source for source, _, _ in edges}, {target for _, target, _ in edges}
    graph = nx.Graph()
    for node in sources | targets:
        graph.add_node(node, label="node" if node in sources & targets else ascii(node))
    for i, (source, target, label) in enumerate(edges):
        graph.add_node(i, label=ascii(label))
        graph.add_edges_from([(source, i), (i, target)])
    return graph
