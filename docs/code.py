"""For MkDocs: links from a page to a file of the program lead to a page made of that file.

In the text they are relative, as in `[walk](../ddpm_demo/diffusion/walk.py#walk)`, so that they
work where the repository is read, too. Behind the # stands a class or function, or one in a class.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(\.\./(ddpm_demo/[\w/]+)\.py(?:#([\w.]+))?\)")


def line_of(source: str, name: str) -> int:
    """The line where a class or function begins.

    Raises:
        LookupError: there is none.
    """
    body: list[ast.stmt] = ast.parse(source).body
    for part in name.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef)
        found = next((n for n in body if isinstance(n, kinds) and n.name == part), None)
        if found is None:
            raise LookupError(name)
        body = found.body
    return found.lineno  # type: ignore[union-attr]  # a name has a part


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file that is linked to."""
    from mkdocs.structure.files import File

    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md")]
    for path in sorted({link[1] for text in texts for link in LINK.finditer(text)}):
        source = (ROOT / f"{path}.py").read_text("utf-8")
        page = f'# {path}.py\n\n~~~~{{.python linenums="1"}}\n{source}\n~~~~\n'
        files.append(File.generated(config, f"code/{path}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead the links to those pages, and to the line."""

    def led(link: re.Match[str]) -> str:
        path, name = link.groups()
        source = (ROOT / f"{path}.py").read_text("utf-8")
        line = f"#__codelineno-0-{line_of(source, name)}" if name else ""
        return f"](code/{path}.md{line})"

    return LINK.sub(led, markdown)
