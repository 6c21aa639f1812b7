"""The commands `nas devices` and `nas doctor`, which look at the hardware and the installation."""

from __future__ import annotations

from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, print_result


def devices(
    address: Annotated[
        str | None, typer.Argument(help="Ask this device: local, ssh://HOST, adb://SERIAL or replay:FILE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices that latency can be measured on, or ask one what it is."""
    from espalier.recipes.commands.devices import ask_device, devices_text, known_devices
    from espalier.recipes.commands.progress import waiting

    with waiting(f"asking {address or 'local'}"):
        found = known_devices() if address is None else [ask_device(address)]
    print_result([device.to_dict() for device in found] if as_json else devices_text(found), as_json)


def doctor(as_json: AsJson = False) -> None:
    """Check the installation and suggest fixes. Exits with 1 if there is a problem."""
    from espalier.recipes.commands.doctor import examine, findings_text
    from espalier.recipes.commands.progress import waiting

    with waiting("importing each library in its own process"):
        findings = examine()
    print_result([vars(finding) for finding in findings] if as_json else findings_text(findings), as_json)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)
