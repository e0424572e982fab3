"""Runs a notebook's cells in this process, and writes their outputs into the file where it is asked to.

    python tests/notebook_runner.py docs/notebooks/NAME.ipynb     # refreshes the outputs that are committed

Cells are plain Python, and lines that begin with ``!``, which go to the shell as in IPython. The cell with the tag
``parameters`` can be overridden. No notebook server is needed.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = re.compile(r"^!(.*)$", re.MULTILINE)


def shell(line: str) -> None:
    """Runs a line in the shell and prints its output; the command is the one of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = line.replace("fm-lightning ", f"{sys.executable} -m fm_lightning ")
    ended = subprocess.run(
        line, shell=True, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    print(ended.stdout, end="")
    if ended.returncode:
        raise RuntimeError(f"{line} ended with {ended.returncode}: {ended.stderr}")


def run(path: Path, parameters: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The notebook with new outputs, and the names that its cells left behind.

    Args:
        path: of the notebook.
        parameters: values that replace those of the cell with the tag ``parameters``.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__", "_shell": shell}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        cell["execution_count"] = number
        cell["outputs"] = _outputs("".join(cell["source"]), names, number, f"{path.name}[{number}]")
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(parameters or {})
    return notebook, names


def _outputs(source: str, names: dict[str, Any], number: int, where: str) -> list[dict[str, Any]]:
    code = COMMAND.sub(lambda match: f"_shell(f{match[1]!r})", source)
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    shown, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), where, "eval"), names)
    found: list[dict[str, Any]] = []
    if text := printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if shown is not None:
        found.append(
            {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": _shown(shown)}
        )
    return found


def _shown(value: Any) -> dict[str, Any]:
    """What a notebook shows of a value: a figure as PNG, a table as HTML too."""
    data: dict[str, Any] = {"text/plain": [repr(value)]}
    if hasattr(value, "savefig"):
        content = io.BytesIO()
        value.savefig(content, format="png", dpi=72)
        data = {"text/plain": ["<Figure>"], "image/png": base64.b64encode(content.getvalue()).decode()}
    elif hasattr(value, "_repr_html_") and (html := value._repr_html_()):
        data["text/html"] = html.splitlines(keepends=True)
    return data


if __name__ == "__main__":
    for name in sys.argv[1:]:
        notebook, _ = run(Path(name))
        Path(name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
