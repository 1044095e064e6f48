"""Style mixing: some layers of one image, the rest of another (Karras et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import SganError
from ..models.generator import LayerInfo

SPANS = ("coarse", "middle", "fine")


def style_indices(
    layers: Sequence[LayerInfo],  # the model's layer table
    styles: str | Sequence[int],  # 'coarse', 'middle', 'fine', or indices of w
    option: str = "--styles",  # that they were given by, for the message
) -> list[int]:
    """Which of the num_ws latents a span of styles means.

    Coarse, middle and fine are the levels 4-8, 16-32, and 64 and up. A model with fewer levels has its levels dealt
    out so that none of the three is empty; with two levels its layers are. Raises SganError on an index out of range,
    and on a span of a model that has fewer than three latents.
    """
    num_ws = max(row.w_index for row in layers) + 1
    if not isinstance(styles, str):
        if wrong := [i for i in styles if not 0 <= i < num_ws]:
            raise SganError(f"This model has no style {wrong[0]}.", hint=f"Choose {option} from 0-{num_ws - 1}.")
        return list(styles)
    if num_ws < len(SPANS):
        kinds = ", ".join(SPANS)
        raise SganError(f"This model has {num_ws} style(s), too few for {kinds}.", hint=f"Choose {option} by number.")
    group = {row.w_index: row.group for row in layers}
    units = [group[i] for i in range(num_ws)]  # what is dealt out: levels, or single layers if those are too few
    if len(set(units)) < 3:
        units = list(range(num_ws))
    names = sorted(set(units))
    ends = _ends(len(names))
    low, high = {"coarse": (0, ends[0]), "middle": ends, "fine": (ends[1], len(names))}[styles]
    chosen = set(names[low:high])
    return [i for i in range(num_ws) if units[i] in chosen]


def _ends(count: int) -> tuple[int, int]:
    """Where coarse and middle end among so many levels: after two and four, or earlier so that each span has some."""
    coarse = 2 if count >= 4 else 1
    return coarse, min(coarse + 2, count - 1)


def mix_styles(
    rows: Tensor,  # [R, num_ws, w_dim] what most layers come from
    columns: Tensor,  # [K, num_ws, w_dim] what the chosen layers come from
    indices: Sequence[int],  # of the chosen latents
    blend: float = 1.0,  # how far the chosen ones go from the row's, 0, to the column's, 1
) -> Tensor:  # [R, K, num_ws, w_dim]
    """Each row's latents with the chosen ones replaced by each column's, or moved towards them."""
    mixed = rows[:, None].repeat(1, columns.shape[0], 1, 1)
    chosen = torch.tensor(list(indices), dtype=torch.int64, device=rows.device)
    mixed[:, :, chosen] = torch.lerp(mixed[:, :, chosen], columns[None, :, chosen], blend)
    return mixed
