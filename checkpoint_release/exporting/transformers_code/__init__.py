"""Files that a release carries, for transformers to build its model from.

They are copied and never imported here: `model_code.py`, which they import, is written
for each release.
"""
