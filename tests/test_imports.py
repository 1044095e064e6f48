"""The order of the house: imports point down, nothing runs foreign code, nothing needs torchvision."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stylegan_cli

PACKAGE = Path(stylegan_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Highest first. Within a row, '|' parts siblings that don't know each other.
ORDER = """
cli
training | inversion | metrics | interop
sampling
snapshot runs
models | detectors
data
layers
ops
distributed
download
cache
config errors files pickled presets
""".strip().splitlines()
ROW = {name: row for row, names in enumerate(ORDER) for name in names.replace("|", " ").split()}
PARTED = {row for row, names in enumerate(ORDER) if "|" in names}


def name_of(path):
    """('ops', 'bias_act') for stylegan_cli/ops/bias_act.py; () for the package's own __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: ".".join(name_of(p)) or "stylegan_cli")
def test_imports_point_down(path):
    name = name_of(path)
    if name in ((), ("__main__",)):  # the two faces of the package may take what they show
        return
    assert name[0] in ROW, f"{name[0]} has no place in the order"
    up = {other for other in wings(path, ast.parse(path.read_text())) if not may_import(name[0], other)}
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


@pytest.mark.parametrize("path", MODULES, ids=lambda p: ".".join(name_of(p)) or "stylegan_cli")
def test_nothing_runs_foreign_code(path):
    tree = ast.parse(path.read_text())
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
