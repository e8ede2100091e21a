"""Tensors as records over a file's bytes, and safetensors files."""
