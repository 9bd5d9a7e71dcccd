"""Draw docs/pictures/code-map.svg and write docs/code-map.md: the packages and modules, and which imports which.

`python docs/make_code_map.py` writes both; a test compares them with the code. An arrow from A to B means that a module
of A imports a module of B. Arrows that follow from others (A to B to C implies A to C) are counted and not drawn.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/pictures/code-map.svg"
PAGE = ROOT / "docs/code-map.md"
PACKAGES = ("orchestrator", "learner", "rollout_workers", "env_workers", "sdpo")
WIDTH, ROW_HEIGHT, BOX_HEIGHT, BOX_WIDTH = 1000, 76, 34, 128

Graph = dict[str, set[str]]
"""Part by the parts that it imports. A part is a module or a folder directly below one package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module or folder of a package: its path in the repository, and the first sentence of its docstring."""

    path: str
    summary: str


def parts_of(package: str) -> dict[str, list[Path]]:
    """Return the files of every part of `package`, by the part's name; empty `__init__` modules are left out."""
    parts: dict[str, list[Path]] = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        name = file.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if name != "__init__":
            parts.setdefault(name, []).append(file)
    return parts


def imports_of(file: Path) -> set[str]:
    """Return the dotted names that a file imports, at any depth: `a.b.c` for `from a.b import c`."""
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def graph_of(package: str) -> Graph:
    """Return which part of `package` imports which other part of it."""
    parts = parts_of(package)
    graph: Graph = {name: set() for name in parts}
    for name, files in parts.items():
        for imported in (dotted for file in files for dotted in imports_of(file)):
            words = imported.split(".")
            if words[0] == package and len(words) > 1 and words[1] in parts and words[1] != name:
                graph[name].add(words[1])
    return graph


def levels_of(graph: Graph) -> dict[str, int]:
    """Return the level of every part: 1 for those that import none, else one above the highest that they import.

    Raises `ValueError` for parts that import each other in a circle.
    """
    levels: dict[str, int] = {}
    while len(levels) < len(graph):
        ready = [name for name in graph if name not in levels and graph[name] <= levels.keys()]
        if not ready:
            raise ValueError(f"import circle between {', '.join(sorted(graph.keys() - levels.keys()))}")
        levels |= {name: 1 + max((levels[below] for below in graph[name]), default=0) for name in ready}
    return levels


def drawn_arrows(graph: Graph) -> list[tuple[str, str]]:
    """Return the arrows that do not follow from others."""
    below: Graph = {}
    for name in sorted(graph, key=levels_of(graph).__getitem__):
        below[name] = graph[name].union(*(below[each] for each in graph[name]))
    return [
        (name, each) for name in graph for each in sorted(graph[name])
        if not any(each in below[other] for other in graph[name] - {each})
    ]  # fmt: skip


def picture() -> str:
    """Return the SVG of the parts of `orchestrator`, one row a level, without fonts or links from elsewhere."""
    graph = graph_of("orchestrator")
    levels = levels_of(graph)
    top = max(levels.values())
    at = dict[str, tuple[float, float]]()
    for level in range(1, top + 1):
        row = sorted(name for name in graph if levels[name] == level)
        for index, name in enumerate(row):
            at[name] = (WIDTH * (index + 0.5) / len(row), 30 + (top - level) * ROW_HEIGHT + BOX_HEIGHT / 2)
    lines = [_arrow(at[start], at[end]) for start, end in drawn_arrows(graph)]
    boxes = [_box(*at[name], name, is_folder=(ROOT / "orchestrator" / name).is_dir()) for name in sorted(at)]
    style = "text{font-family:Helvetica,Arial,sans-serif;font-size:14px;fill:#222}"
    tip = (
        '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z" fill="#777"/></marker>'
    )
    height = 60 + (top - 1) * ROW_HEIGHT + BOX_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<style>{style}</style><defs>{tip}</defs><rect width="100%" height="100%" fill="#fbfbfd"/>'
        f"{''.join(lines)}{''.join(boxes)}</svg>\n"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{x1:.0f}" y1="{y1 + BOX_HEIGHT / 2:.0f}" x2="{x2:.0f}" y2="{y2 - BOX_HEIGHT / 2:.0f}" '
        'stroke="#999" stroke-width="1.2" marker-end="url(#tip)"/>'
    )


def _box(x: float, y: float, name: str, *, is_folder: bool) -> str:
    label = f"{name}/" if is_folder else f"{name}.py"
    return (
        f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        f'rx="6" fill="{"#e8ebf7" if is_folder else "white"}" stroke="#5b5f97" stroke-width="1.5"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(label)}</text>'
    )


def page() -> str:
    """Return docs/code-map.md: the picture, and a table of the parts of every package."""
    graph = graph_of("orchestrator")
    levels, num_arrows = levels_of(graph), sum(map(len, graph.values()))
    text = [
        "# Map of the code\n",
        "`docs/make_code_map.py` makes this page from imports and docstrings; a test keeps it current.",
        "To read the code, start at [`orchestrator/loop.py`](../orchestrator/loop.py) and follow one batch in",
        "[Concepts](architecture.md#one-batch-file-by-file).\n",
        "## How `orchestrator` is layered\n",
        f"{len(graph)} parts on {max(levels.values())} levels with {num_arrows} import arrows. No arrow points",
        "upwards, and no parts import each other in a circle: a contract of import-linter in `pyproject.toml`",
        "holds this. A command knows the run; the run knows no command.\n",
        "![the parts of orchestrator and their imports](pictures/code-map.svg)\n",
    ]
    for package in PACKAGES:
        text += [
            f"## `{package}/`\n",
            f"{_summary(ROOT / package / '__init__.py')}\n",
            "| part | what it does |",
            "|---|---|",
        ]
        text += [f"| [`{part.path}`](../{part.path}) | {part.summary} |" for part in _table(parts_of(package), package)]
        text.append("")
    return "\n".join(text)


def _table(names: Iterable[str], package: str) -> list[Part]:
    rows = []
    for name in sorted(names):
        folder = ROOT / package / name
        path = f"{package}/{name}/" if folder.is_dir() else f"{package}/{name}.py"
        source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        rows.append(Part(path=path, summary=_summary(source)))
    return rows


def _summary(file: Path) -> str:
    """Return the first sentence of a module's docstring, as a cell of a table."""
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("|", "\\|") + "."


if __name__ == "__main__":
    PICTURE.write_text(picture())
    PAGE.write_text(page())
