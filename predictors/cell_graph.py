"""The drawing of an architecture, without what does not count in it, as paths and as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice
from espalier.nas.space import Edge, SearchSpace

if TYPE_CHECKING:
    import networkx as nx


def live_arrows(space: SearchSpace, architecture: Architecture) -> list[Edge]:
    """The arrows of the drawing that carry something from one of its inputs to one of its outputs.

    Inputs and outputs are the nodes without an arrow to or from them in the whole drawing. An arrow is dead where its
    operation lets nothing through (the `None` candidates of layer choices), or only dead ones lead to it or from it.

    Raises:
        UserError: not an architecture of the space.
    """
    import networkx as nx

    layers = [choice for choice in space.choices().values() if isinstance(choice, LayerChoice)]
    nothing = {str(o) for layer in layers for o in layer.options if str(o) not in layer.candidates}
    drawn = space.diagram(space.check(architecture))
    sources, targets = {source for source, _, _ in drawn}, {target for _, target, _ in drawn}
    open_arrows = [arrow for arrow in drawn if arrow[2] not in nothing]
    graph = nx.DiGraph((source, target) for source, target, _ in open_arrows)
    fed = {node for start in graph.nodes & (sources - targets) for node in (start, *nx.descendants(graph, start))}
    read = {node for end in graph.nodes & (targets - sources) for node in (end, *nx.ancestors(graph, end))}
    return [arrow for arrow in open_arrows if arrow[0] in fed and arrow[1] in read]


def ways(arrows: Sequence[Edge], node: str) -> list[str]:
    """The ways from a node to an output: the operations passed, and the output."""
    onward = [(target, label) for source, target, label in arrows if source == node]
    return [f"{label}>{way}" for target, label in onward for way in ways(arrows, target)] if onward else [node]


def vertices(arrows: Sequence[Edge]) -> nx.Graph:
    """A vertex for each arrow, between those of its two nodes. Inner nodes are all alike: their names are arbitrary."""
    import networkx as nx

    sources, targets = {source for source, _, _ in arrows}, {target for _, target, _ in arrows}
    graph = nx.Graph()
    for node in sources | targets:
        graph.add_node(node, label="node" if node in sources & targets else ascii(node))
    for i, (source, target, label) in enumerate(arrows):
        graph.add_node(i, label=ascii(label))
        graph.add_edges_from([(source, i), (i, target)])
    return graph
