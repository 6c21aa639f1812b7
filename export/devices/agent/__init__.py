"""The agent that runs on a device: a package that needs only numpy and onnxruntime, and is sent there as one file.

It opens ONNX files, times runs and reports the times as JSON lines over its standard streams; the host computes the
statistics. It runs on Python 3.8 or newer, since boards are rarely updated.
"""
