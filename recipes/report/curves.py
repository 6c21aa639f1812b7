"""Training curves, of the supernet and of the networks trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from espalier.recipes.records.supernet import SupernetEpoch, SupernetPart, SupernetResult
from espalier.recipes.report.networks import Network
from espalier.recipes.report.style import DASHES, PALETTE, SHORT_ID, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def supernet_figure(supernet: SupernetResult | None) -> Figure | None:
    """What is known of each supernet by epoch, a panel for each quantity, the loss on top."""
    from plotly.graph_objects import Figure, Scatter

    parts = [part for part in supernet.parts if part.rows] if supernet else []
    if not parts:
        return None
    panels = _panels(parts)
    figure = layout(Figure(), "epoch", "", height=120 + 180 * len(panels))
    height = 0.84 / len(panels)
    pitch = (1 - height) / max(1, len(panels) - 1)
    for i, (title, quantity) in enumerate(reversed(panels.items())):  # the axes are numbered from the bottom
        axis = f"y{i + 1}" if i else "y"
        domain = [i * pitch, i * pitch + height]
        look = {"title": {"text": title}, "domain": domain, "anchor": "x", "zeroline": False, "automargin": True}
        figure.update_layout({axis.replace("y", "yaxis"): look})
        for number, part in enumerate(parts):
            rows = [row for row in part.rows if quantity(row) is not None]
            figure.add_trace(
                Scatter(
                    x=[row.epoch for row in rows],
                    y=[quantity(row) for row in rows],
                    yaxis=axis,
                    mode="lines",
                    line=_line(number),
                    name=escape(part.name),
                    legendgroup=escape(part.name),
                    showlegend=len(parts) > 1 and i == len(panels) - 1,
                    hovertemplate="epoch %{x}: %{y:.3g}",
                )
            )
    return figure


Quantity = Callable[[SupernetEpoch], float | None]


def _panels(parts: Sequence[SupernetPart]) -> dict[str, Quantity]:
    """The quantities that any epoch has, by the title of their axis."""
    rows = [row for part in parts for row in part.rows]
    panels: dict[str, Quantity] = {"training loss (nats)": lambda row: row.loss}
    panels["entropy of the gates"] = lambda row: row.entropy
    panels["eigenvalue in α"] = lambda row: row.eigenvalue
    for unit in dict.fromkeys(unit for row in rows for unit in row.expected):
        panels[escape(f"expected {unit}")] = partial(_expected, unit)
    return {title: of for title, of in panels.items() if any(of(row) is not None for row in rows)}


def _expected(unit: str, row: SupernetEpoch) -> float | None:
    return row.expected.get(unit)


def _line(number: int) -> dict[str, Any]:
    """A colour for each line, and another dash once all colours are taken."""
    dash = DASHES[number // len(PALETTE) % len(DASHES)]
    return {"color": PALETTE[number % len(PALETTE)], "dash": dash, "width": 1.8}


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
        common = {"mode": "lines", "line": _line(i), "name": escape(network.id[:SHORT_ID]), "legendgroup": network.id}
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
