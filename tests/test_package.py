"""The wheel and the sdist: built without PyTorch, complete, with correct metadata."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import stylegan_cli

ROOT = Path(__file__).parents[1]
TOP = ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md"]

# Run setup.py without torch, as in pip's build environment.
BUILD = (
    "import runpy, sys; sys.modules['torch'] = None; "
    "sys.argv = ['setup.py', '-q', 'sdist', 'bdist_wheel']; runpy.run_path('setup.py', run_name='__main__')"
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """dist/ of a copy of the checkout, with an additional asset and kernel."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in TOP:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    for name in ("stylegan_cli", "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    (copy / "csrc" / "probe.cu").write_text("// a kernel\n")
    (copy / "stylegan_cli" / "assets" / "probe.safetensors").write_bytes(b"weights")
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return copy / "dist"


def expected_files():
    """The files of an installed package."""
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "stylegan_cli").rglob("*.py")}
    assets = {str(p.relative_to(ROOT)) for p in (ROOT / "stylegan_cli" / "assets").iterdir() if p.is_file()}
    return (
        modules
        | assets
        | {"stylegan_cli/csrc/library.cpp", "stylegan_cli/csrc/probe.cu", "stylegan_cli/assets/probe.safetensors"}
        | {"stylegan_cli/py.typed"}
    )


def test_wheel_is_complete(dist):
    (path,) = dist.glob("*.whl")
    assert path.name == f"stylegan_cli-{stylegan_cli.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    assert expected_files() <= names
    assert path.stat().st_size <= 12e6
    assert not {n for n in names if n.startswith(("tests/", "csrc/", "benchmarks/")) or n.endswith(".pyc")}


def test_sdist_is_complete(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {n.partition("/")[2] for n in sdist.getnames()}
    assert {n.replace("stylegan_cli/csrc/", "csrc/") for n in expected_files()} <= names
    assert {name for name in TOP if (ROOT / name).is_file()} <= names


def test_metadata(dist):
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        info = next(n for n in wheel.namelist() if n.endswith("/METADATA")).rpartition("/")[0]
        metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
        assert any(n.startswith(info) and n.endswith("LICENSE") for n in wheel.namelist())
    assert metadata["Name"] == "stylegan-cli"
    assert metadata["Version"] == stylegan_cli.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert "sgan = stylegan_cli.cli:main" in scripts
    core = {r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r}
    assert core == {
        "click>=8.4",
        "filelock",
        "ninja",
        "numpy",
        "pillow>=10.1",
        "safetensors",
        "scipy",
        "torch>=2.10",
        "tqdm",
    }
    assert set(metadata.get_all("Provides-Extra")) == {
        *("cuda", "demo", "docs", "heic", "lmdb", "lpips", "metrics", "onnx", "tb", "test", "video", "web"),
    }
