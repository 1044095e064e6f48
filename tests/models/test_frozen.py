"""Frozen synthesis, compared with the network itself, for every family, and after every kind of change."""

import contextlib
import copy
import gc
import importlib
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from stylegan_cli.models import frozen as frozen_module
from stylegan_cli.models.frozen import FrozenSynthesis, frozen_synthesis
from stylegan_cli.models.progan.config import ProGANConfig
from stylegan_cli.models.registry import FAMILIES, build_generator
from stylegan_cli.models.stylegan.config import StyleGANConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.models.stylegan3.config import StyleGAN3Config
from stylegan_cli.ops import tensor_cores, use
from stylegan_cli.sampling.generate import SamplingOptions, generate_images, map_seeds
from stylegan_cli.sampling.latents import sample_noise

MODEL = Path(__file__).parents[1] / "trained" / "model.safetensors"  # a StyleGAN2 of 32x32 pixels, trained on critters

sys.path.insert(0, str(Path(__file__).parents[1]))
toy = importlib.import_module("_toy_family")
sys.path.pop(0)
del FAMILIES["toy"]  # other tests list the families

SIZES = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 16}
CONFIGS = {
    "skip": StyleGAN2Config(32, 32, **SIZES),
    "wide": StyleGAN2Config(16, 24, **SIZES, channels=1, conv_clamp=0.5, fir=(1.0, 2.0, 1.0)),
    "resnet": StyleGAN2Config(32, 32, **SIZES, architecture="resnet"),
    "orig": StyleGAN2Config(32, 32, **SIZES, architecture="orig"),
    "waves": StyleGAN2Config(32, 32, **SIZES, input="fourier", noise=False),
    "stylegan": StyleGANConfig(32, 32, **SIZES),
    "latent": StyleGANConfig(32, 32, **SIZES, input="latent", noise=False),
    "progan": ProGANConfig(32, 32, z_dim=8, channel_base=128, channel_max=16),
    "stylegan3": StyleGAN3Config(32, 32, **SIZES),
    "octaves": StyleGAN3Config(32, 32, **SIZES, octaves=True, num_layers=7, critical=7, moves=False),
    "toy": toy.ToyConfig(32, 32, **SIZES),
}


def generator(name="skip"):
    """A generator in which every weight has an effect."""
    torch.manual_seed(0)
    G = (toy.build if name == "toy" else build_generator)(CONFIGS[name]).eval().requires_grad_(False)
    for weight in G.synthesis.parameters():
        if not weight.any():
            weight.normal_(std=0.3)
    return G


def latents(G, count=3):
    return G.mapping(torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(1)))


def assert_same(a, b, eps=1e-5):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert (a - b).abs().max() <= eps * b.abs().max(), (a - b).abs().max() / b.abs().max()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("noise", ["const", "none", "maps"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_same_images(name, noise, count):
    G = generator(name)
    ws, frozen = latents(G, count), frozen_synthesis(G)
    ws[:, ::2] += 0.5  # each layer has a w of its own
    noise = sample_noise(G, 0, "test", torch.arange(count)) if noise == "maps" else noise
    for _ in range(2):  # the second call uses packed weights
        assert_same(frozen(ws, noise), G.synthesis(ws, noise))
    assert frozen._networks  # and it did not call the network itself


@pytest.mark.parametrize("implementation", ["composite", "reference"])
def test_implementations(implementation):
    G = generator()
    ws = latents(G)
    with use(implementation):
        assert_same(frozen_synthesis(G)(ws), G.synthesis(ws))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["skip", "resnet", "stylegan", "stylegan3", "toy"])
def test_half_precision(name, dtype):
    """As close to full precision as the network itself."""
    G = generator(name)
    ws = latents(G)
    exact, plain = G.synthesis(ws), G.synthesis(ws, dtype=dtype)
    frozen = frozen_synthesis(G)(ws, dtype=dtype)
    assert frozen.dtype == plain.dtype
    assert (frozen - exact).square().mean() <= 1.5 * (plain - exact).square().mean()


def test_double_precision():
    G = generator().double()
    ws = latents(G.float()).double()
    G = G.double()
    assert_same(frozen_synthesis(G)(ws), G.synthesis(ws), 1e-12)


@pytest.mark.parametrize("name", ["toy", "waves", "stylegan3"])
def test_a_transform(name):
    G = generator(name)
    ws, transform = latents(G), torch.tensor([[1.0, 0, 0.2], [0, 1, 0.1], [0, 0, 1]])
    frozen = frozen_synthesis(G)
    assert_same(frozen(ws, transform=transform), G.synthesis(ws, transform=transform))
    assert not torch.equal(frozen(ws, transform=transform), frozen(ws))


def step(G):
    """One step of an optimizer."""
    G.requires_grad_(True)
    optimizer = torch.optim.Adam(G.synthesis.parameters(), lr=0.1)
    G.synthesis(latents(G)).square().mean().backward()
    optimizer.step()
    G.requires_grad_(False)


def replace(G):
    for module in G.synthesis.modules():
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter):
            module.weight = torch.nn.Parameter(module.weight * 1.5, requires_grad=False)


CHANGES = {
    "in place": lambda G: [w.mul_(1.5) for w in G.synthesis.parameters()],
    "one value": lambda G: next(iter(G.synthesis.parameters())).view(-1)[:1].add_(3),
    "a buffer": lambda G: [b.mul_(1.1) for b in G.synthesis.buffers()],
    "optimizer": step,
    "replaced": replace,
    "loaded": lambda G: G.load_state_dict({name: w * 1.5 for name, w in G.state_dict().items()}),
    "assigned": lambda G: G.load_state_dict({name: w * 1.5 for name, w in G.state_dict().items()}, assign=True),
    "multi-tensor": lambda G: torch._foreach_mul_(list(G.synthesis.parameters()), 1.5),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["skip", "stylegan", "stylegan3", "progan"])
def test_a_change_of_the_weights_is_noticed(change, name):
    G = generator(name)
    ws, frozen = latents(G), frozen_synthesis(G)
    before = frozen(ws)
    CHANGES[change](G)
    G.requires_grad_(False)
    assert_same(frozen(ws), G.synthesis(ws))
    if change != "a buffer" or name != "progan":
        assert not torch.equal(frozen(ws), before)


def test_new_weights_at_the_address_of_old_ones():
    """The allocator may return the memory of a weight that was just deleted."""
    G = generator()
    ws, layer, frozen = latents(G), G.synthesis.b32.conv1, frozen_synthesis(G)
    before = frozen(ws)
    for scale in (2, 3, 4):
        weight = layer.weight.clone()
        layer.weight = None
        gc.collect()
        layer.weight = torch.nn.Parameter(weight * scale + 0.1, requires_grad=False)
        assert_same(frozen(ws), G.synthesis(ws))
        assert not torch.equal(frozen(ws), before)


@pytest.mark.parametrize("scale", [1.5, -1])
def test_a_change_of_data_is_noticed_by_the_next_request(scale):
    """No counter sees it; one value in all weights is enough."""
    G = generator()
    ws, frozen = latents(G), frozen_synthesis(G)
    frozen(ws)
    G.synthesis.b32.conv1.weight.data[3, 2, 1, 1] *= scale
    G.synthesis.b8.torgb.bias.data[1] *= scale
    assert_same(frozen_synthesis(G)(ws), G.synthesis(ws))


def test_tuning_and_a_session_see_the_new_weights(tmp_path):
    import stylegan_cli

    session = stylegan_cli.open(MODEL)
    before = session.generate(seeds=[1, 2]).images
    session.G.synthesis.b32.torgb.bias.add_(0.2)
    after = session.generate(seeds=[1, 2]).images
    assert (after.int() - before.int()).float().mean() > 10
    session.G.synthesis.b32.torgb.bias.data.sub_(0.2)
    assert (session.generate(seeds=[1, 2]).images.int() - before.int()).abs().max() <= 1


def test_gradients_and_statistics_need_the_network_itself():
    G = generator()
    frozen, ws = frozen_synthesis(G), latents(G).requires_grad_(True)
    (gradient,) = torch.autograd.grad(frozen(ws).sum(), ws)
    assert gradient.abs().sum() > 0
    G.requires_grad_(True)
    frozen(ws.detach()).sum().backward()
    assert G.synthesis.b8.conv0.weight.grad is not None
    with torch.no_grad():
        assert not frozen(ws).requires_grad
    alias_free = generator("stylegan3")
    assert frozen_synthesis(alias_free)(latents(alias_free)) is not None
    with alias_free.collect_statistics():
        frozen_synthesis(alias_free)(latents(alias_free))
    before = [b.clone() for b in alias_free.synthesis.buffers()]
    alias_free.commit_statistics(3, lambda total: total)
    assert any(not torch.equal(a, b) for a, b in zip(alias_free.synthesis.buffers(), before, strict=True))


def test_hooks_see_the_layers():
    G, seen = generator(), []
    frozen, ws = frozen_synthesis(G), latents(G)
    frozen(ws)
    with G.synthesis.b8.conv1.register_forward_hook(lambda *_: seen.append(1)):
        frozen(ws)
    frozen(ws)
    assert len(seen) == 1


def test_weights_without_version_counters_are_not_frozen():
    with torch.inference_mode():
        G = copy.deepcopy(generator())
        weights = {name: w.clone() for name, w in G.state_dict().items()}
        G.load_state_dict(weights, assign=True)
        ws, frozen = latents(G), frozen_synthesis(G)
        frozen(ws)
        G.synthesis.b32.torgb.bias.add_(0.2)
        assert torch.equal(frozen(ws), G.synthesis(ws))


def test_inside_and_outside_of_inference_mode():
    G = generator()
    ws, frozen = latents(G), frozen_synthesis(G)
    with torch.inference_mode():
        inside = frozen(ws.clone())
    assert torch.equal(inside, frozen(ws))
    assert ((frozen(ws) * ws.new_ones([]).requires_grad_(True)).sum()).requires_grad


def test_one_copy_of_the_weights_while_in_use():
    G = generator()
    frozen = frozen_synthesis(G)
    frozen(latents(G))
    assert frozen_synthesis(G) is frozen
    assert frozen_synthesis(copy.deepcopy(G)) is not frozen
    gone = weakref.ref(frozen)
    del frozen
    gc.collect()
    assert gone() is None


def test_wrong_input():
    G = generator()
    frozen = frozen_synthesis(G)
    with pytest.raises(ValueError, match="ws must have shape"):
        frozen(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="cannot be transformed"):
        frozen(latents(G), transform=torch.eye(3))
    with pytest.raises(ValueError, match="noise must be"):
        frozen(latents(G), noise="loud")


def test_generating_uses_it(monkeypatch):
    G, calls, call = generator(), [], FrozenSynthesis.__call__
    monkeypatch.setattr(FrozenSynthesis, "__call__", lambda *a, **b: calls.append(1) or call(*a, **b))
    options = SamplingOptions(batch=2)
    list(generate_images(G, lambda i, j: map_seeds(G, range(i, j), options), range(5), options))
    assert len(calls) == 3


def test_batches_in_parts(monkeypatch):
    """On a CPU, large images are synthesized one by one."""
    G, parts, run = generator("stylegan3"), [], frozen_module._Frozen._run
    monkeypatch.setattr(frozen_module, "FEATURES", 1)
    recorded = lambda self, ws, *rest: parts.append(len(ws)) or run(self, ws, *rest)  # noqa: E731
    monkeypatch.setattr(frozen_module._Frozen, "_run", recorded)
    ws, turns = latents(G), torch.eye(3).repeat(3, 1, 1)
    turns[:, 0, 2] = torch.tensor([0.1, 0.2, 0.3])
    for transform in (None, turns[0], turns):
        assert_same(frozen_synthesis(G)(ws, transform=transform), G.synthesis(ws, transform=transform))
    assert parts == [1] * 9
    G = generator()
    noise = [torch.randn(1 if i else 3, 1, row.height, row.width) for i, row in enumerate(G.noise_layers)]
    ws = latents(G)
    assert_same(frozen_synthesis(G)(ws, noise), G.synthesis(ws, noise))
    assert frozen_synthesis(G)(ws[:0]).shape == (0, 3, 32, 32)


class FakeCuda:
    """Streams that do nothing, and graphs that run their function again when replayed."""

    def __init__(self, monkeypatch):
        self.captured, self.replayed = 0, 0
        monkeypatch.setattr(torch.cuda, "Stream", lambda: mock.MagicMock())
        monkeypatch.setattr(torch.cuda, "current_stream", mock.MagicMock())
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: mock.MagicMock(replay=self.replay))
        monkeypatch.setattr(torch.cuda, "graph", self.capture)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)

    @contextlib.contextmanager
    def capture(self, graph, stream, capture_error_mode):
        self.captured += 1
        yield

    def replay(self):
        self.replayed += 1
        graph = self.graph
        graph.output.copy_(graph._call(graph.inputs))


def test_a_graph_is_captured_once_and_gets_new_inputs(monkeypatch):
    cuda, G = FakeCuda(monkeypatch), generator()
    network = frozen_module._Frozen(G.synthesis, None)
    graph = cuda.graph = frozen_module._Graph(network._run, network.network.noise_maps("const", latents(G)))
    for i in range(frozen_module.WARM_UP + 2):
        ws = latents(G) + i
        result = graph({"ws": ws, "transform": None})
        assert_same(result, G.synthesis(ws))
    assert (cuda.captured, cuda.replayed) == (1, 2)
    later = graph({"ws": ws - 1, "transform": None})
    assert not torch.equal(result, later)  # a result stays as it was


def test_a_capture_that_fails_is_repeated(monkeypatch):
    cuda, G = FakeCuda(monkeypatch), generator()
    network, ws, streams = frozen_module._Frozen(G.synthesis, None), latents(G), []
    calls = iter([*range(frozen_module.WARM_UP), "fails"])
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: streams.append(stream) or contextlib.nullcontext())

    def run(*inputs):
        if next(calls, None) == "fails":
            raise torch.OutOfMemoryError
        return network._run(*inputs)

    graph = cuda.graph = frozen_module._Graph(run, network.network.noise_maps("const", ws))
    for _ in range(frozen_module.WARM_UP):
        graph({"ws": ws, "transform": None})
    streams.clear()
    with pytest.raises(torch.OutOfMemoryError):
        graph({"ws": ws, "transform": None})
    assert streams == [torch.cuda.current_stream()], "the one that is current afterwards"
    assert_same(graph({"ws": ws + 1, "transform": None}), G.synthesis(ws + 1))
    assert (cuda.captured, cuda.replayed) == (2, 1)


def test_a_graph_gets_new_noise(monkeypatch):
    cuda, G = FakeCuda(monkeypatch), generator()
    network = frozen_module._Frozen(G.synthesis, None)
    ws = latents(G)
    graph = cuda.graph = frozen_module._Graph(network._run, network.network.noise_maps("random", ws))
    for _ in range(frozen_module.WARM_UP + 2):
        noise = network.network.noise_maps("random", ws)
        maps = {name: x * network.strengths[name] for name, x in noise.items()}
        assert_same(graph({"ws": ws, "transform": None, **maps}), G.synthesis(ws, list(noise.values())))
    assert (cuda.captured, cuda.replayed) == (1, 2)


def test_other_settings_are_other_graphs(monkeypatch):
    """A graph repeats what was captured: in fp32, it must not use tensor cores because an earlier call did."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(frozen_module, "_Graph", lambda *_: lambda inputs: None)
    network = SimpleNamespace(noise_maps=lambda noise, ws: {})
    self, ws = SimpleNamespace(network=network, _run=None, graphs={}), mock.MagicMock(device=torch.device("cuda"))
    for i, (convolutions, products) in enumerate([(False, False), (True, False), (True, True)]):
        for implementation in ("cuda", "composite"):
            for _ in range(2):
                with tensor_cores(convolutions, products), use(implementation):
                    frozen_module._Frozen.__call__(self, ws, "const", None)
        assert len(self.graphs) == min(2 * i + 2, frozen_module.GRAPHS)
    assert len({key[0] for key in self.graphs}) == frozen_module.GRAPHS
