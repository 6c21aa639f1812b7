"""A float32 ONNX file in fewer bits: int8, float16, bfloat16. Whether it is worth it is measured, never assumed."""
