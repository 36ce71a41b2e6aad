"""Execute the notebooks and keep their outputs: ``python docs/notebooks/execute.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS_A_CELL = 600


def execute(path: Path, folder: Path) -> Any:
    """The notebook with new outputs, run in `folder`; what it raises is raised."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
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


def main() -> None:
    """Execute all in place."""
    import nbformat

    for path in sorted(HERE.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
