"""Repeat a request to a device's agent once for each session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from espalier.export.devices.base import Device, MeasureSpec
from espalier.nas.errors import UserError


@runtime_checkable
class HasAgent(Protocol):
    """A device with an agent on it."""

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """The agent's answer; the `files` of the request are sent first."""


def passes(device: Device, op: str, files: Sequence[Path], spec: MeasureSpec, **request: Any) -> list[dict[str, Any]]:
    """The answers to `spec.sessions` equal requests; the first determines the number of runs of the others.

    Args:
        device: a device with an agent.
        op: name of the operation.
        files: the files it needs.
        spec: how to time.
        **request: further arguments.

    Raises:
        UserError: the device has no agent, or the agent refuses.
    """
    if not isinstance(device, HasAgent):
        raise UserError(device.name, f"has no agent, which {op} needs", code="unsupported")
    answers: list[dict[str, Any]] = []
    for _ in range(spec.sessions):
        answer = device.ask(
            op,
            files=list(files),
            **spec.request(),
            runs=answers[0].get("runs") if answers else None,
            **request,
        )
        answers.append(answer)
    return answers
