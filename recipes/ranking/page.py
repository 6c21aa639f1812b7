"""The page of a ranking: bars with intervals, the table, and every predictor against what came true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from recipes.report import sentences
from recipes.report.guesses import rank_scatters
from recipes.report.page import environment, figure_json
from recipes.report.records import Rank
from recipes.report.style import BLUE, bars, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BAR_HEIGHT = 22
"""Pixels for each predictor in the figure."""


def ranking_page(ranking: Mapping[str, Any]) -> str:
    """The HTML of a ranking as `nas rank --json` prints it: one document with everything inside."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    rows = [{"top": None, "spearman_given_params": None} | row for row in ranking["predictors"]]
    against = {"table": ranking.get("table"), "run": ranking.get("run"), "images": ranking.get("images")}
    scatters = rank_scatters(
        Rank.model_validate(
            {
                "table": against["table"] or against["run"],
                "target": ranking["target"],
                "samples": ranking["samples"],
                "correlations": rows,
                "points": ranking["points"],
            }
        )
    )
    return (
        environment()
        .get_template("ranking.html")
        .render(
            ranking={**ranking, **against, "predictors": rows},
            say=sentences,
            figures={
                "bars": figure_json(_bars_figure(rows)),
                "rank": figure_json(scatters.figure if scatters else None),
            },
            scatter_names={"rank": scatters.names if scatters else []},
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def _bars_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Spearman's ρ of each predictor with its interval, the best at the top."""
    from plotly.graph_objects import Figure, Scatter

    shown = [row for row in reversed(rows) if row["spearman"] is not None]
    if not shown:
        return None
    names = [escape(row["name"]) for row in shown]
    intervals = [(row["spearman_ci95"][0], row["spearman_ci95"][1]) for row in shown]
    figure = layout(Figure(), "Spearman’s ρ", "", height=120 + BAR_HEIGHT * len(shown))
    figure.add_trace(
        Scatter(
            x=[row["spearman"] for row in shown],
            y=names,
            error_x=bars([row["spearman"] for row in shown], intervals) if None not in intervals[0] else None,
            mode="markers",
            marker={"color": BLUE, "size": 9},
            name="all",
        )
    )
    top = [(name, row["top"]["spearman"]) for name, row in zip(names, shown, strict=True) if row["top"]]
    figure.add_trace(
        Scatter(
            x=[value for _, value in top],
            y=[name for name, _ in top],
            mode="markers",
            marker={"color": BLUE, "size": 8, "symbol": "circle-open"},
            name="top tenth",
        )
    )
    figure.update_layout(margin={"l": 190})
    return figure
