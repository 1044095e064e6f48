"""Kinds of safetensors files: the header of each has its format, and a dataclass about the content as JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import safetensors
import safetensors.torch
from torch import Tensor

from ..config import from_json, to_json
from ..errors import SganError
from ..files import open_tensors, write_atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

I = TypeVar("I", bound="DataclassInstance")  # noqa: E741 (the dataclass)


@dataclass(frozen=True)
class FileKind(Generic[I]):
    format: str  # as the header names it
    name: str  # for messages, such as 'an encoder'
    info: type[I]  # the dataclass; its own check raises ValueError or SganError
    again: str  # hint about files that cannot be used: how to make one

    def save(
        self,
        path: str | Path,
        tensors: Mapping[str, Tensor],  # contiguous, on the CPU
        info: I,
    ) -> None:
        """Write a file atomically. Raises SganError if it cannot be written."""
        header = {"format": self.format, "info": json.dumps(to_json(info))}
        write_atomic(path, safetensors.torch.save(dict(tensors), metadata=header))

    def is_kind_of(
        self,
        path: Path,
    ) -> bool:
        """Whether a file says that it is of this kind."""
        with contextlib.suppress(safetensors.SafetensorError, OSError), open_tensors(path) as f:
            return (f.metadata() or {}).get("format") == self.format
        return False

    @contextlib.contextmanager
    def open(
        self,
        path: Path,
    ) -> Iterator[tuple[Any, I]]:
        """The open file and what its header says. Raises SganError if it is missing, damaged or of another kind."""
        if not path.is_file():
            raise SganError(f"{path} does not exist.", hint=self.again)
        try:
            opened = open_tensors(path)
        except (safetensors.SafetensorError, OSError) as e:
            raise SganError(f"{path} is not {self.name}, or it is damaged ({e}).", hint=self.again) from e
        with opened as f:
            yield f, self._read(path, f.metadata() or {})

    def read_info(
        self,
        path: str | Path,
    ) -> I:
        """Read only the header. Raises SganError as `open` does."""
        with self.open(Path(path)) as (_, info):
            return info

    def _read(self, path: Path, header: Mapping[str, str]) -> I:
        if header.get("format") != self.format:
            raise SganError(f"{path} is a safetensors file, but not {self.name}.", hint=self.again)
        try:
            return from_json(self.info, json.loads(header["info"]))
        except (KeyError, ValueError, RecursionError, SganError) as e:
            raise SganError(f"{path} has an invalid header ({e}).", hint=self.again) from e
