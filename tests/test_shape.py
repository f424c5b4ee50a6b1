"""The shape of the source, as a ratchet: bounds for every module, and today's exceptions, which may only shrink.

Each table lists the exceptions of today with their figure. A new or a larger exception fails. A listed one that has
become smaller, or is none any more, fails too: the commit that improves it also lowers the table.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
ROOT = SRC / "headgate"

FILE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8
ENTRIES = 12

# Modules that import each other, in a circle.
CIRCLES: dict[str, int] = {}

# Files above FILE_LINES.
LONG_FILES: dict[str, int] = {}

# Functions above FUNCTION_LINES.
LONG_FUNCTIONS: dict[str, int] = {}

# Functions with more than PARAMETERS parameters, CLI commands and routes apart: those have one for each option.
MANY_PARAMETERS: dict[str, int] = {}

# Folders with more than ENTRIES modules and folders.
FULL_FOLDERS: dict[str, int] = {}

# Classes of the same name. A name that stands for two things is renamed; a port and its implementation may share one.
SAME_NAMES: dict[str, int] = {
    "Provider": 2,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_no_import_circle() -> None:
    hold(
        "CIRCLES",
        CIRCLES,
        {" <-> ".join(name.removeprefix("headgate.") for name in circle): len(circle) for circle in circles(imports())},
    )


def test_files_are_short() -> None:
    lines = {short(path): len(text.splitlines()) for path, (text, _) in sources().items()}
    hold("LONG_FILES", LONG_FILES, above(lines, FILE_LINES))


def test_functions_are_short() -> None:
    lines = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}
    hold("LONG_FUNCTIONS", LONG_FUNCTIONS, above(lines, FUNCTION_LINES))


def test_functions_have_few_parameters() -> None:
    counts = {name: parameters(node) for name, node in functions() if not is_endpoint(node)}
    hold("MANY_PARAMETERS", MANY_PARAMETERS, above(counts, PARAMETERS))


def test_folders_have_few_entries() -> None:
    entries: defaultdict[str, set[str]] = defaultdict(set)
    for path in sources():
        while path != ROOT:
            entries[short(path.parent)].add(path.name)
            path = path.parent
    # The root is the list of rooms, which the import contract names one by one; migrations are a log, which only grows
    lists = (short(ROOT), short(ROOT / "control" / "store" / "migrations" / "versions"))
    counts = {folder: len(names - {"__init__.py"}) for folder, names in entries.items() if folder not in lists}
    hold("FULL_FOLDERS", FULL_FOLDERS, above(counts, ENTRIES))


def test_class_names_are_unique() -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    for _, tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                counts[node.name] += 1
    hold("SAME_NAMES", SAME_NAMES, above(counts, 1))


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert circles(graph) == [("a", "b", "c")]


def hold(table: str, listed: dict[str, int], found: dict[str, int]) -> None:
    """Fail with the lines of the table to change, if the exceptions that were found differ from those listed."""
    wrong = [
        f'  "{name}": {count} (listed: {listed.get(name, "no")}) is over the bound: make it smaller'
        for name, count in sorted(found.items())
        if count > listed.get(name, 0)
    ]
    for name, figure in listed.items():
        if name not in found:
            wrong.append(f'  "{name}": {figure} is no exception any more: delete this line')
        elif found[name] < figure:
            wrong.append(f'  "{name}": {figure} has become smaller: change this line to {found[name]}')
    assert not wrong, "\n".join([f"tests/test_shape.py, table {table}:", *wrong])


def above(counts: dict[str, int], bound: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count > bound}


@cache
def sources() -> dict[Path, tuple[str, ast.Module]]:
    texts = {path: path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}


def short(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def functions() -> Iterator[tuple[str, Function]]:
    """Yield each function with its path and qualified name, nested ones too."""

    def within(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}.{child.name}" if isinstance(child, Function | ast.ClassDef) else prefix
            if isinstance(child, Function):
                yield name, child
            yield from within(child, name)

    for path, (_, tree) in sources().items():
        for name, node in within(tree, ""):
            yield f"{short(path)}:{name.removeprefix('.')}", node


def parameters(node: Function) -> int:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([argument for argument in named if argument.arg not in ("self", "cls")])


def is_endpoint(node: Function) -> bool:
    """True for a CLI command (its parameters are Typer's) or a route (decorated with `@router.get(…)` or its like)."""
    methods = {"get", "post", "put", "patch", "delete"}
    calls = [decorator.func for decorator in node.decorator_list if isinstance(decorator, ast.Call)]
    is_route = any(isinstance(call, ast.Attribute) and call.attr in methods for call in calls)
    return is_route or "typer." in ast.unparse(node.args)


def imports() -> dict[str, set[str]]:
    """Return the modules that each module imports, also inside functions and for types only."""
    names = {
        path: ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__") for path in sources()
    }
    modules = set(names.values())
    graph: dict[str, set[str]] = {}
    for path, (_, tree) in sources().items():
        package = path.parent.relative_to(SRC).parts
        targets: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above_it = package[: len(package) + 1 - node.level] if node.level else ()
                base = ".".join((*above_it, *([node.module] if node.module else ())))
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    targets.add(inner if inner in modules else base)
        graph[names[path]] = (targets & modules) - {names[path]}
    return graph


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Return the groups of modules that reach one another (strongly connected components)."""
    reached = {name: reach(graph, name) for name in graph}
    groups = {tuple(sorted(m for m in reached[name] if name in reached[m])) for name in graph if name in reached[name]}
    return sorted(groups)


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    open_ = list(graph[start])
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_.extend(graph[name])
    return found
