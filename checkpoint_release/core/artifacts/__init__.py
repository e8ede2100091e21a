"""What the stages hand on, and what a release holds: one typed owner for each file.

formats      the registry of formats: names, folders and main files
manifest     manifest.json: every file of an artifact folder with size and digest
checkpoint   checkpoint.json: the model, its weights and where they come from
config       config.json: how to build the model and how to call it
parity       the parity report and its metrics: the verdict on every format
release      release.json: what a release holds and what in it computes
receipt      publish.json: what was published where

No other module reads these files by key.
"""
