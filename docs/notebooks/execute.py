"""Execute notebooks and keep their outputs: ``python docs/notebooks/execute.py NAME ...``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS_A_CELL = 600


def execute(path: Path, folder: Path) -> Any:
    """The notebook with new outputs, run in `folder`/notebooks; what it raises is raised.

    `folder`/data holds the screen that notebooks read, as a checkout and the images do.
    """
    import nbformat
    from nbclient import NotebookClient

    work, data = folder / "notebooks", folder / "data"
    work.mkdir()
    data.mkdir()
    shutil.copy(HERE.parent / "data" / "papalexi.h5ad", data)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
        record_timing=False,
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
    return notebook


def _is_bar(output: Any) -> bool:
    """Return whether it is a progress bar, which runs show on slow machines only."""
    text = output.get("text", "")
    return output.get("name") == "stderr" and ("\r" in text or not text.strip())


def main(names: list[str]) -> None:
    """Execute those named, in place."""
    import nbformat

    for name in names:
        path = HERE / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
