"""Which implementation an op takes, for the time of one call."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator

import torch

_MODULES = [importlib.import_module(f"stylegan_cli.ops.{name}") for name in ("bias_act", "upfirdn2d", "conv2d")]
_MODULES.append(importlib.import_module("stylegan_cli.ops.modulated_conv2d"))


def _always(path: str) -> Callable[[str, str], str]:
    def choose(impl: str, device: str) -> str:
        return impl if impl == "reference" else path

    return torch.compiler.assume_constant_result(choose)


_CHOICES = {path: _always(path) for path in ("reference", "composite")}


@contextlib.contextmanager
def forced(
    path: str,  # 'reference' or 'composite': PyTorch's own operations
) -> Iterator[None]:
    before = [module.choose for module in _MODULES]
    try:
        for module in _MODULES:
            module.choose = _CHOICES[path]
        yield
    finally:
        for module, choose in zip(_MODULES, before, strict=True):
            module.choose = choose


@contextlib.contextmanager
def fused(
    on: bool,  # whether modulated convolutions are made by the fused kernel, or by cuDNN between our kernels
) -> Iterator[None]:
    before = os.environ.get("SGAN_FUSED")
    try:
        os.environ["SGAN_FUSED"] = "1" if on else "0"
        yield
    finally:
        if before is None:
            del os.environ["SGAN_FUSED"]
        else:
            os.environ["SGAN_FUSED"] = before


def within(
    context: Callable[[], contextlib.AbstractContextManager],
    function: Callable,
) -> Callable:
    """The function, each call inside the context."""

    def inside(*arguments):
        with context():
            return function(*arguments)

    return inside
