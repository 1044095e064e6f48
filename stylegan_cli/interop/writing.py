"""A model in any of the forms that are written here: the ending of the file's name says which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import MisuseError
from ..snapshot import Snapshot
from .conversion import convert

ENDINGS = {
    ".safetensors": "a snapshot",
    ".pt": "rosinality's form",
    ".pkl": "NVIDIA's form",
    ".onnx": "ONNX",
    ".pt2": "torch.export's form",
}
_GRAPHS = (".onnx", ".pt2")


@dataclass(frozen=True)
class Output:
    """What to write. Raises SganError if the settings do not fit the ending."""

    path: Path
    half: bool = False  # a snapshot in half precision
    discriminator: bool = True  # keep it
    repository: str | None = None  # of a .pkl, which of NVIDIA's reads it: 'ada' or 'sg3'
    part: str = "all"  # of .onnx and .pt2: 'all', 'mapping' or 'synthesis'

    @property
    def ending(self) -> str:
        return self.path.suffix.lower()

    def __post_init__(self) -> None:
        if self.ending not in ENDINGS:
            known = ", ".join(f"{ending} ({what})" for ending, what in ENDINGS.items())
            raise MisuseError(
                f"{self.path}: models are not written as {self.ending or 'this'!r}.", hint=f"Choose {known}."
            )
        if (self.repository is not None) != (self.ending == ".pkl"):
            raise MisuseError(f"{self.path}: a .pkl is written --for ada or sg3, and nothing else is.")
        if self.half and self.ending != ".safetensors":
            raise MisuseError("--half is for snapshots: .safetensors.", hint="Leave it out.")
        if self.part != "all" and self.ending not in _GRAPHS:
            raise MisuseError("--part is for .onnx and .pt2.", hint="Leave it out.")
        if not self.discriminator and self.ending in _GRAPHS:
            raise MisuseError(f"--drop-discriminator: {self.ending} holds none anyway.", hint="Leave it out.")


def write_model(
    model: Snapshot,
    output: Output,
) -> list[str]:  # warnings
    """Raises SganError if the model cannot take that form, or the file cannot be written."""
    D = model.D if output.discriminator else None
    if output.ending == ".safetensors":
        convert(model, output.path, dtype=torch.float16 if output.half else None, discriminator=output.discriminator)
    elif output.ending == ".pt":
        from .rosinality_writer import write_rosinality

        write_rosinality(output.path, model.G, D)
    elif output.repository is not None:
        from .nvidia_writer import write_nvidia

        write_nvidia(output.path, model.G, D, output.repository)
    elif output.ending == ".onnx":
        from .export_onnx import export_onnx

        if export_onnx(model.G, output.path, output.part) is None:
            return ["It was not compared with PyTorch, for want of onnxruntime: pip install onnxruntime"]
    else:
        from .export_torch import export_torch

        export_torch(model.G, output.path, output.part)
    return []
