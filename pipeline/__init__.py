"""The stages of the pipeline, one module each, in the order in which dvc.yaml
runs them.
"""

import os

if "DVC_STAGE" in os.environ:
    # A stage may be interrupted while it still imports what it needs.
    from checkpoint_release.core.stage import exit_while_importing

    exit_while_importing()
