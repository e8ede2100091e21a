"""Releasing many checkpoints on many machines.

`fleet.yaml` names checkpoints, parameters and a matrix over them (`spec`, `sources`).
`plan` makes a member of each checkpoint, with a key that states all that decides what
is built. `build` releases one member in a scratch clone of the pinned commit; any
engine can call it, and `run` lets Dask distributed call it on many machines. Only the
coordinator writes git (`refs`) and a Hub (`publication`); `collect` shows what came of
it all.
"""
