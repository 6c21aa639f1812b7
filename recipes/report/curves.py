"""Training curves, of the supernet and of the networks trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from recipes.report.networks import Network
from recipes.report.records import Supernet
from recipes.report.style import BLUE, DASHES, PALETTE, SHORT_ID, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def supernet_figure(supernet: Supernet | None) -> Figure | None:
    """Loss of the supernet by epoch."""
    from plotly.graph_objects import Figure, Scatter

    if supernet is None or not supernet.rows:
        return None
    figure = layout(Figure(), "epoch", "training loss (nats)", height=300)
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
        yaxis2={"domain": [0.54, 1], "anchor": "x", "zeroline": False, "title": {"text": "training loss (nats)"}},
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
