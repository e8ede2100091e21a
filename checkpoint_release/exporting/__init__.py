"""Exports by torch, and what all exporters share: shape check, leaks, config.json."""
