"""Style mixing: the styles of some layers from one latent, the rest from another (Karras et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import LayerInfo

SPANS = ("coarse", "middle", "fine")


def mixed_styles(
    layers: Sequence[LayerInfo],  # the model's layer table
    styles: str | Sequence[int] | None,  # see `style_indices`; None: 'coarse', or the first one of two
    instead: str,  # hint if there are no styles
) -> list[int]:
    """Return the indices, among the num_ws latents, of styles to mix. Raises SganError as `style_indices` does, and if
    the model has one latent."""
    num_ws = max(row.w_index for row in layers) + 1
    if num_ws == 1:
        raise SganError(
            "This model has one latent for all layers, so there are no styles to choose or to mix.", hint=instead
        )
    if styles is None:
        styles = "coarse" if num_ws >= len(SPANS) else [0]
    return style_indices(layers, styles)


def style_indices(
    layers: Sequence[LayerInfo],  # the model's layer table
    styles: str | Sequence[int],  # 'coarse', 'middle', 'fine', or indices of w
    option: str = "--styles",  # for the message
) -> list[int]:
    """Return the indices, among the num_ws latents, of a span of styles.

    Coarse, middle and fine are the levels 4-8, 16-32, and 64 and up. In a model with fewer levels the spans are shorter
    so that none is empty; with fewer than three levels, each is a third of the layers. Raises SganError if an index is
    out of range, or a span is given for a model with fewer than three latents.
    """
    num_ws = max(row.w_index for row in layers) + 1
    if not isinstance(styles, str):
        if invalid := [i for i in styles if not 0 <= i < num_ws]:
            raise SganError(f"This model has no style {invalid[0]}.", hint=f"Choose {option} from 0-{num_ws - 1}.")
        return list(styles)
    spans = ", ".join(SPANS)
    if num_ws == 1:
        raise SganError(f"This model has one latent for all layers, so none for {spans}.", hint=f"Remove {option}.")
    if num_ws < len(SPANS):
        numbers = " or ".join(map(str, range(num_ws)))
        raise SganError(f"This model has {num_ws} styles, too few for {spans}.", hint=f"Choose {option} {numbers}.")
    group = {row.w_index: row.group for row in layers}
    units = [group[i] for i in range(num_ws)]  # levels, or thirds if there are too few levels
    if len(set(units)) < 3:
        units = [3 * i // num_ws for i in range(num_ws)]
    distinct = sorted(set(units))
    ends = _span_ends(len(distinct))
    low, high = {"coarse": (0, ends[0]), "middle": ends, "fine": (ends[1], len(distinct))}[styles]
    chosen = set(distinct[low:high])
    return [i for i in range(num_ws) if units[i] in chosen]


def _span_ends(count: int) -> tuple[int, int]:
    """Return where coarse and middle end among `count` levels: after 2 and 4, or earlier so that no span is empty."""
    coarse = 2 if count >= 4 else 1
    return coarse, min(coarse + 2, count - 1)


def mix_styles(
    rows: Tensor,  # [R, num_ws, w_dim]
    columns: Tensor,  # [K, num_ws, w_dim]
    indices: Sequence[int],  # w indices that come from the columns
    blend: float = 1.0,  # interpolation of the chosen ws: 0 is the row's, 1 the column's
) -> Tensor:  # [R, K, num_ws, w_dim]
    """Replace the chosen ws of each row by those of each column, or interpolate toward them."""
    mixed = rows[:, None].repeat(1, columns.shape[0], 1, 1)
    chosen = torch.tensor(list(indices), dtype=torch.int64, device=rows.device)
    mixed[:, :, chosen] = torch.lerp(mixed[:, :, chosen], columns[None, :, chosen], blend)
    return mixed
