"""What a run found, in sentences made of its numbers, and why a section is empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from espalier.nas.intervals import Proportion
from espalier.nas.measurement import Measurement, Verdict
from espalier.recipes.records.ranking import Correlation
from espalier.recipes.records.reading import Run
from espalier.recipes.records.search import CascadeCounts, SearchResult, SelectResult
from espalier.recipes.report.networks import Network

VERDICTS: dict[Verdict, str] = {
    "stable": "Repeated sessions agree, and the machine did little else.",
    "noisy": "The runs or the sessions differ widely; a difference of a tenth to another network means nothing.",
    "drifting": "The median moved from the early to the late runs, by heat or by a changing clock; measure again.",
    "throttled": "The device was a tenth slower, or more, at the end of the batch; its drift is divided out. Cool it.",
    "contended": "Other work shared the processor while the runs were timed; measure again on an idle machine.",
}
FEW_NETWORKS = 20
"""Below this, an interval of a rank correlation spans a third of its scale or more."""


def summary(run: Run, networks: Sequence[Network]) -> list[str]:
    """One to four sentences for the head of the page."""
    sentences = []
    if select := run.stages.select:
        sentences.append(choices_made(select))
    if search := run.stages.search:
        evaluated = search.counts.get("complete", 0)
        sentences.append(
            f"Of {plural(evaluated, 'architecture')} evaluated in the search, {len(search.front)} "
            f"{'is' if len(search.front) == 1 else 'are'} on its estimated front."
        )
    if networks:
        sentences.append(_best(networks))
    if (search or select) and not networks:
        sentences.append("None has been trained alone yet, so every accuracy here is a guess.")
    return sentences or ["No stage has results yet."]


def cascade(counts: CascadeCounts) -> str:
    """How many latencies were measured, how many guessed, and how good the guesses were where both are known."""
    text = (
        f"Under the limit of {counts.limit_ms:g} ms, {plural(counts.measurement, 'candidate')} "
        f"{'was' if counts.measurement == 1 else 'were'} measured and {counts.estimate:,} decided by an estimate whose "
        "interval was clear of it"
    )
    if counts.cost:
        text += f"; {counts.cost:,} broke another limit before"
    if counts.checked:
        text += f". Of {plural(counts.checked, 'estimate')} followed by a measurement, {counts.held:,} had it inside"
    return f"{text}."


def left_out(run: Run) -> str:
    """Which networks were trained and are not among the results, for they missed the budget; empty if none."""
    missed = run.over_budget
    if not missed:
        return ""
    each = [f"{id_} at {milliseconds(m.latency_ms)} ({latency_interval(m)})" for id_, m in missed.items()]
    return f"Trained, and left out for a latency over the budget of {run.limit_ms:g} ms: {', '.join(each)}."


def replacements(select: SelectResult) -> list[str]:
    """A sentence for each choice that made way for one within the budget, and for each that nothing replaced."""
    made = [
        f"{one.method} chose {one.replaces.id} first, which has {one.replaces.why}; {one.id} is the nearest that fits."
        for one in select.candidates
        if one.replaces
    ]
    return [*made, *(f"{miss}." for miss in select.misses)]


def choices_made(select: SelectResult) -> str:
    """Which architecture each method chose from the supernet."""
    methods: dict[str, list[str]] = {}
    for one in select.chosen:
        methods.setdefault(one.id, []).append(one.method)
    chose = [f"{' and '.join(by)} chose {id_}" for id_, by in methods.items()]
    return f"From the supernet, {' and '.join(chose)}."


def _best(networks: Sequence[Network]) -> str:
    """The most accurate on the selection images: chosen there, its accuracy on test images is an honest one."""
    best = max(networks, key=lambda n: n.selection.value)
    accuracy = best.accuracy or best.selection
    split = best.split if best.accuracy else "selection"
    what = "The network trained alone" if len(networks) == 1 else f"Of {len(networks)} networks trained alone, the one"
    if len(networks) > 1:
        what += " most accurate on the selection images" if split == "test" else " most accurate"
    images = f"{accuracy.count} {split} images (95 % interval {percent_interval(accuracy)})"
    sentence = f"{what} reaches {percent(accuracy)} of {images}"
    if best.measurement is None:
        return f"{sentence}; its latency has not been measured."
    latency = f"{milliseconds(best.measurement.latency_ms)} ({latency_interval(best.measurement)})"
    return f"{sentence} at a measured median latency of {latency}, a {best.measurement.verdict} measurement."


def missing(run: Run, stage: str, what: str) -> str:
    """Why there is nothing to show of a stage, in one sentence."""
    section = stage if stage in ("supernet", "rank", "select", "search") else "train"  # the rest needs trained networks
    absent = run.recipe.get(section) is None
    reason = f"this recipe has no {section} stage" if absent else f"the {stage} stage has not finished"
    return f"No {what}: {reason}."


def not_drawn(networks: Sequence[Network]) -> str:
    """How many networks the measured figure leaves out for want of a number; empty if none."""
    count = sum(1 for n in networks if not (n.accuracy and n.measurement))
    if count == 0:
        return ""
    verb = "is" if count == 1 else "are"
    return f"{plural(count, 'network')} without a {networks[0].split} accuracy or a measured latency {verb} not drawn."


def few(correlations: Sequence[Correlation]) -> str:
    """A warning where there are too few architectures for a narrow interval; empty otherwise."""
    n = min((c.n for c in correlations), default=FEW_NETWORKS)
    return f"n = {n}: these intervals are wide, and a ranking of the predictors by them may be chance." * (
        n < FEW_NETWORKS
    )


def rejections(search: SearchResult) -> list[tuple[str, str, int]]:
    """`(status, reason, how many)` of the candidates without a place in the search, the most frequent first."""
    counts = Counter(
        (c.status, _constraint(c.reason) if c.status == "infeasible" else c.reason or "no reason recorded")
        for c in search.candidates
        if c.status != "complete"
    )
    return [(status, reason, count) for (status, reason), count in counts.most_common()]


def _constraint(reason: str) -> str:
    """`params <= 6e+05` of `params = 712345, not params <= 6e+05`, so that equal causes are counted together."""
    return reason.partition(", not ")[2] or reason or "no reason recorded"


def plural(count: int, noun: str) -> str:
    """`1 network`, `2 networks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(accuracy: Proportion) -> str:
    """`96.8 %`."""
    return f"{100 * accuracy.value:.1f} %"


def percent_interval(accuracy: Proportion) -> str:
    """`94.6–98.3`, the 95 % interval in percent."""
    return f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}"


def latency_interval(measurement: Measurement) -> str:
    """The 95 % interval of the median, in milliseconds."""
    low, high = measurement.latency.ci95
    return f"{significant(low)}–{significant(high)}"


def milliseconds(value: float) -> str:
    """Three significant digits, with the unit."""
    return f"{significant(value)} ms"


def significant(value: float) -> str:
    """Three significant digits, trailing zeros kept: they were measured."""
    return f"{value:#.3g}".rstrip(".")


def size(count_bytes: int) -> str:
    """A file's size in kB or MB (powers of ten)."""
    return f"{count_bytes / 1e6:.1f} MB" if count_bytes >= 1e6 else f"{count_bytes / 1e3:.1f} kB"


def correlation(value: float | None, interval: tuple[float | None, float | None] | None) -> str:
    """`0.61 (0.55 to 0.66)`, or that it is not defined."""
    return number(value, interval, ".2f")


def number(value: float | None, interval: tuple[float | None, float | None] | None, form: str) -> str:
    """A number in the given format with its interval, as far as they are defined."""
    if value is None:
        return "not defined"
    text = f"{value:{form}}".replace("-", "−")
    return f"{text} ({between})" if (between := bounds(interval, form)) else text


def bounds(interval: tuple[float | None, float | None] | None, form: str) -> str:
    """`0.55 to 0.66`; empty where the interval is not defined."""
    if interval is None or interval[0] is None or interval[1] is None:
        return ""
    return f"{interval[0]:{form}} to {interval[1]:{form}}".replace("-", "−")
