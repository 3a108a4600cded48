"""The rules of the house (docs/decisions/0026-the-house.md): where a module may be, and what it may import.

The import contracts are in pyproject.toml, for ``lint-imports``; here each of them is seen to fail.
All other rules are checked here.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from draw_pictures import draw_layers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # of import-linter

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("remsvc", "remsvc_provider")
LONGEST, SHORTEST, MOST_MODULES = 500, 20, 20
ONE_FILE_A_VERB = {"src/remsvc/cli"}
SAY_NOTHING = {"common", "helper", "helpers", "manager", "misc", "tools", "util", "utils"}


@cache
def modules() -> dict[str, Path]:
    """All modules of ours, by their names; a package is one, too."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / "src" / package).rglob("*.py")):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imported(module: str) -> frozenset[str]:
    """The modules that one imports, ours and others: at its top, in a function, and for its types alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            origin = node.module or ""
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            names |= {name if name in modules() else origin for name in inner}
    return frozenset(names - {module})


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Names that import each other, over however many steps: the strongly connected ones of more than one."""

    @cache
    def reached(start: str) -> frozenset[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in imports.get(waiting.pop(), set()) - seen:
                seen.add(name)
                waiting.append(name)
        return frozenset(seen)

    in_circles = [name for name in imports if name in reached(name)]
    found = {tuple(sorted(o for o in in_circles if o in reached(n) and n in reached(o))) for n in in_circles}
    return [list(circle) for circle in sorted(found)]


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    ours = {name: set(imported(name) & modules().keys()) for name in modules()}
    assert circles(ours) == []


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    """Whatever is beside each other in a folder, modules and folders alike, each folder as a whole."""
    found = []
    for package in {name.rpartition(".")[0] for name in modules()} - {""}:
        inside = f"{package}."
        depth = inside.count(".") + 1
        rooms: dict[str, set[str]] = {}
        for name in modules():
            if name.startswith(inside):
                room = ".".join(name.split(".")[:depth])
                others = {".".join(o.split(".")[:depth]) for o in imported(name) if o.startswith(inside)}
                rooms.setdefault(room, set()).update(others - {room})
        found += circles(rooms)
    assert found == []


def test_each_module_has_one_concept_to_tell() -> None:
    found = {}
    for path in modules().values():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if path.name != "__init__.py" and not SHORTEST <= lines <= LONGEST:
            found[str(path.relative_to(ROOT))] = lines
    assert found == {}


def test_each_folder_can_be_taken_in_at_a_look() -> None:
    count: dict[str, int] = {}
    for path in modules().values():
        folder = str(path.parent.relative_to(ROOT))
        count[folder] = count.get(folder, 0) + (path.name != "__init__.py")
    too_full = {folder for folder, number in count.items() if number > MOST_MODULES}
    assert too_full - ONE_FILE_A_VERB == set()


def test_each_name_says_what_is_inside() -> None:
    assert [name for name in modules() if SAY_NOTHING & set(name.split("."))] == []


ONE_MEANING_TWICE = {
    "JobState": "what DAGs import of the operator: a run's state, not a job's",
    "dial": "with asyncio, and without",
    "check_config": "the verb calls the function",
    "list_tokens": "the verb calls the function",
    "serve": "the verb calls the function",
    "verify": "the verb calls the function",
    "install": "the verb calls the function",
    "remove": "the verb calls the function",
    "run": "verbs",
    "main": "where a program starts",
    "command_line": "this program's, and that of a process on Windows",
}
"""Names that two modules may define, each with the reason."""


def defined(module: str) -> set[str]:
    """The classes, functions and types that a module defines for others; no constants."""
    names = set()
    for node in ast.parse(modules()[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_") and not name.isupper()}


def test_each_name_has_one_meaning() -> None:
    where: dict[str, list[str]] = {}
    for module in modules():
        for name in defined(module) - ONE_MEANING_TWICE.keys():
            where.setdefault(name, []).append(module)
    assert {name: there for name, there in where.items() if len(there) > 1} == {}


FOREIGN_OBJECTS = {"context", "entry", "file", "message", "sys"}
"""Variables of this name hold a message of protobuf's, or something of Python's own."""
INTENDED = {"remsvc.client.aio: client._calls"}
"""A class method that makes an object of its own class, in another way than the constructor."""


def test_nobody_sets_an_attribute_of_another_modules_object() -> None:
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in modules().items()}
    own = {module: attributes(tree) for module, tree in trees.items()}
    anybodys = set().union(*own.values())
    found = [
        f"{module}: {ast.unparse(node)}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if ast.unparse(node.value) not in {"self", "cls"} | FOREIGN_OBJECTS
        if node.attr in anybodys - own[module]
    ]
    assert set(found) - INTENDED == set()


def attributes(tree: ast.Module) -> set[str]:
    """Those that the classes of a module have, as far as it tells: annotated, or set by a method."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            declared = [line.target for line in node.body if isinstance(line, ast.AnnAssign)]
            found.update(target.id for target in declared if isinstance(target, ast.Name))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.update({node.attr} if ast.unparse(node.value) == "self" else ())
    return found


def test_the_supervisor_needs_nothing_but_the_standard_library() -> None:
    """It runs as root, without site-packages, and outlives an upgrade of everything else."""
    room = "remsvc.execution.supervisor"
    allowed = sys.stdlib_module_names
    foreign = {
        (name, other)
        for name in modules()
        if name.startswith(room)
        for other in imported(name)
        if other.split(".")[0] not in allowed and not other.startswith(room)
    }
    assert foreign == set()


def test_the_picture_of_the_layers_shows_them_as_they_are(tmp_path: Path) -> None:
    draw_layers(tmp_path / "layers.svg")
    drawn = (tmp_path / "layers.svg").read_text(encoding="utf-8")
    kept = (ROOT / "docs" / "images" / "layers.svg").read_text(encoding="utf-8")
    assert drawn == kept, "draw it anew: python scripts/draw_pictures.py"


# What documents and docstrings name

WRITTEN = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "pyproject.toml",
        "src/remsvc*/**/*.py",
        "tests/**/*.py",
        "scripts/*.py",
    )
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md" and "remsvc_proto" not in path.parts
)
PAGES = [path for path in WRITTEN if path.suffix == ".md"]
NOT_OURS = {"grpc/reflection/v1/reflection.proto"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_file_that_is_named_is_there() -> None:
    there = "".join(
        f"/{path.relative_to(ROOT)}\n"
        for top in ("src", "proto", "scripts", "tests", "docs", "benchmarks", "examples", "packaging")
        for path in (ROOT / top).rglob("*.*")
    ) + "".join(f"/{path.name}\n" for path in ROOT.glob("*.*"))
    missing = {}
    for path in WRITTEN:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"[\w./]*\w/\w+\.(?:py|proto|md)\b", text) + re.findall(
            r"`([\w/]+\.(?:py|proto))`", text
        )
        lost = {
            name
            for name in named
            if f"/{name.lstrip('./')}\n" not in there and not re.search(r"NAME|^\.\.|^/tmp|^/", name)
        }
        if lost - NOT_OURS:
            missing[str(path.relative_to(ROOT))] = lost
    assert missing == {}


def test_a_name_in_a_docstring_is_there() -> None:
    """Written as a reference to a class, a function …: its module is there, and something of that name."""
    everything = {name for module in modules() for name in all_names(module)}
    missing = []
    for module, path in modules().items():
        for kind, name in re.findall(
            r":(mod|class|func|meth|data|attr|exc):`~?([\w.]+)`", path.read_text(encoding="utf-8")
        ):
            if not is_known(kind, name, everything):
                missing.append(f"{module}: {name}")
    assert missing == []


def is_known(kind: str, name: str, everything: set[str]) -> bool:
    where, _, last = name.rpartition(".")
    if kind == "mod":
        return name in modules() or not name.startswith("remsvc")
    if where.startswith("remsvc") and where not in modules():
        where, _, owner = where.rpartition(".")  # a class, of which this is a method or an attribute
        if where not in modules() or owner not in everything:
            return False
    return last in everything


@cache
def all_names(module: str) -> frozenset[str]:
    """Whatever has a name in a module's code: classes, functions, variables, attributes, arguments."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        given = (getattr(node, field, None) for field in ("name", "id", "attr", "arg"))
        names.update(name for name in given if isinstance(name, str))
    return frozenset(names)


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/connections.md"])
def test_a_class_that_a_guide_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    protocol = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "proto").rglob("*.proto"))
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", text))
    there = {name for module in modules() for name in class_names(module)} | set(re.findall(r"\w+", protocol))
    assert sorted(named - there) == []


def class_names(module: str) -> set[str]:
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)} | defined(module)


# The import contracts


def contracts() -> list[dict[str, Any]]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = configuration["tool"]["importlinter"]["contracts"]
    return found


def forbidden_imports(contract: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Imports that a contract must not let pass: of each layer, the one above and the ones beside it."""
    if contract["type"] == "forbidden":
        yield from itertools.product(contract["source_modules"], contract["forbidden_modules"])
        return
    (container,) = contract["containers"]
    layers = [[f"{container}.{name}" for name in layer.split(" | ")] for layer in contract["layers"]]
    for above, layer in itertools.pairwise(layers):
        yield from itertools.product(layer, above)
    for layer in layers:
        yield from itertools.permutations(layer, 2)


def plant(source: Path, imports: Iterable[tuple[str, str]]) -> None:
    for importer, other in imports:
        path = source / modules()[importer].relative_to(ROOT / "src")
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\nimport {other}\n")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "1000"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def copied_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / "src" / package, folder / "src" / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


@pytest.fixture(scope="module")
def report_of_broken_contracts(copied_house: Path) -> str:
    """What ``lint-imports`` says of a copy into which all forbidden imports were planted."""
    assert (run := lint_imports(copied_house)).returncode == 0, run.stdout + run.stderr
    plant(copied_house / "src", itertools.chain.from_iterable(map(forbidden_imports, contracts())))
    return lint_imports(copied_house).stdout


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract["name"])
def test_a_contract_sees_each_import_that_it_forbids(
    contract: dict[str, Any], report_of_broken_contracts: str
) -> None:
    """Those from a layer to the one above it, and between the rooms of a layer."""
    title = f"\n{contract['name']}\n{'-' * len(contract['name'])}\n"
    _, _, report = report_of_broken_contracts.partition(title)
    report = re.split(r"\n\n.+\n-+\n", report, maxsplit=1)[0]  # up to the next contract's title
    planted = list(forbidden_imports(contract))
    assert planted
    assert [pair for pair in planted if f" {pair[0]} -> {pair[1]} (l." not in report] == []
