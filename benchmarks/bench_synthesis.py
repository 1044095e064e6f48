"""Synthesis of StyleGAN2 pictures, against grouped convolutions over per-sample weights.

python benchmarks/bench_synthesis.py --size 256 --batch 4
"""

from __future__ import annotations

import _plain
import click
import torch
from _harness import compare, report, time_by_op, verify

from stylegan_cli.config import GeneratorConfig
from stylegan_cli.models import build_generator


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; PyTorch emulates it elsewhere, slowly."""
    flags = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_available() or flags


@click.command()
@click.option("--size", default=256)
@click.option("--channel-base", default=16384)
@click.option("--batch", default=4)
@click.option("--rounds", default=7)
@torch.inference_mode()
def main(size: int, channel_base: int, batch: int, rounds: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    G = build_generator(GeneratorConfig(size, size, channel_base=channel_base, conv_clamp=None)).eval().to(device)
    ws = G.mapping(torch.randn(batch, 512, device=device))

    def plainly(modulated):
        # in PyTorch's default layout
        other = build_generator(G.config).eval().to(device)
        other.load_state_dict(G.state_dict())
        other.to(memory_format=torch.contiguous_format)

        def inside():
            with _plain.use(modulated):
                return other.synthesis(ws)

        return inside

    candidates = {
        "ours": lambda: G.synthesis(ws),
        "grouped convolutions, per-sample weights": plainly(_plain.modulated_grouped),
        "x * s, convolution, * d": plainly(_plain.modulated_scale),
    }
    if has_bfloat16():
        candidates["ours, bfloat16"] = lambda: G.synthesis(ws, dtype=torch.bfloat16)
    for name, run in candidates.items():
        verify(name, candidates["ours"](), run(), 0.1 if "bfloat16" in name else 1e-3)
    outside = 1 - time_by_op(candidates["ours"], ("conv",))
    report(
        f"synthesis {size}x{size}, channel_base {channel_base}, batch {batch}, float32, {device}",
        compare(candidates, rounds),
        outside_convolutions=f"{outside:.0%} of our time",
        bfloat16="measured" if has_bfloat16() else "not measured: this processor has no bfloat16 arithmetic",
    )


if __name__ == "__main__":
    main()
