from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from small_networks import SHAPE, cell_network, small_network
from torch import nn

from espalier.export.errors import ExportError
from espalier.export.onnx import Exported, export_onnx
from espalier.export.parity import check_parity


def test_dynamo_file_is_named_dynamic_self_contained_and_near(exported: Exported) -> None:
    assert (exported.exporter, exported.fallback_reason) == ("dynamo", None)
    assert exported.size_bytes == exported.path.stat().st_size
    assert exported.parity.max_abs_error <= exported.parity.tolerance
    assert not exported.parity.constant
    proto = onnx.load(exported.path, load_external_data=False)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [proto.graph.input[0].name, proto.graph.output[0].name] == ["input", "logits"]
    assert [dims[0].dim_param, *(dim.dim_value for dim in dims[1:])] == ["batch", *SHAPE]
    assert proto.opset_import[0].version == exported.opset
    assert [file.name for file in exported.path.parent.iterdir()] == ["model.onnx"]


def test_model_and_random_state_are_left_as_they_were(
    network: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network.train()
    network.get_submodule("1").eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter="torchscript")
    assert network.training
    assert not network.get_submodule("1").training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert capfd.readouterr() == ("", "")


def break_dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.onnx.export

    def export(*args: Any, dynamo: bool, **kwargs: Any) -> Any:
        if dynamo:
            raise RuntimeError("no such operator\nand much more")
        return real(*args, dynamo=False, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", export)


def test_falls_back_and_says_why(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_dynamo(monkeypatch)
    exported = export_onnx(network, SHAPE, tmp_path / "m.onnx")
    assert exported.exporter == "torchscript"
    assert exported.fallback_reason == "dynamo: RuntimeError: no such operator"


def test_falls_back_where_the_file_fails_the_checks(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.onnx.export

    def fixed_batch(model: nn.Module, args: Any, path: Path, *, dynamo: bool, **kwargs: Any) -> Any:
        dynamic = None if dynamo else kwargs["dynamic_axes"]
        names = {"input_names": ["input"], "output_names": ["logits"]}
        real(model, args, path, dynamo=False, dynamic_axes=dynamic, **names)
        return SimpleNamespace(exported_program=SimpleNamespace(range_constraints={}))

    monkeypatch.setattr(torch.onnx, "export", fixed_batch)
    exported = export_onnx(network, SHAPE, tmp_path / "m.onnx")
    assert exported.exporter == "torchscript"
    assert exported.fallback_reason is not None
    assert "'batch'" in exported.fallback_reason


def test_both_reasons_and_the_old_file_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Untraceable(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("not today")

    break_dynamo(monkeypatch)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"no such operator.*torchscript: ValueError: not today"):
        export_onnx(Untraceable(), SHAPE, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_ignores_its_input_is_recorded(tmp_path: Path) -> None:
    network = cell_network("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter="torchscript").parity.constant


@pytest.mark.slow
def test_a_cell_through_both_exporters(tmp_path: Path) -> None:
    network = cell_network("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|")
    for exporter in ("auto", "torchscript"):
        exported = export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter=exporter)
        assert (exported.fallback_reason, exported.parity.constant) == (None, False)


def change(source: Path, target: Path, factor: float) -> Path:
    """A copy of an ONNX file with its last weight matrix multiplied by `factor`."""
    proto = onnx.load(source)
    weight = next(t for t in proto.graph.initializer if list(t.dims) in ([5, 4], [4, 5]))
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * factor, weight.name))
    onnx.save(proto, target)
    return target


def test_parity_finds_a_changed_weight(onnx_file: Path, tmp_path: Path) -> None:
    check_parity(small_network(), SHAPE, change(onnx_file, tmp_path / "same.onnx", 1.0))
    with pytest.raises(ExportError, match="outputs differ"):
        check_parity(small_network(), SHAPE, change(onnx_file, tmp_path / "off.onnx", 1.01))


def test_parity_finds_a_constant_file(onnx_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="do not depend on the input"):
        check_parity(small_network(), SHAPE, change(onnx_file, tmp_path / "zero.onnx", 0.0))


def test_parity_refuses_what_is_not_finite(onnx_file: Path) -> None:
    network = small_network()
    torch.nn.init.constant_(network.get_parameter("6.bias"), torch.inf)
    with pytest.raises(ExportError, match="not finite"):
        check_parity(network, SHAPE, onnx_file)


def test_parity_refuses_external_data_and_other_inputs(onnx_file: Path, tmp_path: Path) -> None:
    proto = onnx.load(onnx_file)
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    with pytest.raises(ExportError, match="another file"):
        check_parity(small_network(), SHAPE, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="has inputs"):
        check_parity(small_network(), (3, 9, 9), onnx_file)


def test_memory_format_of_the_weights_leaves_no_trace(exported: Exported, tmp_path: Path) -> None:
    """Weights that training left in channels_last become extra operators otherwise, which bias size and latency."""
    strided = small_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not strided.get_parameter("0.weight").is_contiguous()
    again = export_onnx(strided, SHAPE, tmp_path / "m.onnx", exporter="dynamo")
    graphs = [onnx.load(path).graph for path in (exported.path, again.path)]
    assert [node.op_type for node in graphs[0].node] == [node.op_type for node in graphs[1].node]
    assert [t.raw_data for t in graphs[0].initializer] == [t.raw_data for t in graphs[1].initializer]
    assert not strided.get_parameter("0.weight").is_contiguous()  # the network itself is left as it is


def test_half_precision_is_written_in_float32(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        network = small_network().to(dtype)
        proto = onnx.load(export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter="torchscript").path)
        assert {tensor.data_type for tensor in proto.graph.initializer} <= {onnx.TensorProto.FLOAT}
        assert network.get_parameter("0.weight").dtype == dtype


def test_a_failing_exporter_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The tracer prints its graph from C++ when an operator cannot be written."""
    network = nn.Sequential(nn.AdaptiveMaxPool2d(3), nn.Flatten())
    with pytest.raises(ExportError):
        export_onnx(network, (1, 10, 10), tmp_path / "m.onnx", exporter="torchscript")
    assert capfd.readouterr() == ("", "")
