"""The JavaScript by which `dvc plots show` draws without the network.

.dvc/plots/page.html, the template of DVC's page, loads it from .dvc/tmp, which git
ignores, and asks the network only where it isn't there.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.files import replace_file
from checkpoint_release.pictures.picture import VEGA_LITE

PATH = Path("tmp/vega.js")
"""In DVC's folder."""
_GLOBALS = "Object.assign(window, {vega, vegaLite, vegaEmbed});"
"""What the page of plots calls."""


def write_plots_library(dvc_folder: Path) -> bool:
    """Write the library, unless it is there.

    Args:
        dvc_folder: `.dvc`.

    Returns:
        Whether it was written; False too where the folder doesn't exist.
    """
    path = dvc_folder / PATH
    if path.is_file() or not dvc_folder.is_dir():
        return False
    import vl_convert

    code = vl_convert.javascript_bundle(_GLOBALS, VEGA_LITE)
    replace_file(path, code.encode())
    return True
