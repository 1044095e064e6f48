"""How sessions and results show themselves in Jupyter: images, videos, progress."""

from __future__ import annotations

import base64
import html
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.images import encode_image, grid_columns, image_grid
from ..progress import Progress, silent

MAX_IMAGES, MAX_SIDE = 64, 256  # of one grid; of each of its images
_INTERVAL = 0.1  # seconds between two updates of a bar


def default_progress() -> Progress:
    """A bar in a notebook; elsewhere nothing."""
    return NotebookProgress() if in_notebook() else silent


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class NotebookProgress:
    """A `Progress` callback: a bar for each kind of progress, which needs no widgets."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[Any, float]] = {}  # display handle, and when it began
        self._shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        name, _, figure = what.partition(", ")
        now = time.monotonic()
        is_new, is_last = name not in self._bars, done >= total
        if not (is_new or is_last) and now - self._shown < _INTERVAL:
            return
        self._shown = now
        began = now if is_new else self._bars[name][1]
        text = f"{name} {done}/{total}, {now - began:.1f} s" + (f", {figure}" if figure else "")
        bar = f'<progress value="{done}" max="{max(total, 1)}"></progress> {html.escape(text)}'
        data = {"text/plain": text, "text/html": bar}
        if is_new:
            self._bars[name] = display(data, raw=True, display_id=True), began
        else:
            self._bars[name][0].update(data, raw=True)
        if is_last:
            del self._bars[name]


def grid_png(
    images: Tensor,  # uint8 [N, C, H, W]
) -> bytes:
    """The first images as a PNG, small ones enlarged, large ones reduced."""
    factor = -(-max(images.shape[2:]) // MAX_SIDE)
    if factor > 1:
        images = torch.nn.functional.avg_pool2d(images.float(), factor).round().to(torch.uint8)
    height, width = images.shape[2:]
    columns = grid_columns(min(len(images), MAX_IMAGES), height / width)
    return encode_image(image_grid(images[:MAX_IMAGES], columns, scale=max(1, 64 // width)), "png")


def image_html(
    content: bytes,
    kind: str,  # 'png' or 'webp'
) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'


def video_html(
    save: Callable[[Path], object],  # writes a file
) -> str:
    """A video as an animated image."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.webp"
        save(path)
        return image_html(path.read_bytes(), "webp")


def table_html(
    facts: Mapping[str, object],
) -> str:
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
    return f"<table>{rows}</table>"
