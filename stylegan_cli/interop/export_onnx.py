"""Export of a generator to ONNX, for onnxruntime, TensorRT or a browser. `graphs` describes inputs and outputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .. import ops
from ..errors import SganError
from ..files import atomic_path
from ..models.generator import Generator
from .graphs import dynamic_shapes, example_inputs, extract_part, largest_difference, metadata_of, quiet, trace

MAX_BYTES = 2_000_000_000  # of the weights: an ONNX file is limited to 2 GiB


def export_onnx(
    G: Generator,
    path: str | Path,  # .onnx
    part: str = "all",  # 'all', 'mapping' or 'synthesis', see `graphs`
) -> float | None:
    """Write the generator, or one half of it, with a dynamic batch size. The weights are in the file.

    Returns the largest difference between the outputs of onnxruntime and PyTorch, or None if onnxruntime is not
    installed. Raises SganError, and writes no file, if the difference is more than 1e-4, if the model is too large, or
    if the file cannot be written. Raises ModuleNotFoundError without onnxscript.
    """
    import onnxscript  # noqa: F401 (PyTorch's exporter needs it, and its own error message is less clear)

    module = extract_part(G, part)
    if sum(t.nbytes for t in module.state_dict().values()) > MAX_BYTES:
        raise SganError(
            "The model is larger than 2 GB, the limit of an ONNX file.",
            hint="Export one half with --part, or write .pt2.",
        )
    inputs = example_inputs(G, part, 2)
    program = trace(module, inputs)
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=dynamic_shapes(inputs),
            output_names=[module.output],
            verbose=False,
        )
    assert exported is not None  # only the old exporter (dynamo=False) returns nothing
    exported.model.metadata_props.update(metadata_of(G, part))
    with atomic_path(path) as temporary:
        exported.save(temporary, external_data=False)
        if importlib.util.find_spec("onnxruntime") is None:
            return None
        with ops.use("reference"):
            return largest_difference(module, G, part, _runtime(temporary))


def _runtime(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    import onnxruntime

    # It cannot open a path with undecodable bytes.
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(inputs: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])

    return run
