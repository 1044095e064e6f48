"""A device like Apple's GPUs, for machines without one: its tensors are on the CPU, and say that they are not.

They say that they are on PyTorch's device 'meta', because every build can differentiate tensors there. Like Apple's, it
has no float64; an operation on its tensors and others, except single numbers, is an error.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")


class FakeTensor(torch.Tensor):
    content: torch.Tensor  # on the CPU

    @staticmethod
    def __new__(cls, content):
        layout = {"strides": content.stride(), "storage_offset": content.storage_offset(), "dtype": content.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, content.size(), device=DEVICE, **layout)
        tensor.content = content
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __format__(self, spec):
        return format(self.content, spec)

    def __getitem__(self, index):  # PyTorch makes a tensor without values of a list
        return super().__getitem__(torch.tensor(index) if isinstance(index, list) else index)

    def tolist(self):
        return self.content.tolist()

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return call(op, args, kwargs or {})


class Factories(TorchFunctionMode):
    """torch.tensor(values, device='meta') drops the values before they get to an operation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and (device := kwargs.pop("device", None)) is not None:
            return torch.tensor(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class FakeGPU(TorchDispatchMode):
    """Within it, the device has memory and computes. `ops` collects the names of the operations that it ran."""

    def __init__(self):
        super().__init__()
        self.ops, self.factories = set(), Factories()

    def __enter__(self):
        """Views of inference tensors have no place for the content, so inference is without gradients only."""
        self.inference = torch.inference_mode.__enter__, torch.inference_mode.__exit__
        torch.inference_mode.__enter__, torch.inference_mode.__exit__ = _no_grad, _grad_again
        self.factories.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        torch.inference_mode.__enter__, torch.inference_mode.__exit__ = self.inference
        super().__exit__(*error)
        self.factories.__exit__(*error)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if any(isinstance(x, FakeTensor) for x in pytree.tree_leaves((args, kwargs))):
            self.ops.add(op.overloadpacket.__name__)
        return call(op, args, kwargs or {})


def call(op, args, kwargs):
    leaves = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    fakes = {id(x.content): x for x in leaves if isinstance(x, FakeTensor)}
    if fakes and op.overloadpacket.__name__ not in ("copy_", "_to_copy", "index", "_index_put_impl_", "index_put_"):
        mixed = [x for x in leaves if not isinstance(x, FakeTensor) and x.ndim > 0]
        assert not mixed, f"{op} of tensors on two devices"
    target = kwargs.get("device")
    on_fake = bool(fakes) if target is None else torch.device(target).type == DEVICE.type
    results = op(*pytree.tree_map(_real, args), **pytree.tree_map(_real, kwargs))

    def wrap(x):
        if not isinstance(x, torch.Tensor) or not on_fake:
            return x
        if x.dtype == torch.float64:
            raise TypeError(f"{op}: the device has no float64")
        return fakes.get(id(x)) if id(x) in fakes else FakeTensor(x)

    return pytree.tree_map(wrap, results)


def _no_grad(context):
    context.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _grad_again(context, *error):
    torch.set_grad_enabled(context.before)


def _real(x):
    if isinstance(x, FakeTensor):
        return x.content
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == DEVICE.type else x
