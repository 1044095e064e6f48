"""What a projection leaves behind: latents for other commands, pictures for the eye."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import labelled_grid, save_image, to_rgb, to_uint8
from ..models import Generator
from ..sampling.draw import Sampling, draw
from ..sampling.latent_files import file_part, save_latents
from ..sampling.tuned import save_tuned
from .projector import Projected, Projection

_AMPLIFIED = 4  # differences are shown so many times as large


@dataclass(frozen=True)
class Finding:
    """Everything about N projected pictures."""

    names: Sequence[str]  # [N] of the targets
    targets: Tensor  # [N, C, H, W] in [-1, 1]
    found: Projected
    mask: Tensor | None  # [1, 1, H, W]: 1 counted, 0 did not
    G: Generator  # that it was projected into
    tuned: Generator | None = None  # and tuned
    tuned_distance: Tensor | None = None  # [N]

    @property
    def distance(self) -> Tensor:  # [N] of the pictures that are written
        return self.found.distance if self.tuned_distance is None else self.tuned_distance


def save_finding(
    folder: Path,
    finding: Finding,
    how: Projection,
    model: str,  # fingerprint
    settings: dict,  # for the reader of a file
    record: dict[str, str],  # metadata of the pictures
) -> list[Path]:  # what was written, the sheet last
    """`projected.npz` and `proj.png`, of several pictures each with its name in front; `compare.png` of all;
    `tuned-<hash>.safetensors` where the generator was tuned."""
    files: list[Path] = []
    rows = [row.name for row in finding.G.layers if row.noise]
    maps = finding.found.noise
    psnr = closeness(finding)
    if finding.tuned is not None:
        files.append(save_tuned(folder, finding.G, finding.tuned))
    before, after = pictures(finding.G, finding.found), None
    if finding.tuned is not None:
        after = pictures(finding.tuned, finding.found)
    for i, name in enumerate(finding.names):
        front = f"{file_part(name)}-" if len(finding.names) > 1 else ""
        files += [folder / f"{front}projected.npz", folder / f"{front}proj.png"]
        save_latents(
            files[-2],
            finding.found.ws[i : i + 1],
            names=[name],
            noise=None if maps is None else {row: m[i : i + 1] for row, m in zip(rows, maps, strict=True)},
            model=model,
            tuned=files[0].name if finding.tuned is not None else None,
            settings={**settings, "projection": asdict(how), "steps_made": finding.found.steps},
            distance=finding.distance[i : i + 1].cpu().numpy(),
            psnr=psnr[i : i + 1].cpu().numpy(),
        )
        about = {"target": name, "distance": f"{finding.distance[i]:.6g}", **record}
        save_image((before if after is None else after)[i], files[-1], metadata=about)
    files.append(folder / "compare.png")
    save_image(comparison(finding, before, after), files[-1], metadata=record)
    return files


def pictures(
    G: Generator,
    found: Projected,
) -> Tensor:  # uint8 [N, C, H, W]
    """What the latents draw."""
    ws = found.ws
    drawn = draw(G, lambda i, j: ws[i:j], range(len(ws)), Sampling(), quiet=True, noise=found.noise)
    return torch.stack(list(drawn))


def comparison(
    finding: Finding,
    before: Tensor,  # uint8 [N, C, H, W]
    after: Tensor | None,  # uint8 [N, C, H, W] of the tuned generator
) -> Tensor:  # uint8 [3, H', W']
    """A row for each target: itself, its projection, that of the tuned generator, and where the last one differs."""
    targets = to_uint8(finding.targets).cpu()
    last = before if after is None else after
    difference = (to_rgb(last).int() - to_rgb(targets).int()).abs().float().mean(1, keepdim=True)
    if finding.mask is not None:
        difference = difference * finding.mask.cpu()
    shown = (difference * _AMPLIFIED).clamp(0, 255).to(torch.uint8)
    columns = [to_rgb(x) for x in (targets, before, after, shown) if x is not None]
    labels = ["target", "projection", *(["tuned"] if after is not None else []), f"difference x {_AMPLIFIED}"]
    return labelled_grid(torch.stack(columns, dim=1), None, None, list(finding.names), labels)


def closeness(
    finding: Finding,
) -> Tensor:  # [N]
    """Peak signal to noise ratio in dB of what is written, over the pixels that count."""
    G = finding.tuned or finding.G
    drawn = pictures(G, finding.found).float()
    square = (drawn - to_uint8(finding.targets).cpu().float()).square().mean(1, keepdim=True)
    if finding.mask is not None:
        mask = finding.mask.cpu().expand_as(square)
        square = (square * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    return 20 * math.log10(255) - 10 * square.reshape(len(square), -1).mean(1).clamp_min(1e-4).log10()


def way(
    finding: Finding,
) -> Iterator[Tensor]:  # uint8 [3, H, W]: of each place on the way, each target and, after it, where its projection was
    """The search as it went. The noise is that of the end."""
    targets = to_rgb(to_uint8(finding.targets).cpu())
    for ws in finding.found.path:
        now = to_rgb(pictures(finding.G, replace(finding.found, ws=ws)))
        yield from (picture for pair in zip(targets, now, strict=True) for picture in pair)
