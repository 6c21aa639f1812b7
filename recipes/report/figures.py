"""The figures of a finished run's networks, as plotly figures; None where there is nothing to draw yet.

Text that plotly shows passes `escape`: plotly reads a little HTML in it. Colours of text, axes and grids are left to
the page, which knows whether it is dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from recipes.report.loading import Supernet
from recipes.report.networks import Network, Proportion

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Okabe & Ito's palette, told apart with any colour vision; the paler two come last."""
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("solid", "dash", "dot", "dashdot")
SHORT_ID = 6


def pareto_figure(networks: Sequence[Network]) -> Figure | None:
    """Accuracy against measured median latency, both with 95 % intervals; a click on a point leads to its card."""
    from plotly.graph_objects import Figure, Scatter

    drawn = [n for n in networks if n.accuracy and n.measurement]
    if not drawn:
        return None
    split = drawn[0].split
    figure = layout(Figure(), "median latency of one batch, measured (ms)", f"accuracy on {split} images (%)")
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
    kinds = (("front", "chosen by the search", BLUE, "circle"), ("random", "drawn at random", VERMILION, "diamond"))
    for origin, name, colour, symbol in kinds:
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
        error_x=_bars([latency.p50 for latency in latencies], [latency.ci95 for latency in latencies]),
        error_y=_accuracy_bars(accuracies),
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
    lines = [f"<b>{escape(network.id)}</b>", escape(network.trained.notation)]
    if network.accuracy:
        a = network.accuracy
        lines.append(
            f"{100 * a.value:.1f} % of {a.count} {network.split} images ({100 * a.low:.1f}–{100 * a.high:.1f})"
        )
    if network.measurement:
        latency = network.measurement.latency
        low, high = latency.ci95
        lines.append(f"{latency.p50:.3g} ms ({low:.3g}–{high:.3g}), {network.measurement.verdict}")
    return "<br>".join(lines)


def supernet_figure(supernet: Supernet | None) -> Figure | None:
    """Loss of the supernet by epoch."""
    from plotly.graph_objects import Figure, Scatter

    if supernet is None or not supernet.rows:
        return None
    figure = layout(Figure(), "epoch", "mean training loss (nats)", height=300)
    figure.add_trace(
        Scatter(
            x=[row.epoch for row in supernet.rows],
            y=[row.loss for row in supernet.rows],
            mode="lines",
            line={"color": BLUE},
            name=escape(supernet.strategy),
            hovertemplate="epoch %{x}: %{y:.3g}<extra></extra>",
        )
    )
    return figure


def curves_figure(networks: Sequence[Network]) -> Figure | None:
    """Loss and accuracy of each network by epoch, one above the other."""
    from plotly.graph_objects import Figure, Scatter

    trained = [n for n in networks if n.trained.rows]
    if not trained:
        return None
    figure = layout(Figure(), "epoch", "accuracy (%)", height=520)
    figure.update_layout(
        yaxis={"domain": [0, 0.46]},
        yaxis2={"domain": [0.54, 1], "anchor": "x", "title": {"text": "mean training loss (nats)"}},
    )
    for i, network in enumerate(trained):
        rows = network.trained.rows
        with_accuracy = [row for row in rows if row.accuracy is not None]
        line = {"color": PALETTE[i % len(PALETTE)], "dash": DASHES[i // len(PALETTE) % len(DASHES)], "width": 1.8}
        common = {"mode": "lines", "line": line, "name": escape(network.id[:SHORT_ID]), "legendgroup": network.id}
        figure.add_trace(
            Scatter(
                x=[row.epoch for row in with_accuracy],
                y=[100 * row.accuracy for row in with_accuracy if row.accuracy is not None],
                hovertemplate="epoch %{x}: %{y:.1f} %",
                **common,
            )
        )
        figure.add_trace(
            Scatter(
                x=[row.epoch for row in rows],
                y=[row.loss for row in rows],
                yaxis="y2",
                showlegend=False,
                hovertemplate="epoch %{x}: %{y:.3g}",
                **common,
            )
        )
    return figure


def latency_figure(networks: Sequence[Network]) -> Figure | None:
    """Every timed run of each network as a violin with its quartiles, the fastest on top; cut at the largest p99."""
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
    low, high = min(min(latency.values) for latency in latencies), max(latency.p99 for latency in latencies)
    room = 0.05 * (high - low)
    figure.update_layout(xaxis={"range": [low - room, high + room]}, yaxis={"automargin": True, "type": "category"})
    return figure


def layout(figure: Figure, x_title: str, y_title: str, *, height: int = 420) -> Figure:
    """The look that all figures share."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 16, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"title": {"text": x_title}, "zeroline": False},
        yaxis={"title": {"text": y_title}, "zeroline": False},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,
    )
    return figure


def _bars(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Error bars of intervals that need not lie evenly about the values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        "thickness": 1.2,
        "width": 3,
    }


def _accuracy_bars(accuracies: Sequence[Proportion]) -> dict[str, Any]:
    return _bars([100 * a.value for a in accuracies], [(100 * a.low, 100 * a.high) for a in accuracies])


def _latency_ms(network: Network) -> float:
    return network.measurement.latency_ms if network.measurement else float("nan")
