"""ONNX at exactly the opset asked for: routes, clean-up, checks, files and variants."""
