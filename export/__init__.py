"""Wing: export to ONNX, checked against torch, and timing on real devices.

The package can be called: `espalier.export(model, "model.onnx", input_shape=(3, 32, 32))`; see
`espalier.export.network.export_network`.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espalier.export.onnx import Exported

if __name__ != "espalier.export":
    raise ImportError("import espalier.export, not export: the folder is a part of the package espalier")

# ONNX Runtime reports its use over the network and stores a device id in the home folder, unless this is set before it
# is loaded; its own switch, `disable_telemetry_events`, is too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class _Package(ModuleType):
    """A package that is also the function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Exported:
        from espalier.export.network import export_network

        return export_network(*arguments, **options)


sys.modules[__name__].__class__ = _Package
