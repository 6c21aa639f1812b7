"""The page of a profile: the sessions, the steps of requests, and the time by operator, module and kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from espalier.export.end_to_end import Step
from espalier.export.operators import Group, OperatorProfile
from espalier.recipes.commands.profile import text
from espalier.recipes.commands.profile.results import Profile
from espalier.recipes.report.page import environment, figure_json, flat
from espalier.recipes.report.style import BLUE, PALETTE, VERMILION, bars, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BAR_HEIGHT = 22
"""Pixels for each bar of a figure."""
WHOLE = "whole network"


def profile_page(found: Profile) -> str:
    """The HTML of a profile: one document with everything inside."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    operators = found.operators
    figures = {
        "sessions": _sessions_figure(found),
        "steps": _shares_figure(found.end_to_end.steps) if found.end_to_end else None,
        "operators": _shares_figure(operators.by_operator) if operators else None,
        "modules": _modules_figure(operators) if operators else None,
    }
    return (
        environment()
        .get_template("profile.html")
        .render(
            profile=found,
            say=text,
            figures={name: figure_json(figure) for name, figure in figures.items()},
            environment=dict(flat(dict(found.measurement.environment))),
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def _sessions_figure(found: Profile) -> Figure:
    """A box of each session's runs: the whiskers reach to its 5 % and 95 % percentiles."""
    from plotly.graph_objects import Box, Figure

    measurement = found.measurement
    runs = np.asarray(measurement.latency.values).reshape(-1, measurement.environment["runs_per_session"])
    low, quarter, median, three_quarters, high = np.percentile(runs, (5, 25, 50, 75, 95), axis=1)
    figure = layout(Figure(), "session", "time of one batch (ms)", height=300)
    figure.add_trace(
        Box(
            x=list(range(1, len(runs) + 1)),
            lowerfence=low.tolist(),
            q1=quarter.tolist(),
            median=median.tolist(),
            q3=three_quarters.tolist(),
            upperfence=high.tolist(),
            line={"color": BLUE if measurement.verdict == "stable" else VERMILION},
            showlegend=False,
        )
    )
    figure.add_hline(y=measurement.latency.p50, line={"dash": "dot", "width": 1})
    return figure


def _shares_figure(rows: Sequence[Step | Group]) -> Figure:
    """Each row's share of the time with its interval, the first on top."""
    from plotly.graph_objects import Bar, Figure

    shown = list(reversed(rows))
    shares = [100 * row.share for row in shown]
    intervals = [(100 * row.ci95[0], 100 * row.ci95[1]) for row in shown]
    figure = layout(Figure(), "share of the time (%)", "", height=110 + BAR_HEIGHT * len(shown))
    figure.add_trace(
        Bar(
            x=shares,
            y=[escape(row.name) for row in shown],
            error_x=bars(shares, intervals),
            orientation="h",
            marker={"color": BLUE},
            showlegend=False,
        )
    )
    figure.update_layout(margin={"l": 150}, yaxis={"dtick": 1, "automargin": True})
    return figure


@dataclass
class _Box:
    """A module, or a kernel at the end of one."""

    label: str
    parent: str
    ms: float = 0.0
    stands_for: str = ""


def _modules_figure(operators: OperatorProfile) -> Figure:
    """Modules inside modules, from left to right, as tall as the time they take; at the right the kernels."""
    from plotly.graph_objects import Figure, Icicle

    boxes = {WHOLE: _Box(WHOLE, "")}
    for number, kernel in enumerate(operators.kernels):
        parent = WHOLE
        for part in kernel.module.split("."):
            boxes[parent].ms += kernel.ms
            parent, outer = f"{parent}.{part}", parent
            boxes.setdefault(parent, _Box(escape(part), outer))
        boxes[parent].ms += kernel.ms
        stands_for = "<br>".join(map(escape, (kernel.name, *kernel.absorbed)))
        boxes[f"{parent}#{number}"] = _Box(escape(kernel.operator), parent, kernel.ms, stands_for)
    figure = layout(Figure(), "", "", height=520)
    figure.add_trace(
        Icicle(
            ids=list(boxes),
            labels=[box.label for box in boxes.values()],
            parents=[box.parent for box in boxes.values()],
            values=[box.ms for box in boxes.values()],
            text=[box.stands_for for box in boxes.values()],
            branchvalues="total",
            maxdepth=4,
            hovertemplate="%{label}: %{value:.4g} ms, %{percentRoot:.1%}<br>%{text}<extra></extra>",
            textinfo="label+percent root",
        )
    )
    figure.update_layout(margin={"l": 8, "r": 8, "t": 28, "b": 8}, iciclecolorway=list(PALETTE))
    return figure
