"""A DVC pipeline that turns a PyTorch checkpoint into checked release artifacts."""
