"""Drawings of architectures as inline SVG: nodes from left to right, arrows with their operations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

Edge = tuple[str, str, str]
"""Source node, target node, operation on the way."""

MARGIN = 30
NODE_HEIGHT = 24
CHARACTER_WIDTH = 6.4  # of the 11 px sans-serif set in the style sheet, a generous mean
PITCH = 120  # between neighbours of a cell
LANE = 40  # height of one level of arcs
CHAIN_WIDTH = 640
LEAST_SCALE = 0.75  # below it the text could not be read: the drawing scrolls instead


def draw(edges: Sequence[Edge]) -> str:
    """An `<svg>` element of the directed acyclic graph `edges`; an empty string where there are none.

    A plain chain wraps over several rows. In anything else neighbours are joined by straight arrows and others by
    arcs above and below, none of which share a lane where they overlap. Edges labelled `none` carry nothing and are
    faint dashes.
    """
    if not edges:
        return ""
    nodes = _left_to_right(edges)
    place = {node: i for i, node in enumerate(nodes)}
    chain = len(edges) == len(nodes) - 1 and all(place[b] - place[a] == 1 for a, b, _ in edges)
    svg = _draw_chain(nodes, edges) if chain else _draw_cell(nodes, edges)
    ET.SubElement(svg, "title").text = "; ".join(f"{a} to {b}: {label or 'direct'}" for a, b, label in edges)
    svg.set("role", "img")
    return ET.tostring(svg, encoding="unicode")


def _left_to_right(edges: Sequence[Edge]) -> list[str]:
    import networkx

    graph = networkx.DiGraph()
    for source, target, _ in edges:
        graph.add_edge(source, target)
    first_seen = {node: i for i, node in enumerate(graph)}
    return list(networkx.lexicographical_topological_sort(graph, key=first_seen.__getitem__))


def _draw_cell(nodes: list[str], edges: Sequence[Edge]) -> ET.Element:
    place = {node: i for i, node in enumerate(nodes)}
    lanes = _lanes([(place[a], place[b]) for a, b, _ in edges])
    above = max((lane for lane in lanes.values()), default=0)
    below = -min((lane for lane in lanes.values()), default=0)
    middle = max(above, 0) * LANE + MARGIN
    svg = _canvas(2 * MARGIN + PITCH * (len(nodes) - 1), middle + max(below, 0) * LANE + MARGIN)
    x: dict[str, float] = {node: MARGIN + PITCH * i for node, i in place.items()}
    for source, target, label in edges:
        lane = lanes[place[source], place[target]]
        start, end = x[source], x[target]
        label_y: float
        if lane == 0:
            start, end = start + _node_width(source) / 2, end - _node_width(target) / 2 - 2
            path = f"M{start:g} {middle} H{end:g}"
            label_y = middle - 6
        else:
            side = 1 if lane > 0 else -1
            edge_y = middle - side * NODE_HEIGHT / 2
            apex = middle - lane * LANE
            control = edge_y + (apex - edge_y) * 4 / 3  # a cubic reaches three quarters of the way to its controls
            reach = (end - start) * 0.22
            path = (
                f"M{start + 5:g} {edge_y:g} C{start + reach:g} {control:g} "
                f"{end - reach:g} {control:g} {end - 5:g} {edge_y - 2 * side:g}"
            )
            label_y = apex - 6 if lane > 0 else apex + 15
        _arrow(svg, path, label, (start + end) / 2, label_y)
    for node in nodes:
        _node(svg, node, x[node], middle)
    return svg


def _lanes(spans: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """0 for neighbours; else the free lane nearest to the middle: 1 (above), -1 (below), 2, ...; short spans first."""
    lanes = {span: 0 for span in spans if span[1] - span[0] == 1}
    for start, end in sorted((s for s in spans if s not in lanes), key=lambda s: (s[1] - s[0], s)):
        taken = {lane for (a, b), lane in lanes.items() if lane and a < end and start < b}
        lanes[start, end] = next(
            lane for level in range(1, len(spans) + 1) for lane in (level, -level) if lane not in taken
        )
    return lanes


def _draw_chain(nodes: list[str], edges: Sequence[Edge]) -> ET.Element:
    label_width = max(len(pretty(label)) for _, _, label in edges) * CHARACTER_WIDTH + 26
    box = max(map(_node_width, nodes))
    pitch = box + label_width
    per_row = min(len(nodes), max(2, int((CHAIN_WIDTH - 2 * MARGIN + label_width) // pitch)))
    rows = -(-len(nodes) // per_row)
    row_height = 56
    svg = _canvas(MARGIN + (per_row - 1) * pitch + box, rows * row_height)

    def position(i: int) -> tuple[float, float]:
        return MARGIN / 2 + box / 2 + (i % per_row) * pitch, row_height / 2 + (i // per_row) * row_height

    for i, (source, target, label) in enumerate(edges):
        (x1, y1), (x2, y2) = position(i), position(i + 1)
        start, end = x1 + _node_width(source) / 2, x2 - _node_width(target) / 2 - 2
        if y1 == y2:
            _arrow(svg, f"M{start:g} {y1:g} H{end:g}", label, (start + end) / 2, y1 - 6)
        else:
            turn = (y1 + y2) / 2
            path = f"M{x1:g} {y1 + NODE_HEIGHT / 2:g} V{turn:g} H{x2:g} V{y2 - NODE_HEIGHT / 2 - 2:g}"
            _arrow(svg, path, label, (x1 + x2) / 2, turn - 4)
    for i, node in enumerate(nodes):
        _node(svg, node, *position(i))
    return svg


def pretty(operation: str) -> str:
    """How an operation is written in a drawing: `nor_conv_3x3` as `conv 3×3`."""
    return re.sub(r"(?<=\d)x(?=\d)", "×", operation.removeprefix("nor_")).replace("_", " ")


def _canvas(width: float, height: float) -> ET.Element:
    svg = ET.Element("svg", {"class": "drawing", "viewBox": f"0 0 {width:g} {height:g}"})
    svg.set("style", f"width:{width:g}px;min-width:{LEAST_SCALE * width:g}px")
    return svg


def _arrow(svg: ET.Element, path: str, label: str, x: float, y: float) -> None:
    if label == "none":
        ET.SubElement(svg, "path", {"class": "edge nothing", "d": path})
        return
    ET.SubElement(svg, "path", {"class": "edge", "d": path, "marker-end": "url(#arrow)"})
    ET.SubElement(svg, "text", {"class": "operation", "x": f"{x:g}", "y": f"{y:g}"}).text = pretty(label)


def _node_width(name: str) -> float:
    return max(NODE_HEIGHT, len(name) * CHARACTER_WIDTH + 12)


def _node(svg: ET.Element, name: str, x: float, y: float) -> None:
    width = _node_width(name)
    box = {"x": f"{x - width / 2:g}", "y": f"{y - NODE_HEIGHT / 2:g}", "width": f"{width:g}"}
    ET.SubElement(svg, "rect", {"class": "node", **box, "height": str(NODE_HEIGHT), "rx": str(NODE_HEIGHT / 2)})
    ET.SubElement(svg, "text", {"class": "name", "x": f"{x:g}", "y": f"{y + 4:g}"}).text = name
