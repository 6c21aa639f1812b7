"""Devices that run and time an ONNX file, behind one interface."""
