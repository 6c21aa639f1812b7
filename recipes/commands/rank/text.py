"""A ranking as text: two tables, at most 120 columns wide for names of up to 23 characters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espalier.recipes.commands.rank.result import Ranking
from espalier.recipes.engine.ranking.rows import SIZE
from espalier.recipes.records.base import Interval
from espalier.recipes.records.ranking import Correlation

Columns = Sequence[tuple[str, int, Callable[[Correlation], str]]]
"""Heading, width and content of each."""


def ranking_text(ranking: Ranking) -> str:
    """A ranking as `nas rank` prints it."""
    about = ranking.about
    against = about.get("table") or about.get("run")
    seed = f", seed {about['seed']}, {about['repeats']} initialisation(s)"
    per = ranking.seconds / max(1, ranking.computed)
    lines = [
        f"{ranking.samples} architectures against {about['target']} of {against}",
        f"sample: {ranking.sampling}",
        *_table(ranking.predictors, _CORRELATIONS),
        "",
        *_table(ranking.predictors, _CHOICE),
        "Brackets are 95 % bootstrap intervals. Precision: of the predicted best share, how many are in the true best",
        "share. Regret: target of the true best minus target of the predicted best. Best of n random: the number of",
        "random architectures to train to expect one as good as the predicted best.",
    ]
    if images := about.get("images"):
        lines.append(f"batch of {images['batch']} images of {images['data']} ({images['hash']}){seed}")
    elif about.get("run"):
        lines.append(f"supernet and images of {about['run']}{seed}")
    lines.append(f"{ranking.computed} architectures computed in {ranking.seconds} s, {per:.2f} s each")
    return "\n".join(lines)


def _table(rows: Sequence[Correlation], columns: Columns) -> list[str]:
    width_of_names = max(24, *(len(row.name) + 1 for row in rows))
    lines = [f"{'predictor':{width_of_names}}" + "".join(f"{heading:>{width}}" for heading, width, _ in columns)]
    for row in rows:
        lines.append(
            f"{row.name:{width_of_names}}" + "".join(f"{content(row):>{width}}" for _, width, content in columns)
        )
    return lines


def _number(value: float | None, interval: Interval = None, form: str = ".2f") -> str:
    """The value with its interval, where they are defined."""
    if value is None:
        return "-"
    if interval is None or interval[0] is None or interval[1] is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def _kendall(share: str | None) -> Callable[[Correlation], str]:
    def content(row: Correlation) -> str:
        of = row if share is None else row.among_best[share]
        return _number(of.kendall, of.kendall_ci95)

    return content


def _precision(share: str) -> Callable[[Correlation], str]:
    return lambda row: _number(row.precision[share].value, row.precision[share].value_ci95)


_CORRELATIONS: Columns = (
    ("Kendall", 21, _kendall(None)),
    ("best 20 %", 21, _kendall("20%")),
    ("best 10 %", 21, _kendall("10%")),
    ("Spearman", 21, lambda row: _number(row.spearman, row.spearman_ci95)),
    (f"| {SIZE}", 9, lambda row: _number(row.spearman_given_params)),
)
_CHOICE: Columns = (
    ("precision, 5 %", 18, _precision("5%")),
    ("10 %", 18, _precision("10%")),
    ("regret", 26, lambda row: _number(row.regret, row.regret_ci95, ".3g")),
    ("best of n random", 22, lambda row: _number(row.best_of_random, row.best_of_random_ci95, ".0f")),
    ("no value", 10, lambda row: str(row.not_finite)),
)
