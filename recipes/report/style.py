"""The look that all figures share: plotly figures whose colours of text, axes and grids are left to the page.

Text that plotly shows must pass `html.escape`: plotly reads a little HTML in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espalier.nas.intervals import Proportion

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Okabe & Ito's palette, told apart with any colour vision; the paler two come last."""
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("solid", "dash", "dot", "dashdot")
"""For further lines once all colours are taken."""
SHORT_ID = 6
"""Digits of an id that are enough to tell the networks of one run apart in a legend."""


def layout(figure: Figure, x_title: str, y_title: str, *, height: int = 420) -> Figure:
    """The look that all figures share."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 28, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"title": {"text": x_title, "standoff": 10}, "zeroline": False},
        yaxis={"title": {"text": y_title}, "zeroline": False},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,
    )
    return figure


def bars(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Error bars of intervals that need not lie evenly about the values."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
        "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        "thickness": 1.2,
        "width": 3,
    }


def accuracy_bars(accuracies: Sequence[Proportion]) -> dict[str, Any]:
    """Error bars of the 95 % intervals of accuracies, in percent."""
    return bars([100 * a.value for a in accuracies], [(100 * a.low, 100 * a.high) for a in accuracies])
