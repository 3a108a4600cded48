"""Draw the pictures of the documents: ``docs/images/way.svg`` and ``docs/images/layers.svg``.

The layers are those of the import contracts in pyproject.toml, so the picture cannot say something else than
what ``make check`` holds the code to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # of import-linter

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
_STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1b2733}"
    ".title{font-weight:600;font-size:14px}.small{font-size:11.5px;fill:#52606d}"
    ".mono{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px}"
    "path{fill:none;stroke:#52606d;stroke-width:1.5}"
)
_ARROWHEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" style="fill:#52606d;stroke:none"/></marker></defs>'
)


class Drawing:
    """Boxes, texts and arrows, as SVG."""

    def __init__(self, width: int, height: int, label: str) -> None:
        size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label)}">',
            f"<style>{_STYLE}</style>{_ARROWHEAD}",
            f'<rect width="{width}" height="{height}" rx="9" fill="#fff"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str, edge: str = "#9fb3c8") -> None:
        """A box with round corners."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" '
            f'stroke="{edge}"/>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        """A line of text."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float, *, both: bool = False) -> None:
        """An arrow, with a second head where it leads both ways."""
        start = ' marker-start="url(#head)"' if both else ""
        self._parts.append(f'<path d="M{x:g} {y:g} {to_x:g} {to_y:g}" marker-end="url(#head)"{start}/>')

    def save(self, path: Path) -> None:
        """Write it."""
        path.write_text("\n".join([*self._parts, "</svg>"]) + "\n", encoding="utf-8")


def draw_way(path: Path) -> None:
    """The way of a command from a task to the machine that runs it, and of its output back."""
    drawing = Drawing(860, 300, "The way of a command from Airflow to the machine that runs it")

    def station(x: int, width: int, title: str, lines: Sequence[str], fill: str) -> None:
        drawing.box(x, 40, width, 190, fill)
        drawing.text(x + width / 2, 64, title, "title")
        for number, line in enumerate(lines):
            drawing.box(x + 12, 78 + 36 * number, width - 24, 28, "#fff", "#d9e2ec")
            drawing.text(x + width / 2, 97 + 36 * number, line)

    station(
        16,
        150,
        "Airflow worker",
        ("checks the task", "renders, defers", "… is free …", "takes results"),
        "#f0f4f8",
    )
    station(
        236,
        170,
        "Airflow triggerer",
        ("asks for the job", "watches it", "writes the task's log", "tells the end"),
        "#f0f4f8",
    )
    station(
        496,
        170,
        "remsvc serve",
        ("who is calling?", "may this run?", "claimed on disk", "output from disk"),
        "#e3f8ff",
    )
    station(
        708,
        136,
        "supervisor",
        ("starts it", "reads its output", "ends all of it", "keeps its end"),
        "#effcf6",
    )
    for x, to_x in ((166, 236), (406, 496), (666, 708)):
        drawing.arrow(x, 92, to_x, 92)
        drawing.arrow(to_x, 200, x, 200)
    drawing.text(201, 82, "defers", "small")
    drawing.text(201, 219, "resumes", "small")
    drawing.text(451, 82, "gRPC, TLS", "small")
    drawing.text(451, 108, "token", "small")
    drawing.text(451, 219, "output, end", "small")
    drawing.box(484, 16, 368, 268, "none", "#627d98")
    drawing.text(668, 276, "the machine that runs the command: root, or one of its users", "small")
    drawing.text(668, 252, "/bin/sh -c 'pg_dump app > /backup/2030-01-31.sql'", "mono")
    drawing.text(16, 262, "From Airflow 3.3 on, most tasks start in the triggerer:", "small", "start")
    drawing.text(16, 278, "a worker only takes the result.", "small", "start")
    drawing.save(path)


def layers() -> list[tuple[str, list[list[str]]]]:
    """The packages with layers, each with its layers from top to bottom, as pyproject.toml has them."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [
        (contract["containers"][0], [layer.split(" | ") for layer in contract["layers"]])
        for contract in configuration["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]


_ROW, _GAP, _BETWEEN, _PANEL, _CHARACTER = 26, 4, 9, 424, 7.2
_FRAME = 5  # around the rooms of a layer
_WIDTH = _PANEL - 24 - 2 * _FRAME


def _lines(layer: list[str]) -> list[list[str]]:
    """The rooms of a layer in lines that fit into a panel."""
    lines: list[list[str]] = [[]]
    for room in layer:
        if sum(len(name) * _CHARACTER + 14 + _GAP for name in [*lines[-1], room]) > _WIDTH:
            lines.append([])
        lines[-1].append(room)
    return lines


def _height(lines: list[list[str]]) -> int:
    return len(lines) * (_ROW + _GAP) - _GAP + 2 * _FRAME


def draw_layers(path: Path) -> None:
    """The rooms of each package: what is above may import what is below, never the other way round."""
    columns: list[list[tuple[str, list[list[list[str]]], int, int]]] = [[], []]
    bottoms = [40, 40]
    for name, rows in layers():
        wrapped = [_lines(layer) for layer in rows]
        height = 40 + sum(_height(lines) + _BETWEEN for lines in wrapped)
        side = bottoms.index(min(bottoms))
        columns[side].append((name, wrapped, bottoms[side], height))
        bottoms[side] += height + 14
    drawing = Drawing(2 * _PANEL + 36, max(bottoms), "The layers of the code")
    text = "Imports go downwards only; the rooms of one layer do not know each other."
    drawing.text(12, 24, text, "", "start")
    for x, column in zip((12, 24 + _PANEL), columns, strict=True):
        for name, wrapped, top, height in column:
            drawing.box(x, top, _PANEL, height, "#f0f4f8")
            drawing.text(x + 12, top + 23, name, "title", "start")
            y = top + 36.0
            for lines in wrapped:
                drawing.box(x + 12, y, _PANEL - 24, _height(lines), "#d9e2ec", "none")
                for number, rooms in enumerate(lines):
                    _draw_line(drawing, x + 12 + _FRAME, y + _FRAME + number * (_ROW + _GAP), rooms)
                y += _height(lines) + _BETWEEN
    drawing.save(path)


def _draw_line(drawing: Drawing, x: float, y: float, rooms: list[str]) -> None:
    free = _WIDTH - _GAP * (len(rooms) - 1)
    total = sum(len(room) * _CHARACTER + 14 for room in rooms)
    for room in rooms:
        width = (len(room) * _CHARACTER + 14) / total * free
        drawing.box(x, y, width, _ROW, "#fff")
        drawing.text(x + width / 2, y + 17, room, "mono")
        x += width + _GAP


if __name__ == "__main__":
    draw_way(IMAGES / "way.svg")
    draw_layers(IMAGES / "layers.svg")
    print(f"drawn in {IMAGES}")
