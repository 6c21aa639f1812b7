"""Quantise a float32 ONNX file to int8, float16 or bfloat16. The benefit is measured, never assumed."""
