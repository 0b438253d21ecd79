"""A trained student to what the service loads: ONNX, 8-bit, manifest, scores, model card."""
