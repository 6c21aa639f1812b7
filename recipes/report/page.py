"""The page: what the run holds, arranged for the template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier.recipes.records.reading import Run
from espalier.recipes.report import narrative, selection
from espalier.recipes.report.curves import curves_figure, supernet_figure
from espalier.recipes.report.drawing import draw
from espalier.recipes.report.estimate_figures import estimate_scatters, rank_scatters, search_figure
from espalier.recipes.report.measurement_figures import latency_figure, pareto_figure
from espalier.recipes.report.networks import Network

if TYPE_CHECKING:
    from jinja2 import Environment
    from plotly.graph_objects import Figure


def render(run: Run, networks: Sequence[Network]) -> str:
    """The HTML of the report: one document with its style, scripts, figures and plotly inside.

    All values are escaped by the template; figures go in as JSON that cannot end its script element.
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    stages = run.stages
    estimates, rank = estimate_scatters(networks), rank_scatters(stages.rank)
    return (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            stages=stages,
            networks=networks,
            say=narrative,
            selection=selection,
            figures={
                "pareto": figure_json(pareto_figure(networks)),
                "search": figure_json(search_figure(stages.search)),
                "supernet": figure_json(supernet_figure(stages.supernet)),
                "curves": figure_json(curves_figure(networks)),
                "latency": figure_json(latency_figure(networks)),
                "estimates": figure_json(estimates.figure if estimates else None),
                "rank": figure_json(rank.figure if rank else None),
            },
            scatter_names={"estimates": estimates.names if estimates else [], "rank": rank.names if rank else []},
            drawings={n.id: Markup(draw(n.trained.diagram)) for n in networks},  # escaped by ElementTree
            device=_device(networks),
            environment=dict(flat(run.environment)),
            seeds={key: value for key, value in flat(run.recipe) if key.rpartition(".")[2] in ("seed", "seeds")},
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def environment() -> Environment:
    """Where the templates of all pages are; everything that they show is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("espalier.recipes.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def figure_json(figure: Figure | None) -> Any:
    """A figure as JSON safe inside a `<script>` element; None stays None."""
    from markupsafe import Markup

    if figure is None:
        return None
    text = figure.to_json()
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings with their dotted paths; a list is a leaf, its items joined by commas."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, ", ".join(map(str, value))
    else:
        yield path, "none recorded" if value is None else value


def _device(networks: Sequence[Network]) -> dict[str, Any]:
    """What the environments of all measurements have in common: the device and how it was used."""
    environments = [dict(flat(n.measurement.environment)) for n in networks if n.measurement]
    if not environments:
        return {}
    return {key: value for key, value in environments[0].items() if all(e.get(key) == value for e in environments)}
