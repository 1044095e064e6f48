"""Spans of styles, and style mixing."""

import pytest
import torch

from stylegan_cli.errors import SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.sampling.mixing import SPANS, mix_styles, mixed_styles, style_indices


def table(levels, architecture="skip"):
    size = 4 << (levels - 1)
    with torch.device("meta"):
        config = StyleGAN2Config(size, size, channel_base=4096, channel_max=4, architecture=architecture)
        return build_generator(config).layers


def levels_of(layers, indices):
    """Return the levels of the convolutions that these latents control."""
    return sorted({row.height for row in layers if row.kind == "conv" and row.w_index in indices})


@pytest.mark.parametrize("architecture", ["skip", "orig"])
@pytest.mark.parametrize("levels", range(2, 10))
def test_spans_cover_all_styles_in_order(levels, architecture):
    layers = table(levels, architecture)
    spans = [style_indices(layers, name) for name in SPANS]
    assert all(spans), "none is empty"
    assert sum(spans, []) == list(range(2 * levels))
    assert all(levels_of(layers, span) for span in spans[:2])


@pytest.mark.parametrize("levels", [5, 7, 9])
def test_levels_of_coarse_middle_and_fine(levels):
    layers = table(levels)
    assert levels_of(layers, style_indices(layers, "coarse")) == [4, 8]
    assert levels_of(layers, style_indices(layers, "middle")) == [16, 32]
    assert levels_of(layers, style_indices(layers, "fine")) == [4 << k for k in range(4, levels)]


def test_levels_of_a_small_model():
    layers = table(4)
    assert [levels_of(layers, style_indices(layers, name)) for name in SPANS] == [[4, 8], [16], [32]]
    layers = table(3)
    assert [levels_of(layers, style_indices(layers, name)) for name in SPANS] == [[4], [8], [16]]


@pytest.mark.parametrize(("size", "lengths"), [(16, [6, 5, 5]), (32, [6, 5, 5]), (64, [5, 4, 7]), (256, [6, 5, 5])])
def test_spans_of_many_layers_at_few_levels(size, lengths):
    with torch.device("meta"):
        layers = build_generator(StyleGAN3Config(size, size, channel_base=4096, channel_max=4)).layers
    spans = [style_indices(layers, name) for name in SPANS]
    assert [len(span) for span in spans] == lengths and sum(spans, []) == list(range(16))


def test_styles_to_mix(direct_model):
    assert mixed_styles(table(3), None, "") == style_indices(table(3), "coarse")
    two = direct_model("stackgan").layers
    assert mixed_styles(two, None, "") == [0] and mixed_styles(two, [1], "") == [1]
    with pytest.raises(SganError, match="2 styles, too few for coarse") as caught:
        mixed_styles(two, "coarse", "")
    assert caught.value.hint == "Choose --styles 0 or 1."
    for styles in (None, "coarse", [0]):
        with pytest.raises(SganError, match="no styles to choose or to mix") as caught:
            mixed_styles(direct_model("dcgan").layers, styles, "Interpolate.")
        assert caught.value.hint == "Interpolate."
    assert style_indices(direct_model("dcgan").layers, [0], "--layers") == [0], "directions of the one latent"


def test_styles_by_index():
    layers = table(3)
    assert style_indices(layers, [0, 5, 2]) == [0, 5, 2]
    for invalid in ([6], [0, -1], [0, 99]):
        with pytest.raises(SganError, match=f"no style {invalid[-1]}") as e:
            style_indices(layers, invalid)
        assert "0-5" in e.value.hint


def test_mix():
    rows, columns = torch.zeros(2, 6, 3), torch.arange(1.0, 4)[:, None, None].expand(3, 6, 3)
    mixed = mix_styles(rows, columns, [1, 4])
    assert mixed.shape == (2, 3, 6, 3)
    for r in range(2):
        for k in range(3):
            assert mixed[r, k, :, 0].tolist() == [0, k + 1, 0, 0, k + 1, 0]
    assert not rows.any()


def test_mixing_nothing_and_everything():
    rows, columns = torch.randn(2, 6, 3), torch.randn(3, 6, 3)
    assert torch.equal(mix_styles(rows, columns, []), rows[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(mix_styles(rows, columns, range(6)), columns[None].expand(2, -1, -1, -1))
