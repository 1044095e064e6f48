"""The guided filter: a mask that is a pixel off is moved to the edge of the image, and follows nothing else."""

import torch

from stylegan_cli.inversion.refine import refine


def edges(shift, size=36, width=48):
    """Logits of two classes with a vertical edge, and an image with one."""
    image = torch.zeros(1, 3, size, width)
    image[:, :, :, 20:] = torch.tensor([0.8, -0.2, 0.5])[None, :, None, None]
    labels = torch.zeros(1, size, width, dtype=torch.int64)
    labels[:, :, 20 + shift :] = 1
    return torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float() * 8, image


def test_masks_move_to_the_edge():
    _, image = edges(0)
    for shift in (-1, 1):
        logits, _ = edges(shift)
        assert not torch.equal(logits.argmax(1), edges(0)[0].argmax(1))
        assert torch.equal(refine(logits, image).argmax(1), edges(0)[0].argmax(1))


def test_a_mask_on_the_edge_stays():
    logits, image = edges(0)
    found = refine(logits, image)
    assert torch.equal(found.argmax(1), logits.argmax(1))
    assert torch.allclose(found.sum(1), torch.ones(1, 36, 48), atol=1e-4)


def test_without_an_edge_a_mask_is_smoothed():
    logits, image = edges(0)
    found = refine(logits, torch.zeros_like(image))[:, 1, 18]
    assert (found.diff() >= -1e-6).all() and 0.3 < found[0, 19] < 0.7


def test_other_channels():
    logits, image = edges(1)
    gray = image.mean(1, keepdim=True)
    rgba = torch.cat([image, torch.ones_like(gray)], 1)
    for other in (gray, rgba):
        assert torch.equal(refine(logits, other).argmax(1), edges(0)[0].argmax(1))
    two = refine(torch.cat([logits, edges(-1)[0]]), image.expand(2, -1, -1, -1))
    assert torch.allclose(two[:1], refine(logits, image), atol=1e-5)
