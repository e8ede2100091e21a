"""What pyproject.toml can't express: the pipeline's files go into the wheel.

They lie outside the package, where this project itself uses them;
`checkpoint-release new` writes them into other projects.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

shipped = runpy.run_path("checkpoint_release/project/shipped.py")


class BuildWithProjectFiles(build_py):  # type: ignore[misc]
    """Build the package with the pipeline's files in it."""

    def run(self) -> None:
        """Build, and copy the files; an editable install reads them where they are."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, shipped["FOLDER"])
        for name in shipped["shipped_files"](Path()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(name, str(folder / name))

    def get_source_files(self) -> list[str]:
        """What a source distribution holds, these files included."""
        sources: list[str] = super().get_source_files()
        return sources + shipped["shipped_files"](Path())


setup(cmdclass={"build_py": BuildWithProjectFiles})
