"""The mapping network: its equation with and without labels, truncation, the running mean of w."""

import math
import types

import pytest
import torch
from torch.nn import functional as F

from stylegan_cli.models.mapping import DirectMapping, MappingNetwork, PartsMapping


@pytest.fixture
def make():
    def build(**options):
        torch.manual_seed(0)
        settings = {"z_dim": 6, "c_dim": 0, "w_dim": 5, "num_layers": 3, "num_ws": 4} | options
        mapping = MappingNetwork(**settings).double().requires_grad_(False)
        for p in mapping.parameters():
            if not p.any():
                p.normal_()
        if mapping.num_ws:
            mapping.w_avg.normal_()
        return mapping

    return build


def normalize(x):
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def layers(mapping, x, lr=0.01):
    for i in range(mapping.num_layers):
        fc = mapping.get_submodule(f"fc{i}")
        x = F.leaky_relu(x @ fc.weight.t() * (lr / math.sqrt(x.shape[1])) + fc.bias * lr, 0.2) * math.sqrt(2)
    return x


Z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
C = torch.eye(7, dtype=torch.float64)[[0, 6, 2]]


def test_unconditional(make):
    mapping = make()
    ws = mapping(Z)
    assert ws.shape == (3, 4, 5)
    assert torch.allclose(ws, layers(mapping, normalize(Z))[:, None].expand(-1, 4, -1))
    assert torch.equal(ws, mapping(Z, torch.zeros(3, 0)))


def test_embedded_labels_are_normalized_then_concatenated(make):
    mapping = make(c_dim=7)
    embedded = C @ mapping.embed.weight.t() / math.sqrt(7) + mapping.embed.bias
    assert embedded.shape[1] == 5  # w_dim
    x = torch.cat([normalize(Z), normalize(embedded)], 1)
    assert torch.allclose(mapping(Z, C)[:, 0], layers(mapping, x))


def test_concatenated_labels_are_concatenated_then_normalized(make):
    mapping = make(c_dim=7, labels="concat")
    assert mapping.embed.bias is None
    embedded = C @ mapping.embed.weight.t() / math.sqrt(7)
    assert embedded.shape[1] == 6  # z_dim
    assert torch.allclose(mapping(Z, C)[:, 0], layers(mapping, normalize(torch.cat([Z, embedded], 1))))


def test_a_label_as_the_only_input(make):
    mapping = make(z_dim=0, c_dim=7, num_ws=None)
    embedded = C @ mapping.embed.weight.t() / math.sqrt(7) + mapping.embed.bias
    w = mapping(None, C)
    assert w.shape == (3, 5) and torch.allclose(w, layers(mapping, normalize(embedded)))
    assert "w_avg" not in mapping.state_dict()


@pytest.mark.parametrize("labels", ["embed", "concat"])
def test_a_conditional_network_needs_labels(make, labels):
    with pytest.raises(ValueError, match=r"conditional: it needs c of shape \[N, 7\]"):
        make(c_dim=7, labels=labels)(Z)


def test_the_learning_rate_multiplier(make):
    mapping = make(lr_multiplier=0.1)
    assert torch.allclose(mapping(Z)[:, 0], layers(mapping, normalize(Z), 0.1))


@pytest.mark.parametrize("labels", [0, 7])
@pytest.mark.parametrize(("network", "num_ws"), [("normal", 1), ("uniform", 1), ("parts", 4), ("normalized", 1)])
def test_latents_without_a_mapping_network_are_inverted(network, num_ws, labels):
    """To z and the label, up to what has no effect."""
    torch.manual_seed(0)
    embed = torch.nn.Linear(7, 2 if network == "parts" else 6, bias=False) if labels else None
    if network == "normalized":
        mapping = MappingNetwork(6, labels, 12 if labels else 6, 0, 1, labels="concat")
    else:
        config = types.SimpleNamespace(z_dim=6, c_dim=labels, w_dim=0, w_avg_beta=0.9)
        mapping = (PartsMapping if network == "parts" else DirectMapping)(config, embed, num_ws, network == "uniform")
    mapping, c = mapping.double().requires_grad_(False), C if labels else None
    ws = mapping(Z, c)
    z, found = mapping.invert(ws, torch.eye(7).double() if labels else None)
    assert z.shape == Z.shape and (found is None if c is None else torch.equal(found, c))
    torch.testing.assert_close(mapping(z, found), ws, atol=1e-6, rtol=1e-6)


# --------------------------------------------------------------------------------------- truncation


@pytest.mark.parametrize("psi", [0, 0.5, 1, 1.3, -1])
@pytest.mark.parametrize("cutoff", [None, 0, 1, 3, 4, 9])
def test_truncation(make, psi, cutoff):
    mapping = make()
    ws, expected = mapping(Z), mapping(Z)
    end = 4 if cutoff is None else cutoff
    expected[:, :end] = mapping.w_avg + psi * (expected[:, :end] - mapping.w_avg)
    assert torch.allclose(mapping(Z, None, psi, cutoff), expected, rtol=1e-12)
    assert torch.allclose(mapping.truncate(ws, psi, cutoff), expected, rtol=1e-12)


def test_truncation_with_psi_1_is_exact(make):
    mapping = make()
    assert torch.equal(mapping(Z, None, 1.0), mapping(Z))


# -------------------------------------------------------------------------------------- mean of w


def test_the_mean_of_w_is_updated_with_the_collected_values(make):
    mapping = make(w_avg_beta=0.9)
    before, parts = mapping.w_avg.clone(), [torch.randn(2, 6).double(), torch.randn(3, 6).double()]
    with torch.no_grad():
        mapping.collecting = True
        ws = torch.cat([mapping(z)[:, 0] for z in parts])
        mapping.collecting = False
        mapping(parts[0])  # not collected
    mapping.commit(10, lambda total: total * 2)  # as if another rank had collected the same
    assert torch.allclose(mapping.w_avg, 0.9 * before + 0.1 * ws.mean(0))
    after = mapping.w_avg.clone()
    mapping.commit(10, lambda total: total)
    assert torch.equal(mapping.w_avg, after), "nothing was collected"
    mapping.collecting = True
    mapping.collect(torch.zeros(10, 5).double())
    mapping.commit(10, lambda total: total)
    assert torch.allclose(mapping.w_avg, 0.9 * after), "the sum was reset"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_mean_of_w_stays_finite_and_can_discard_values(make, bad):
    mapping = make(w_avg_beta=0.5)
    mapping.w_avg.fill_(2.0)
    mapping.collecting = True
    mapping.collect(torch.full((1, 5), bad).double())
    mapping.commit(1, lambda total: total)
    assert (mapping.w_avg == 2).all()
    mapping.collect(torch.ones(1, 5).double())
    mapping.discard()
    mapping.collect(torch.full((1, 5), 4.0).double())
    mapping.commit(1, lambda total: total)
    assert (mapping.w_avg == 3).all()


def test_the_mean_of_w_is_saved_and_starts_at_zero():
    mapping = MappingNetwork(4, 0, 5, 2, 3)
    assert mapping.w_avg_beta == 0.995
    assert torch.equal(mapping.state_dict()["w_avg"], torch.zeros(5))
