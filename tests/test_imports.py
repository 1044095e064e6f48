"""The order of the house: imports point down, without cycles; functions fit a screen; families keep to their folders;
nothing runs foreign code, nothing needs torchvision.

`python tests/test_imports.py` writes the table of who may import whom to docs/architecture.md.
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
DOCS = Path(__file__).parent.parent / "docs" / "architecture.md"

# Highest first: what a part is for. Within a row, '|' parts siblings that don't know each other.
ORDER = [
    ("cli", "one file for each command: parse, call, write, print"),
    ("session", "what commands, notebooks and other faces share: requests in, results out"),
    ("training | inversion | metrics | interop", "how models learn, are searched, measured and exchanged"),
    ("sampling", "seeds, truncation, mixing, interpolation, files bound to a model"),
    ("snapshot runs", "one file, one model; run folders, records, the page of a run"),
    ("models", "the families, each in its folder; what they share; the registry"),
    ("detectors", "frozen networks that look at images; distances"),
    ("data", "zip or folder to uint8 tensors; packing"),
    ("layers", "one definition of each layer"),
    ("doctor", "what this machine can do: kernels checked against their references"),
    ("ops", "one file for each op, and the CPU's fast path"),
    ("kernels", "compiler search, build, cache of binaries"),
    ("distributed", "ranks and what they exchange"),
    ("cache download", "what took long to make or came from elsewhere"),
    ("config errors files pickled progress terminal threads version", "the ground"),
]
ROW = {name: row for row, (names, _) in enumerate(ORDER) for name in names.replace("|", " ").split()}
PARTED = {row for row, (names, _) in enumerate(ORDER) if "|" in names}
FACES = ((), ("__main__",))  # they may take what they show
BY_NAME = {"ids": lambda path: ".".join(name_of(path)) or "stylegan_cli"}


def name_of(path):
    """('ops', 'bias_act') for stylegan_cli/ops/bias_act.py; () for the package's own __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def imported(path, tree):
    """Every imported dotted name, as a tuple of parts, wherever the import stands; relative ones made absolute."""
    here = ("stylegan_cli", *name_of(path))
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, alias.name) for alias in node.names)


def wings(path, tree):
    """The parts of the package that a module imports."""
    return {name[1] for name in imported(path, tree) if name[0] == "stylegan_cli" and name[1:2] and name[1] in ROW}


def may_import(mine, other):
    return mine == other or ROW[other] > ROW[mine] or (ROW[other] == ROW[mine] and ROW[mine] not in PARTED)


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_imports_point_down(path):
    name = name_of(path)
    if name in FACES:
        return
    assert name[0] in ROW, f"{name[0]} has no place in the order"
    up = {other for other in wings(path, tree_of(path)) if not may_import(name[0], other)}
    assert not up, f"{'.'.join(name)} imports {', '.join(sorted(up))}"


def test_the_order_is_enforced():
    """The rule itself: it sees lazy and relative imports, and knows up from down."""
    path = PACKAGE / "ops" / "bias_act.py"
    source = (
        "def f():\n    from ..layers.conv import Conv\n    from .. import config\n    import stylegan_cli.data.images"
    )
    assert wings(path, ast.parse(source)) == {"layers", "config", "data"}
    assert wings(PACKAGE / "ops" / "__init__.py", ast.parse("from .bias_act import x\nfrom ..files import y")) == {
        "ops",
        "files",
    }
    assert may_import("ops", "config") and may_import("snapshot", "runs") and may_import("training", "data")
    assert not may_import("ops", "layers") and not may_import("data", "models") and not may_import("config", "ops")
    assert not may_import("training", "metrics") and may_import("session", "training")


def without_type_checking(tree):
    """The tree without what only a type checker reads."""

    class Remove(ast.NodeTransformer):
        def visit_If(self, node):
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Remove().visit(ast.parse(ast.unparse(tree)))


def graph(sources):  # {path: tree} -> {module: modules that it imports, also lazily}
    known = {("stylegan_cli", *name_of(path)) for path in sources}
    edges = {}
    for path, tree in sources.items():
        me = ("stylegan_cli", *name_of(path))
        names = imported(path, without_type_checking(tree))
        edges[me] = {name if name in known else name[:-1] for name in names} & known - {me}
    return edges


def test_no_import_cycle():
    graphlib.TopologicalSorter(graph({path: tree_of(path) for path in MODULES})).prepare()


def test_a_cycle_is_seen():
    a, b = PACKAGE / "ops" / "a.py", PACKAGE / "ops" / "b.py"
    sources = {a: ast.parse("from .b import x"), b: ast.parse("def f():\n    from . import a")}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph(sources)).prepare()
    sources[b] = ast.parse("import typing\nif typing.TYPE_CHECKING:\n    from . import a")
    graphlib.TopologicalSorter(graph(sources)).prepare()


# ------------------------------------------------------------------------------------------ families


def words(tree):
    """Identifiers and strings, without docstrings: they may cite whom they like."""
    cited = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in cited:
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
def test_families_are_named_in_their_folders_and_in_interop_alone(path):
    assert not families_named(tree_of(path))


def test_a_family_that_is_named_is_seen():
    named = 'def f(config):\n    """progan."""\n    return config.family == "stylegan" or "--cfg stylegan2"'
    assert families_named(ast.parse(named)) == {"stylegan", "stylegan2"}
    assert families_named(ast.parse("from ..models.progan import x")) == {"progan"}
    assert not families_named(ast.parse('import stylegan_cli; name = "stylegan_cli-state/1"'))


# ---------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_a_function_fits_a_screen_and_a_file_has_one_subject(path):
    assert len(path.read_text().splitlines()) <= 400
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > 60}


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), **BY_NAME)
def test_a_command_parses_calls_writes_and_prints(path):
    """Its body, without options, parameters and the help text."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list):
            body = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
            assert body[-1].end_lineno - body[0].lineno + 1 <= 40, node.name


class Nameless(ast.NodeTransformer):
    """What stays of code when names, strings and numbers are alike."""

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


def stretches(tree, length=10):
    """Every `length` lines of every function's body, without names, unless they are one line over and over."""
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = [Nameless().visit(part) for part in ast.parse(ast.unparse(function)).body[0].body]
            lines = [
                line.strip() for part in body for line in ast.unparse(ast.fix_missing_locations(part)).splitlines()
            ]
            for start in range(len(lines) - length + 1):
                if len(set(lines[start : start + length])) > length // 2:
                    yield function.name, "\n".join(lines[start : start + length])


def repeated(trees):  # {path: tree} -> pairs of places
    seen, found = {}, set()
    for path, tree in trees.items():
        for name, text in stretches(tree):
            place = (path.name, name)
            if seen.setdefault(text, place) != place:
                found.add((seen[text], place))
    return found


def test_no_ten_lines_stand_twice():
    assert not repeated({path: tree_of(path) for path in MODULES})


def test_ten_lines_that_stand_twice_are_seen():
    lines = "\n".join(f"    {'x' * (i + 1)}{i} = f{i}({', '.join('a' * (i + 1))})" for i in range(10))
    other = lines.replace("f", "g").replace("x", "y").replace("a,", "b,")
    trees = {PACKAGE / "a.py": ast.parse(f"def f():\n{lines}"), PACKAGE / "b.py": ast.parse(f"def g():\n{other}")}
    assert len(repeated(trees)) == 1


# ---------------------------------------------------------------------------------------------- docs


def table():
    rows = [f"| {' '.join(f'`{n}`' if n != '|' else '·' for n in names.split())} | {about} |" for names, about in ORDER]
    return "\n".join(["| part | what it is for |", "|---|---|", *rows])


def test_the_table_in_the_docs_is_this_order():
    assert table() in DOCS.read_text(encoding="utf-8"), "write it anew: python tests/test_imports.py"


# ---------------------------------------------------------------------------------- foreign code


@pytest.mark.parametrize("path", MODULES, **BY_NAME)
def test_nothing_runs_foreign_code(path):
    tree = tree_of(path)
    tops = {name[0] for name in imported(path, tree)}
    assert not tops & {
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
