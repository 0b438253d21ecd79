"""What networks tell of a face beyond who it is: an ONNX file each, and a manifest that says how to ask and read it."""
