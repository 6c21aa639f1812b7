"""The page of a ranking: bars with intervals, the table, and every predictor against what came true."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from espalier.recipes.commands.rank.result import Ranking
from espalier.recipes.records.ranking import Correlation, RankResult
from espalier.recipes.report import narrative
from espalier.recipes.report.estimate_figures import rank_scatters
from espalier.recipes.report.page import environment, figure_json
from espalier.recipes.report.style import BLUE, bars, layout

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BAR_HEIGHT = 22
"""Pixels for each predictor in the figure."""
MARKED = {"20%": "best fifth", "10%": "best tenth"}
"""Shares of the architectures whose correlations the figure shows as well."""


def ranking_page(ranking: Ranking) -> str:
    """The HTML of a ranking: one document with everything inside."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    about = {"table": None, "run": None, "images": None, **ranking.about}
    rank = RankResult(
        table=about["table"] or about["run"],
        target=about["target"],
        samples=ranking.samples,
        sampling=ranking.sampling,
        correlations=tuple(ranking.predictors),
        points=tuple(ranking.points),
    )
    scatters = rank_scatters(rank)
    return (
        environment()
        .get_template("ranking.html")
        .render(
            ranking=about,
            rank=rank,
            say=narrative,
            figures={
                "bars": figure_json(_bars_figure(rank.correlations)),
                "rank": figure_json(scatters.figure if scatters else None),
            },
            scatter_names={"rank": scatters.names if scatters else []},
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def _bars_figure(rows: Sequence[Correlation]) -> Figure | None:
    """Spearman's ρ of each predictor with its interval, the best at the top."""
    from plotly.graph_objects import Figure, Scatter

    shown = [(row, row.spearman) for row in reversed(rows) if row.spearman is not None]
    if not shown:
        return None
    names, values = [escape(row.name) for row, _ in shown], [value for _, value in shown]
    bounds = [row.spearman_ci95 or (None, None) for row, _ in shown]
    intervals = [(low, high) for low, high in bounds if low is not None and high is not None]
    figure = layout(Figure(), "Spearman’s ρ", "", height=150 + BAR_HEIGHT * len(shown))
    figure.add_trace(
        Scatter(
            x=values,
            y=names,
            error_x=bars(values, intervals) if len(intervals) == len(shown) else None,
            mode="markers",
            marker={"color": BLUE, "size": 9},
            name="all",
        )
    )
    for (share, name), symbol in zip(MARKED.items(), ("square-open", "circle-open"), strict=True):
        figure.add_trace(
            Scatter(
                x=[row.among_best[share].spearman for row, _ in shown],
                y=names,
                mode="markers",
                marker={"color": BLUE, "size": 8, "symbol": symbol},
                name=name,
            )
        )
    figure.update_layout(margin={"l": 190}, yaxis={"dtick": 1})
    return figure
