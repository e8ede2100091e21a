"""What the server that processes are forked off imports: torch, and the eager model.

Collection is off meanwhile, for nothing of a million objects is garbage, and none is
looked at again in a process that is forked.
"""

import gc

gc.disable()
import checkpoint_release.runtimes.eager  # noqa: E402, F401

gc.freeze()
gc.enable()
