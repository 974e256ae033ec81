"""The structure of the sources: layers of imports, lengths of functions and of files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ENGINE_SOURCES, ROOT

PACKAGE = ROOT / "nkblas"

LAYERS = (
    "base",
    "system",
    "codegen",
    "planning",
    "cache",
    "runtime",
    "api",
    "inspect",
    "cli",
)
"""The package's Python folders: each may import those before it and its own modules."""

BELOW = ("nkblas._engine", "nkblas._numpy_ext")
"""The compiled modules: any folder may import them."""

PUBLIC = {
    "nkblas.__init__": "inspect",
    "nkblas.__main__": "cli",
    "nkblas.blas": "api",
    "nkblas.dask": "inspect",
}
"""Modules in no folder, since users import them by these names: the layer of each."""

EXEMPT = {"nkblas.engine.build", "nkblas.engine.tables", "nkblas.engine.stub"}
"""Programs that build the package."""

MAX_FUNCTION_LINES = 80
MAX_C_LINES = 500

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> Iterator[tuple[str, ast.stmt, bool]]:
    """The imports of nkblas in a module: imported module, statement, whether in a function."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    package = module.removesuffix(".__init__") if module.endswith("__init__") else module
    package = package if module.endswith("__init__") else module.rpartition(".")[0]
    top = set(tree.body) | {
        statement
        for node in tree.body
        if isinstance(node, ast.If | ast.Try)
        for statement in ast.walk(node)
        if isinstance(statement, ast.stmt)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*parts, node.module or ""]).rstrip(".") if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "nkblas":
                yield module_of(name), node, node not in top


def module_of(name: str) -> str:
    """The module with a dotted name, or the one that defines it."""
    while name not in MODULES and f"{name}.__init__" not in MODULES and name not in BELOW:
        name = name.rpartition(".")[0]
    return name if name in MODULES or name in BELOW else f"{name}.__init__"


def layer(module: str) -> int:
    if module in PUBLIC:
        return LAYERS.index(PUBLIC[module])
    return LAYERS.index(module.split(".")[1])


@pytest.mark.parametrize("module", [x for x in MODULES if x not in EXEMPT])
def test_imports_go_downward(module: str) -> None:
    for imported, *_ in imports(module):
        if imported in BELOW or imported in EXEMPT:
            continue
        assert layer(imported) <= layer(module), f"{module} imports {imported}"


def test_no_import_cycle() -> None:
    graph = {
        module: {
            imported
            for imported, *_ in imports(module)
            if imported in MODULES and imported not in ("nkblas.__init__", module)
        }
        for module in MODULES
        if module not in EXEMPT
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_hidden_imports_have_a_reason(module: str) -> None:
    """An import in a function says why it is there, in a comment before it or beside it."""
    lines = MODULES[module].read_text("utf-8").splitlines()
    tree = ast.parse("\n".join(lines))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                first = node.lineno - 1
                while is_import(lines[first - 1]):
                    first -= 1
                before, own = lines[first - 1].strip(), lines[first : node.end_lineno]
                has_reason = before.startswith("#") or any("# " in line for line in own)
                assert has_reason, f"{module}, line {node.lineno}"


def is_import(line: str) -> bool:
    return line.strip().startswith(("import ", "from "))


PYTHON = [
    path
    for folder in ("nkblas", "bench", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short(path: Path) -> None:
    """A longer function says why in a comment "# long: ..." in its first lines."""
    lines = path.read_text("utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            body = node.body
            if ast.get_docstring(node) is not None:
                body = body[1:]
            first = body[0].lineno if body else node.lineno
            length = (node.end_lineno or first) - first + 1
            has_reason = any("# long: " in line for line in lines[node.lineno - 2 : first])
            assert length <= MAX_FUNCTION_LINES or has_reason, (node.name, length)


C_SOURCES = [
    path
    for folder in (ENGINE_SOURCES, PACKAGE / "numpy_ext")
    for path in sorted(folder.glob("*.[ch]"))
]


@pytest.mark.parametrize("path", C_SOURCES, ids=lambda path: path.name)
def test_c_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_C_LINES


def test_no_module_is_named_like_a_public_function() -> None:
    """`nkblas.gemm` is the function, whatever has been imported."""
    exported = {line.strip(' ",') for line in public_names()}
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {x.name for x in PACKAGE.iterdir()}
    assert not (exported - {"blas"}) & modules


def public_names() -> Iterator[str]:
    for node in ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            yield from ast.literal_eval(node.value)
