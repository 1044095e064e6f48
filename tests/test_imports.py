"""The structure of the package: imports point down, without cycles; functions are short; families stay in their
folders; untrusted code is never run; torchvision is not needed.

`python tests/test_imports.py` writes the table of allowed imports to docs/architecture.md.
"""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stylegan_cli

PACKAGE = Path(stylegan_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
KERNELS = sorted((Path(__file__).parent.parent / "csrc").iterdir())
DOCS = Path(__file__).parent.parent / "docs" / "architecture.md"

# From top to bottom, with descriptions. Within a row, '|' separates siblings that do not import each other.
ORDER = [
    ("cli", "the commands, one file each: parse, call, write, print"),
    ("explore", "the explorer: a server, and the page in the browser"),
    ("session", "the operations that commands and notebooks share: requests in, results out"),
    ("training | inversion | metrics | interop", "training; projection and editing; metrics; checkpoints"),
    ("sampling", "seeds, truncation, mixing, interpolation, files that belong to a model"),
    ("snapshot runs", "snapshots; run folders, logs, the page of a run"),
    ("models", "the families, one folder each; their shared code; the registry"),
    ("detectors", "frozen networks that extract features; distances"),
    ("data", "datasets: from a zip or folder to uint8 tensors; packing"),
    ("layers", "the layers that networks share"),
    ("doctor", "checks of this machine and of the kernels"),
    ("ops", "the ops, one file each, and the fast path of the CPU"),
    ("kernels", "compiler search, build, cache of binaries"),
    ("distributed", "ranks and their communication"),
    ("cache download", "results that are slow to compute; downloads"),
    (
        "config errors files optimizers pickled progress tensors terminal threads version",
        "the basics that every part may use",
    ),
]
ROW = {name: row for row, (names, _) in enumerate(ORDER) for name in names.replace("|", " ").split()}
SIBLINGS = {row for row, (names, _) in enumerate(ORDER) if "|" in names}
ENTRY_POINTS = ((), ("__main__",))  # may import anything
BY_NAME = {"ids": lambda path: ".".join(name_of(path)) or "stylegan_cli"}


def name_of(path):
    """('ops', 'bias_act') for stylegan_cli/ops/bias_act.py; () for the package's own __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def imported(path, tree):
    """All imported dotted names as tuples of parts, including lazy imports. Relative names are made absolute."""
    here = ("stylegan_cli", *name_of(path))
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)


def imported_parts(path, tree):
    """The parts of the package that a module imports."""
    return {name[1] for name in imported(path, tree) if name[0] == "stylegan_cli" and name[1:2] and name[1] in ROW}


def may_import(part, other):
    return part == other or ROW[other] > ROW[part] or (ROW[other] == ROW[part] and ROW[part] not in SIBLINGS)


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_imports_point_down(path):
    name = name_of(path)
    if name in ENTRY_POINTS:
        return
    assert name[0] in ROW, f"{name[0]} is not in ORDER"
    forbidden = {other for other in imported_parts(path, tree_of(path)) if not may_import(name[0], other)}
    assert not forbidden, f"{'.'.join(name)} imports {', '.join(sorted(forbidden))}"


def test_the_import_check_itself():
    """It detects lazy and relative imports, and imports that point up."""
    path = PACKAGE / "ops" / "bias_act.py"
    source = (
        "def f():\n    from ..layers.conv import Conv\n    from .. import config\n    import stylegan_cli.data.images"
    )
    assert imported_parts(path, ast.parse(source)) == {"layers", "config", "data"}
    assert imported_parts(
        PACKAGE / "ops" / "__init__.py", ast.parse("from .bias_act import x\nfrom ..files import y")
    ) == {
        "ops",
        "files",
    }
    assert may_import("ops", "config") and may_import("snapshot", "runs") and may_import("training", "data")
    assert not may_import("ops", "layers") and not may_import("data", "models") and not may_import("config", "ops")
    assert not may_import("training", "metrics") and may_import("session", "training")


def without_type_checking(tree):
    """The tree without code that only a type checker reads."""

    class Remove(ast.NodeTransformer):
        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Remove().visit(ast.parse(ast.unparse(tree)))


def import_graph(sources):  # {path: tree} -> {module: modules that it imports, also lazily}
    modules = {("stylegan_cli", *name_of(path)) for path in sources}
    edges = {}
    for path, tree in sources.items():
        module = ("stylegan_cli", *name_of(path))
        names = imported(path, without_type_checking(tree))
        edges[module] = {name if name in modules else name[:-1] for name in names} & modules - {module}
    return edges


def test_no_import_cycle():
    graphlib.TopologicalSorter(import_graph({path: tree_of(path) for path in MODULES})).prepare()


def test_a_cycle_is_detected():
    a, b = PACKAGE / "ops" / "a.py", PACKAGE / "ops" / "b.py"
    sources = {a: ast.parse("from .b import x"), b: ast.parse("def f():\n    from . import a")}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(sources)).prepare()
    sources[b] = ast.parse("import typing\nif typing.TYPE_CHECKING:\n    from . import a")
    graphlib.TopologicalSorter(import_graph(sources)).prepare()


# ------------------------------------------------------------------------------------------ families


def words(tree):
    """Identifiers and strings, except docstrings, which may name families."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        for field in ("id", "attr", "name", "arg", "module"):
            if isinstance(value := getattr(node, field, None), str):
                yield value


def families_named(tree):
    from stylegan_cli.models.registry import FAMILIES

    names = [name for family in FAMILIES.values() for name in (family.name, family.config.__name__)]
    pattern = re.compile("|".join(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9]|_cli|-cli)" for name in names))
    return {match for word in words(tree) for match in pattern.findall(re.sub(r"https?://\S+", "", word))}


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p)[:1] not in (("models",), ("interop",))], **BY_NAME)
def test_only_models_and_interop_name_families(path):
    assert not families_named(tree_of(path))


def test_names_of_families_are_detected():
    source = 'def f(config):\n    """progan."""\n    return config.family == "stylegan" or "--cfg stylegan2"'
    assert families_named(ast.parse(source)) == {"stylegan", "stylegan2"}
    assert families_named(ast.parse("from ..models.progan import x")) == {"progan"}
    assert not families_named(ast.parse('import stylegan_cli; name = "stylegan_cli-state/1"'))


# ---------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_functions_and_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > 60}


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_sources_of_the_kernels_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), **BY_NAME)
def test_commands_are_short(path):
    """The body of a command, without options, parameters and the help text."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list):
            body = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
            assert body[-1].end_lineno - body[0].lineno + 1 <= 40, node.name


class RemoveNames(ast.NodeTransformer):
    """Replaces names, strings and numbers with placeholders."""

    def visit_Name(self, node):
        return ast.Name("n")

    def visit_Attribute(self, node):
        return ast.Attribute(self.visit(node.value), "n")

    def visit_JoinedStr(self, node):
        return ast.Constant(0)

    def visit_Constant(self, node):
        return ast.Constant(0) if isinstance(node.value, (str, int, float)) else node

    def visit_keyword(self, node):
        return ast.keyword(node.arg and "n", self.visit(node.value))


def line_windows(tree, length=10):
    """Every `length` consecutive lines of every function's body, without names, unless they repeat the same lines."""
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = [RemoveNames().visit(part) for part in ast.parse(ast.unparse(function)).body[0].body]
            lines = [
                line.strip() for part in body for line in ast.unparse(ast.fix_missing_locations(part)).splitlines()
            ]
            for start in range(len(lines) - length + 1):
                if len(set(lines[start : start + length])) > length // 2:
                    yield function.name, "\n".join(lines[start : start + length])


def duplicates(trees):  # {path: tree} -> pairs of (file, function)
    first, pairs = {}, set()
    for path, tree in trees.items():
        for name, text in line_windows(tree):
            place = (path.name, name)
            if first.setdefault(text, place) != place:
                pairs.add((first[text], place))
    return pairs


def test_no_ten_lines_are_duplicated():
    assert not duplicates({path: tree_of(path) for path in MODULES})


def test_duplicated_lines_are_detected():
    lines = "\n".join(f"    {'x' * (i + 1)}{i} = f{i}({', '.join('a' * (i + 1))})" for i in range(10))
    other = lines.replace("f", "g").replace("x", "y").replace("a,", "b,")
    trees = {PACKAGE / "a.py": ast.parse(f"def f():\n{lines}"), PACKAGE / "b.py": ast.parse(f"def g():\n{other}")}
    assert len(duplicates(trees)) == 1


# ---------------------------------------------------------------------------------------------- docs


def table():
    rows = [f"| {' '.join(f'`{n}`' if n != '|' else '·' for n in names.split())} | {about} |" for names, about in ORDER]
    return "\n".join(["| part | what it is for |", "|---|---|", *rows])


def test_the_table_in_the_docs_matches_the_order():
    assert table() in DOCS.read_text(encoding="utf-8"), "update it: python tests/test_imports.py"


# ---------------------------------------------------------------------------------- untrusted code


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_untrusted_code_is_never_run(path):
    tree = tree_of(path)
    packages = {name[0] for name in imported(path, tree)}
    assert not packages & {
        "pickle",
        "cPickle",
        "_pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "torchvision",
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name):
            assert function.id not in {"eval", "exec", "compile", "__import__"}, f"line {node.lineno}"
        keywords = {k.arg: k.value for k in node.keywords}
        called = ast.unparse(function)
        if called == "torch.load":
            assert ast.unparse(keywords.get("weights_only", ast.Constant(False))) == "True", f"line {node.lineno}"
        if called.endswith(("np.load", "numpy.load")):
            assert ast.unparse(keywords.get("allow_pickle", ast.Constant(False))) == "False", f"line {node.lineno}"


def test_every_folder_with_modules_is_a_package():
    assert not {p.parent for p in MODULES if not (p.parent / "__init__.py").is_file()}


def test_importing_the_package_is_light():
    code = "import sys, stylegan_cli, stylegan_cli.runs, stylegan_cli.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(
        re.sub(r"\| part \|.*?(?=\n\n)", lambda _: table(), text, count=1, flags=re.DOTALL), encoding="utf-8"
    )
