"""Turn a PyTorch checkpoint into release artifacts that people can trust, and run,
compare and verify them.
"""
