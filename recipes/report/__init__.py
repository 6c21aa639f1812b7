"""The report of a run: `report.html`, one file that works without a network, and `pareto.csv` beside it."""

from __future__ import annotations

from pathlib import Path

from espalier.nas.files import write_text


def write_report(run: Path) -> Path:
    """Write `report.html` and `pareto.csv` into the run folder `run` and return the path of the page.

    A run may be unfinished or lack stages: their sections say so. Both files are replaced atomically.

    Raises:
        UserError: `run` is no run folder, one of its files is damaged, or it cannot be written.
    """
    from espalier.recipes.records.reading import load_run
    from espalier.recipes.report.networks import gather_networks
    from espalier.recipes.report.page import render
    from espalier.recipes.report.pareto import write_pareto

    loaded = load_run(run)
    networks = gather_networks(loaded)
    page = run / "report.html"
    write_pareto(run / "pareto.csv", networks)
    write_text(page, render(loaded, networks))
    return page
