"""Writing a model in any supported format, selected by the file extension."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import MisuseError
from ..snapshot import Snapshot
from .conversion import convert

FORMATS = {
    ".safetensors": "snapshot",
    ".pt": "rosinality",
    ".pkl": "NVIDIA",
    ".onnx": "ONNX",
    ".pt2": "torch.export",
}
_GRAPHS = (".onnx", ".pt2")


@dataclass(frozen=True)
class Output:
    """The output file and its options. Raises SganError if the options do not apply to the format."""

    path: Path
    half: bool = False  # for .safetensors: half precision
    discriminator: bool = True  # whether to include it
    repository: str | None = None  # for .pkl: the NVIDIA repository that will read it, 'ada' or 'sg3'
    part: str = "all"  # for .onnx and .pt2: 'all', 'mapping' or 'synthesis'

    @property
    def extension(self) -> str:
        return self.path.suffix.lower()

    def __post_init__(self) -> None:
        if self.extension not in FORMATS:
            known = ", ".join(f"{extension} ({format})" for extension, format in FORMATS.items())
            raise MisuseError(f"{self.path} does not have the extension of a model format.", hint=f"Use {known}.")
        if self.repository is None and self.extension == ".pkl":
            raise MisuseError(
                f"Writing {self.path} requires --for, the repository that will read it.",
                hint="Use --for ada or --for sg3.",
            )
        if self.repository is not None and self.extension != ".pkl":
            raise MisuseError(f"--for applies only to .pkl files, not to {self.path}.", hint="Remove --for.")
        if self.half and self.extension != ".safetensors":
            raise MisuseError(f"--half applies only to .safetensors files, not to {self.path}.", hint="Remove --half.")
        if self.part != "all" and self.extension not in _GRAPHS:
            raise MisuseError(
                f"--part applies only to .onnx and .pt2 files, not to {self.path}.", hint="Remove --part."
            )
        if not self.discriminator and self.extension in _GRAPHS:
            message = f"--drop-discriminator has no effect: {self.extension} files never contain one."
            raise MisuseError(message, hint="Remove --drop-discriminator.")


def write_model(
    model: Snapshot,
    output: Output,
) -> list[str]:  # warnings
    """Write a model. Raises SganError if the format does not support it, or if the file cannot be written."""
    D = model.D if output.discriminator else None
    if output.extension == ".safetensors":
        convert(model, output.path, dtype=torch.float16 if output.half else None, discriminator=output.discriminator)
    elif output.extension == ".pt":
        from .rosinality_writer import write_rosinality

        write_rosinality(output.path, model.G, D)
    elif output.repository is not None:
        from .nvidia_writer import write_nvidia

        write_nvidia(output.path, model.G, D, output.repository)
    elif output.extension == ".onnx":
        from .export_onnx import export_onnx

        if export_onnx(model.G, output.path, output.part) is None:
            return ["The file was not compared with PyTorch, because onnxruntime is missing: pip install onnxruntime"]
    else:
        from .export_torch import export_torch

        export_torch(model.G, output.path, output.part)
    return []
