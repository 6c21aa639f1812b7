"""The figures of what was guessed: the search's candidates, and predictors against what came true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from espalier.recipes.records.ranking import RankResult
from espalier.recipes.records.search import SearchedCandidate, SearchResult
from espalier.recipes.report.networks import Network
from espalier.recipes.report.style import BLUE, GREEN, ORANGE, accuracy_bars, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def search_figure(search: SearchResult | None) -> Figure | None:
    """The completed candidates by their first two objectives, or one objective by trial; the front is filled."""
    from plotly.graph_objects import Figure, Scatter

    if search is None:
        return None
    complete = [c for c in search.candidates if c.status == "complete"]
    if not complete:
        return None
    y_name, *others = (objective.name for objective in search.objectives)
    x_title = f"{others[0]}, as the search saw it" if others else "trial"
    figure = layout(Figure(), escape(x_title), escape(f"{y_name}, as the search saw it"), height=380)
    front = set(search.front)
    others_seen = [c for c in complete if c.id not in front]
    guessed = [c for c in others_seen if c.latency and not c.latency.measured]
    seen = [c for c in others_seen if c not in guessed]
    for name, group, marker in (
        ("evaluated", seen, {"symbol": "circle-open", "color": BLUE, "size": 8}),
        ("evaluated, latency estimated", guessed, {"symbol": "x-thin-open", "color": ORANGE, "size": 8}),
        ("the search's front", [c for c in complete if c.id in front], {"symbol": "square", "color": GREEN, "size": 9}),
    ):
        if group is guessed and not guessed:
            continue
        figure.add_trace(
            Scatter(
                x=[c.values.get(others[0]) if others else c.trial for c in group],
                y=[c.values.get(y_name) for c in group],
                mode="markers",
                marker=marker,
                name=name,
                text=[_hover(c) for c in group],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return figure


def _hover(candidate: SearchedCandidate) -> str:
    lines = [f"{escape(name)} {_number(value)}" for name, value in candidate.values.items()]
    if latency := candidate.latency:
        known, how = (latency.measured, "measured") if latency.measured else (latency.estimate, "estimated")
        if known:
            lines.append(f"latency {how}: {known.value:.4g} ms ({known.low:.4g} to {known.high:.4g})")
    return f"<b>{escape(candidate.id)}</b><br>" + "<br>".join(lines)


@dataclass(frozen=True)
class Scatters:
    """One figure with a trace for each predictor, of which the page shows the one that is chosen."""

    figure: Figure
    names: list[str]


def estimate_scatters(networks: Sequence[Network]) -> Scatters | None:
    """Each predictor's estimate against the accuracy of the networks trained alone, with its interval."""
    names = list(dict.fromkeys(name for n in networks for name in n.trained.estimates))
    traces = {}
    for name in names:
        pairs = [(n, n.trained.estimates[name]) for n in networks if name in n.trained.estimates]
        pairs = [(n, e) for n, e in pairs if e.status == "ok" and e.value is not None]
        if not pairs:
            continue
        unit = f"{pairs[0][1].unit}, " if pairs[0][1].unit not in ("", name) else ""
        better = "higher" if pairs[0][1].higher_is_better else "lower"
        traces[name] = {
            "x": [e.value for _, e in pairs],
            "y": [100 * (n.accuracy or n.selection).value for n, _ in pairs],
            "error_y": accuracy_bars([n.accuracy or n.selection for n, _ in pairs]),
            "text": [escape(n.id) for n, _ in pairs],
            "customdata": [n.id for n, _ in pairs],
            "meta": escape(f"{name} ({unit}{better} is better)"),
        }
    split = networks[0].split if networks else "selection"
    return _scatters(traces, f"{split} accuracy (%)", size=10)


def rank_scatters(rank: RankResult | None) -> Scatters | None:
    """Each predictor's value against the benchmark's column."""
    if rank is None:
        return None
    traces = {}
    for name in dict.fromkeys(name for point in rank.points for name in point.values):
        points = [(p, p.values[name]) for p in rank.points if p.values.get(name) is not None]
        if points:
            traces[name] = {
                "x": [value for _, value in points],
                "y": [p.target for p, _ in points],
                "text": [escape(p.id) for p, _ in points],
                "meta": escape(name),
            }
    return _scatters(traces, escape(f"{rank.target} of the benchmark"), size=6)


def _scatters(traces: Mapping[str, Mapping[str, Any]], y_title: str, *, size: int) -> Scatters | None:
    from plotly.graph_objects import Figure, Scatter

    if not traces:
        return None
    first = next(iter(traces))
    figure = layout(Figure(), str(traces[first]["meta"]), y_title, height=400)
    for name, trace in traces.items():
        figure.add_trace(
            Scatter(
                mode="markers",
                marker={"color": BLUE, "size": size, "opacity": 0.8},
                visible=name == first,
                name=escape(name),
                showlegend=False,
                hovertemplate="<b>%{text}</b><br>estimate %{x:.4g}<br>accuracy %{y:.2f}<extra></extra>",
                **trace,
            )
        )
    return Scatters(figure, list(traces))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
