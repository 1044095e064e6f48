"""The command lines that do the same as the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import quote
from ..sampling.generate import SamplingOptions
from .calls import Item


@dataclasses.dataclass(frozen=True)
class Commands:
    """Writes commands for one model and output folder."""

    model: Sequence[str]  # words that choose the model: '--model', 'faces.safetensors'
    folder: Path  # the output folder

    def line(
        self,
        command: str,  # 'mix'
        sampling: SamplingOptions | None = None,
        **options: Any,  # by name; None and False are omitted, True is a flag, a tuple repeats the option
    ) -> str:
        """One command line."""
        words = ["sgan", *command.split(), *self.model]
        for name, value in {**options, **(_sampling_options(sampling) if sampling else {})}.items():
            option = "--" + name.rstrip("_").replace("_", "-")
            for one in value if isinstance(value, tuple) else (value,):
                if one is True:
                    words.append(option)
                elif one is not None and one is not False:
                    text = format_number(one) if isinstance(one, float) else quote(one)
                    words.append(f"{option}={text}" if text.startswith("-") else f"{option} {text}")
        return " ".join(words)

    def items(
        self,
        items: Sequence[Item],
    ) -> str:
        """A list of seeds and files, with ranges: '0-3,7,out/explore/edit-0001.npz'."""
        parts: list[str] = []
        run: list[int] = []

        def end_run() -> None:
            if run:
                parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
                run.clear()

        for item in items:
            if isinstance(item, int):
                if run and item != run[-1] + 1:
                    end_run()
                run.append(item)
            else:
                end_run()
                parts.append(str(self.folder / item))
        end_run()
        return ",".join(parts)


def format_indices(indices: Sequence[int]) -> str:
    """'0,1,2' as '0-2'."""
    return Commands((), Path()).items(list(indices))


def format_number(value: float) -> str:
    return f"{value:.10g}"


def _sampling_options(sampling: SamplingOptions) -> dict[str, Any]:
    default = SamplingOptions()
    options: dict[str, Any] = {
        "trunc": sampling.trunc if sampling.trunc != default.trunc else None,
        "trunc_cutoff": sampling.trunc_cutoff,
        "class_": sampling.class_index,
        "noise_mode": sampling.noise_mode if sampling.noise_mode != default.noise_mode else None,
        "rotate": None if sampling.rotate is None else float(sampling.rotate),
    }
    if sampling.translate is not None:
        options["translate"] = ",".join(format_number(x) for x in sampling.translate)
    return options
