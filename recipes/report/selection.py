"""What was chosen from the supernets, and what each decision rests on, as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espalier.recipes.records.search import SelectResult
from espalier.recipes.records.supernet import Comparison, Decision, Diagnosis, Split
from espalier.recipes.report.narrative import significant

SIGNIFICANT = 2
"""Standard errors; a smaller margin may be chance."""


@dataclass(frozen=True)
class DecisionRow:
    """One comparison of a decision, in words.

    Attributes:
        part: the supernet.
        choice: what was decided.
        outcome: what was kept or dropped.
        decided_by: accuracy or loss.
        margin: of that, with its standard error.
        step: the smallest of accuracy.
        clear: whether the margin is significant.
    """

    part: str
    choice: str
    outcome: str
    decided_by: str
    margin: str
    step: str
    clear: bool


def by_method(select: SelectResult) -> dict[str, list[DecisionRow]]:
    """Every comparison by the method that made it, in the order in which they were made."""
    rows: dict[str, list[DecisionRow]] = {}
    for decision in select.decisions:
        rows.setdefault(decision.method, []).extend(_row(decision, comparison) for comparison in decision.comparisons)
    return rows


def _row(decision: Decision, comparison: Comparison) -> DecisionRow:
    return DecisionRow(
        part=decision.part,
        choice=decision.choice,
        outcome=_outcome(decision, comparison),
        decided_by=comparison.decided_by,
        margin=_margin(comparison),
        step=f"{100 / comparison.images:.2f}",
        clear=comparison.margin > SIGNIFICANT * comparison.standard_error,
    )


def _outcome(decision: Decision, comparison: Comparison) -> str:
    """Comparisons between options decide which one stays, those between edges which one goes."""
    if comparison.decided == decision.option:
        return f"keeps {decision.option}"
    return f"drops {comparison.decided}, in the end keeps {decision.option}"


def _margin(comparison: Comparison) -> str:
    if comparison.decided_by == "accuracy":
        return f"{100 * comparison.margin:.2f} ± {100 * comparison.standard_error:.2f} points"
    return f"{significant(comparison.margin)} ± {significant(comparison.standard_error)} nats"


def unclear(rows: Sequence[DecisionRow]) -> str:
    """How many decisions may be chance; empty where none is."""
    count = sum(not row.clear for row in rows)
    return f"{count} of {len(rows)} have a margin within two standard errors and may be chance." * (count > 0)


def groups(split: Split) -> str:
    """The groups of options of a split, by name where names are known."""
    names = {index: split.options[index] if split.options else str(index) for group in split.groups for index in group}
    return " | ".join(", ".join(names[index] for index in group) for group in split.groups)


def numbers(diagnosis: Diagnosis) -> str:
    """The numbers behind a verdict, in one line."""
    d = diagnosis
    preferred = (
        f"{d.parameter_free:.0f} of {d.choices}" if d.learns else f"{d.parameter_free:.1f} of {d.choices} expected"
    )
    parts = [f"Operations without parameters {preferred} (by chance {d.by_chance:.1f})"]
    if d.entropy is not None:
        parts.append(f"entropy {d.entropy:.3f}")
    if d.eigenvalue is not None:
        parts.append(f"eigenvalue {significant(d.eigenvalue)}")
    accuracy = (
        f"{100 * d.training_accuracy:.1f} % of training, {100 * d.validation_accuracy:.1f} % of validation images"
    )
    parts.append(f"generalisation gap {d.gap:+.2f} nats, right on {accuracy}")
    return "; ".join(parts) + "."
