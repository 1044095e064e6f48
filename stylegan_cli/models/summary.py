"""Tables of the layers of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def parameter_count(
    network: nn.Module,
) -> int:
    return sum(p.numel() for p in network.parameters())


@torch.no_grad()
def summarize(
    title: str,
    network: nn.Module,
    *inputs: Tensor | None,  # inputs for one image, to determine the sizes
) -> str:
    """A table with a line for each module that has parameters of its own: name, output size, parameters."""
    sizes: dict[str, str] = {}
    hooks = [module.register_forward_hook(_size_hook(sizes, name)) for name, module in network.named_modules()]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    rows = [(title, "output", "parameters")]
    for name, module in network.named_modules():
        affine = [m for child, m in module.named_children() if child == "affine"]  # is counted with its layer
        count = sum(p.numel() for p in module.parameters(recurse=False)) + sum(map(parameter_count, affine))
        if count and not name.endswith(".affine"):
            rows.append((name, sizes.get(name, ""), f"{count:,}"))
    rows.append(("all", "", f"{parameter_count(network):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)


def _size_hook(sizes: dict[str, str], name: str):
    def hook(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        first = output[0] if isinstance(output, tuple) else output
        sizes[name] = " x ".join(str(n) for n in first.shape[1:])

    return hook
