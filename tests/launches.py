"""Count the kernels that code would launch on a GPU, and the bytes that they move, without one.

Operations on meta tensors are dispatched as they would be on a GPU, but compute nothing. What is counted is a model:
every operation that is not a view launches one kernel, which reads each operand once and writes its result once, with
the exceptions below. Caches, workspaces and the layouts that cuDNN converts to internally are not counted, except that
PyTorch copies the weights of a convolution to the layout of its image.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_cli.ops.dispatch import kernels_on, use

DEVICE = torch.device("meta")
NOTHING = {  # allocate, or only look
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias"),
    *("lift_fresh", "_efficientzerotensor"),
}
FILL_AND_COPY = ("constant_pad_nd", "slice_backward", "select_backward")
WITHOUT_READING = ("fill_", "zero_", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
# Operations on lists of tensors -> how many lists their kernel walks, and which of them it changes.
LISTS = {
    "_fused_adam_": (4, (0, 2, 3)),
    "_foreach_add_": (1, (0,)),
    "_foreach_sub_": (2, (0,)),
    "_foreach_norm": (1, ()),
}
LISTS |= {"_foreach_lerp_": (2, (0,)), "_foreach_copy_": (2, ())}
# ATen/native/cuda/MultiTensorApply.cuh: tensors and blocks of one launch, and numbers of one block.
TENSORS_OF_LAUNCH, BLOCKS_OF_LAUNCH, NUMBERS_OF_BLOCK = {1: 110, 2: 64, 3: 48, 4: 36}, 320, 65536


@dataclass
class Count:
    launches: int = 0
    bytes: int = 0
    by_op: Counter[str] = field(default_factory=Counter)  # launches
    bytes_by_op: Counter[str] = field(default_factory=Counter)
    synchronizations: int = 0  # the host waits for a number

    def add(self, op: str, launches: int, moved: int) -> None:
        self.launches += launches
        self.bytes += moved
        self.by_op[op] += launches
        self.bytes_by_op[op] += moved

    def table(self) -> str:
        rows = sorted(self.by_op, key=lambda op: -self.bytes_by_op[op])
        return "\n".join(f"{op:<32} {self.by_op[op]:5} launches {self.bytes_by_op[op] / 1e6:9.2f} MB" for op in rows)


class Launches(TorchDispatchMode):
    """Counts what happens within it."""

    def __init__(self):
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = op.overloadpacket.__name__
        if name == "_local_scalar_dense" and args[0].device == DEVICE:
            self.count.synchronizations += 1
            return 0.0 if args[0].is_floating_point() else 0
        result = None if name == "_fused_adam_" else op(*args, **kwargs)
        if name.startswith("convolution"):
            result = pytree.tree_map(functools.partial(_laid_out, _convolution_operands(name, args)), result)
        operands, results = _tensors((args, kwargs)), _tensors(result)
        if any(t.device == DEVICE for t in (*operands, *results)) and not op.is_view and name not in NOTHING:
            self.count.add(name, *cost(name, args, operands, results))
        return result


def cost(name: str, args: tuple, operands: list[Tensor], results: list[Tensor]) -> tuple[int, int]:
    """Launches and bytes of one operation."""
    if name.startswith("convolution"):
        return _convolution_cost(name, args, operands, results)
    if name in ("epilogue_backward", "epilogue_double_backward"):  # the second kernel adds up the sums of all blocks
        sums = any(t.numel() for t in results if t.shape != results[0].shape)
        return 1 + sums, size_of(*operands, *results)
    if name == "modulated_conv2d":  # of w it takes the sizes; what it reads is the packed weight
        return 1, size_of(*(t for t in operands if t is not args[1]), *results)
    if name in LISTS:
        lists, changed = LISTS[name]
        written = [t for i in changed for t in args[i]]
        return multi_tensor_launches(args[0], lists), size_of(*operands, *results, *written)
    if name == "copy_":
        return 1, size_of(*operands)
    if name in WITHOUT_READING:
        return 1, size_of(*results)
    if name in FILL_AND_COPY:
        return 2, size_of(*results, *operands, *operands)
    # What is changed in place is an operand and a result.
    return 1, size_of(*operands, *results)


def size_of(*tensors: Tensor | None) -> int:
    """Bytes of the memory behind tensors: what an expanded one repeats counts once."""
    total = 0
    for t in tensors:
        if t is not None:
            total += t.element_size() * math.prod(n for n, s in zip(t.shape, t.stride(), strict=True) if s or not n)
    return total


def multi_tensor_launches(tensors: list[Tensor], lists: int) -> int:
    """Launches of a kernel that walks lists of tensors, which arrive as arguments of limited size."""
    by_type = Counter((t.device, t.dtype) for t in tensors)
    blocks = sum(-(-t.numel() // NUMBERS_OF_BLOCK) for t in tensors)
    return max(sum(-(-n // TENSORS_OF_LAUNCH[lists]) for n in by_type.values()), -(-blocks // BLOCKS_OF_LAUNCH))


def _convolution_operands(name: str, args: tuple) -> list[Tensor]:
    """The tensors that a convolution reads."""
    if name == "convolution":
        return list(args[:2])
    dy, x, w, *_, mask = args
    return [dy, *([w] if mask[0] else []), *([x] if mask[1] else [])]


def _convolution_layout(operands: list[Tensor]) -> torch.memory_format:
    """cuDNN runs channels-last if any operand is, except one that has both layouts."""
    last = [t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in operands]
    return torch.channels_last if any(last) else torch.contiguous_format


def _laid_out(operands: list[Tensor], result: Tensor | None) -> Tensor | None:
    """A result as cuDNN leaves it; convolutions of meta tensors ignore the layouts of some operands."""
    if result is None or result.ndim != 4:
        return result
    return result.contiguous(memory_format=_convolution_layout(operands))


def _convolution_cost(name: str, args: tuple, operands: list[Tensor], results: list[Tensor]) -> tuple[int, int]:
    """One kernel for each result, and copies that give the operands one layout."""
    read = _convolution_operands(name, args)
    layout = _convolution_layout(read)
    copied = [t for t in read if not t.is_contiguous(memory_format=layout)]
    moved = sum(size_of(t) + t.numel() * t.element_size() for t in copied)
    if name == "convolution":
        return 1 + len(copied), moved + size_of(*operands, *results)
    dy, x, w, *_, mask = args
    moved += mask[0] * size_of(dy, w, x) + mask[1] * size_of(dy, x, w) + mask[2] * size_of(dy)
    return sum(mask) + len(copied), moved


def count(
    function: Callable[[], object],
    implementation: str = "auto",  # of the ops, see `ops.use`
) -> Count:
    """Count the launches of a function of meta tensors."""
    with kernels_on(DEVICE.type), use(implementation), Launches() as mode:
        function()
    return mode.count


def _tensors(tree: object) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]
