"""The figures of what was measured: accuracy against latency, and the latencies' distributions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from espalier.recipes.report.narrative import latency_interval, milliseconds, percent, percent_interval
from espalier.recipes.report.networks import Network
from espalier.recipes.report.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SHORT_ID,
    SKY,
    VERMILION,
    accuracy_bars,
    bars,
    layout,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

KINDS = (
    ("front", "from the search's front", BLUE, "circle"),
    ("random", "drawn at random", VERMILION, "diamond"),
    ("argmax", "argmax of the supernet", PURPLE, "square"),
    ("perturbation", "perturbation of the supernet", ORANGE, "triangle-up"),
    ("largest", "the largest of the space", SKY, "star"),
    ("same size", "drawn at random, of the size of one chosen", SKY, "x"),
)
"""Where a network comes from, in a legend's words, and its marker."""


def pareto_figure(networks: Sequence[Network]) -> Figure | None:
    """Accuracy against measured median latency, both with 95 % intervals; a click on a point leads to its card."""
    from plotly.graph_objects import Figure, Scatter

    drawn = [n for n in networks if n.accuracy and n.measurement]
    if not drawn:
        return None
    split = drawn[0].split
    figure = layout(Figure(), "median latency, measured (ms)", f"accuracy on {split} images (%)")
    front = sorted((n for n in drawn if n.on_front), key=_latency_ms)
    figure.add_trace(
        Scatter(
            x=[_latency_ms(n) for n in front],
            y=[100 * n.accuracy.value for n in front if n.accuracy],
            mode="lines",
            line={"shape": "hv", "color": GREEN, "width": 1.5, "dash": "dot"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    for origin, name, colour, symbol in KINDS:
        group = [n for n in drawn if n.trained.origin == origin]
        if group:
            figure.add_trace(_measured_points(group, name, colour, symbol))
    return figure


def _measured_points(networks: Sequence[Network], name: str, colour: str, symbol: str) -> Any:
    from plotly.graph_objects import Scatter

    latencies = [n.measurement.latency for n in networks if n.measurement]
    accuracies = [n.accuracy for n in networks if n.accuracy]
    return Scatter(
        x=[latency.p50 for latency in latencies],
        y=[100 * accuracy.value for accuracy in accuracies],
        error_x=bars([latency.p50 for latency in latencies], [latency.ci95 for latency in latencies]),
        error_y=accuracy_bars(accuracies),
        mode="markers",
        marker={
            "color": colour,
            "size": 11,
            "symbol": [
                symbol if n.measurement and n.measurement.verdict == "stable" else f"{symbol}-open" for n in networks
            ],
            "line": {"width": 2, "color": colour},
        },
        name=name,
        customdata=[n.id for n in networks],
        text=[_hover(n) for n in networks],
        hovertemplate="%{text}<extra></extra>",
    )


def _hover(network: Network) -> str:
    lines = [f"<b>{escape(network.id)}</b>"]
    if network.accuracy:
        a = network.accuracy
        lines.append(f"{percent(a)} ({percent_interval(a)}) of {a.count} {network.split} images")
    if network.measurement:
        measurement = network.measurement
        median = f"{milliseconds(measurement.latency_ms)} ({latency_interval(measurement)})"
        lines.append(f"{median}, {measurement.verdict}")
    return "<br>".join(lines)


def latency_figure(networks: Sequence[Network]) -> Figure | None:
    """Every timed run of each network as a violin with its quartiles, the fastest on top; cut near the largest p99."""
    from plotly.graph_objects import Figure, Violin

    timed = sorted((n for n in networks if n.measurement), key=_latency_ms, reverse=True)
    if not timed:
        return None
    figure = layout(Figure(), "time of one batch (ms)", "", height=110 + 52 * len(timed))
    for network in timed:
        if network.measurement is None:
            continue
        stable = network.measurement.verdict == "stable"
        figure.add_trace(
            Violin(
                x=list(network.measurement.latency.values),
                name=escape(network.id[:SHORT_ID]),
                orientation="h",
                points=False,
                box={"visible": True, "width": 0.25},
                spanmode="hard",
                scalemode="width",
                line={"color": BLUE if stable else VERMILION, "width": 1.5},
                showlegend=False,
            )
        )
    latencies = [n.measurement.latency for n in timed if n.measurement]
    low = min(min(latency.values) for latency in latencies)
    high = max(float(np.percentile(latency.values, 99)) for latency in latencies)
    room = 0.05 * (high - low)
    figure.update_layout(xaxis={"range": [low - room, high + room]}, yaxis={"automargin": True, "type": "category"})
    return figure


def _latency_ms(network: Network) -> float:
    return network.measurement.latency_ms if network.measurement else float("nan")
