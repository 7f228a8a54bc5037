"""What holds of the house as a whole: sizes, names, copies, and imports that point one way without a circle."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted(path for top in ("uapgen", "attacks", "victims") for path in (ROOT / top).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
WINDOW = 6  # equal lines of code in a row that count as a copy

# Each row may import the rows below it and its own; the page of ARCHITECTURE.md that says so has the reasons.
LAYERS = (
    ("cli",),
    ("report", "testing", "compare", "longtail", "hardening", "doctor"),
    ("gate", "evaluation", "attacks", "experiments", "interop"),
    ("gan", "proxies", "defences", "detect"),
    ("victims", "perturbation", "images"),
    ("distributed", "runtime", "runfolder", "lock", "errors", "tables", "schema", "userfunction", "tensorboard"),
)


def name(path: Path) -> str:
    """The module of a file, as it is imported: attacks/sga.py is uapgen.attacks.sga."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "uapgen" else ["uapgen", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name(path): path for path in FILES}


def imports(body: list[ast.stmt], nested: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run with the module; with `nested`, those inside functions too; never TYPE_CHECKING's."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from imports(node.orelse, nested)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not nested:
            continue
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from imports(getattr(node, field, []), nested)
            for handler in getattr(node, "handlers", []):
                yield from imports(handler.body, nested)


def imported(module: str, *, nested: bool) -> set[str]:
    """The modules of the house that `module` imports."""
    path, found = MODULES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in imports(TREES[path].body, nested):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join(base + ([node.module] if node.module else []))
        found |= {f"{source}.{a.name}" if f"{source}.{a.name}" in MODULES else source for a in node.names}
    return {other for other in found if other in MODULES and other not in (module, "uapgen")}


def test_there_are_not_many_files_and_none_is_long() -> None:
    assert len(FILES) <= 200
    assert {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > 250} == {}


def test_no_public_class_has_its_name_from_another() -> None:
    homes = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(ROOT)))
    assert {title: paths for title, paths in homes.items() if len(paths) > 1} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_functions_are_short() -> None:
    long = {}
    for where, node in functions():
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        lines = (node.end_lineno or 0) - first.lineno + 1 + (node.body[0].lineno - node.lineno)
        if lines > 60:
            long[where] = lines
    assert long == {}


def test_functions_take_few_parameters() -> None:
    """Click commands are spared: each of their parameters is an option that a user sees."""
    many = {}
    for where, node in functions():
        if any("command" in ast.dump(decorator) for decorator in node.decorator_list):
            continue
        arguments = node.args
        taken = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs) if a.arg != "self"]
        if len(taken) > 12:
            many[where] = len(taken)
    assert many == {}


def test_imports_run_in_no_circle() -> None:
    graph = {module: imported(module, nested=False) for module in MODULES}
    for module, others in graph.items():  # importing a.b.c runs a.b first, except from inside it
        for other in list(others):
            parts = other.split(".")
            outer = {".".join(parts[:i]) for i in range(2, len(parts))}
            others |= {p for p in outer if p != module and not module.startswith(f"{p}.")}
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == 1:
            pytest.fail("imports run in a circle: " + " -> ".join((*path[path.index(module) :], module)))
        if module not in state:
            state[module] = 1
            for other in sorted(graph[module]):
                visit(other, (*path, module))
            state[module] = 2
            order.append(module)

    for module in graph:
        visit(module, ())
    assert len(order) == len(graph)


def test_imports_point_one_way() -> None:
    level = {part: i for i, row in enumerate(LAYERS) for part in row}
    assert {module.split(".")[1] for module in MODULES if "." in module} - set(level) == {"__main__"}
    wrong = {}
    for module in MODULES:
        part = module.split(".")[1] if "." in module else "__main__"
        if part in level:
            up = sorted(o for o in imported(module, nested=True) if level[o.split(".")[1]] < level[part])
            wrong |= {module: up} if up else {}
    assert wrong == {}


def code_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of lines of code: no blank ones, comments, docstrings, imports or lone brackets."""
    tree, skipped = TREES[path], set[int]()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # type: ignore[attr-defined]
    lines = [(i, line.strip()) for i, line in enumerate(path.read_text().splitlines(), 1) if i not in skipped]
    return [(i, line) for i, line in lines if line.strip("()[]{},:") and not line.startswith("#")]


def test_nothing_is_written_twice() -> None:
    """No six lines of code in a row stand in two places; indentation aside."""
    seen: dict[tuple[str, ...], str] = {}
    copies = []
    for path in FILES:
        lines = code_lines(path)
        for start in range(len(lines) - WINDOW + 1):
            window = lines[start : start + WINDOW]
            if any(b[0] - a[0] > 3 for a, b in pairwise(window)):
                continue  # a docstring or a section lies between
            key = tuple(text for _, text in window)
            where = f"{path.relative_to(ROOT)}:{window[0][0]}"
            if key in seen:
                copies.append((seen[key], where))
            seen.setdefault(key, where)
    assert copies == []
