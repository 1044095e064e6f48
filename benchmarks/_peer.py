"""stylegan3 or stylegan2-ada-pytorch, imported from a checkout, to be measured in the same run."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_cli.kernels import toolchain
from stylegan_cli.models.config import LevelsDiscriminatorConfig
from stylegan_cli.models.stylegan2.config import StyleGAN2Config
from stylegan_cli.training.config import TrainConfig


@dataclass(frozen=True)
class Peer:
    """The modules of a checkout."""

    bias_act: types.ModuleType
    upfirdn2d: types.ModuleType
    gradfix: types.ModuleType
    networks: types.ModuleType
    losses: types.ModuleType
    filtered_lrelu: types.ModuleType | None  # None: not in stylegan2-ada-pytorch


def load(
    path: str,  # of the checkout
    device: torch.device,
) -> tuple[Peer | None, str | None]:
    """The peer, if it can be imported; and why it cannot be compared, None if its kernels work."""
    sys.path.insert(0, str(Path(path).resolve()))
    try:
        if device.type == "cuda":
            _set_toolchain()  # before importing PyTorch's extension tools, which search only then
        with _stubs():
            peer = _import()
    except Exception as e:
        return None, f"cannot be imported: {type(e).__name__}: {e}"
    return peer, _without_kernels(peer, device)


def _import() -> Peer:
    ops = [importlib.import_module(f"torch_utils.ops.{name}") for name in ("bias_act", "upfirdn2d", "conv2d_gradfix")]
    try:
        networks = importlib.import_module("training.networks_stylegan2")
    except ModuleNotFoundError as e:
        if e.name != "training.networks_stylegan2":
            raise
        networks = importlib.import_module("training.networks")  # its name in stylegan2-ada-pytorch
    spec = importlib.util.find_spec("torch_utils.ops.filtered_lrelu")
    filtered_lrelu = importlib.import_module(spec.name) if spec else None
    return Peer(*ops, networks, importlib.import_module("training.loss"), filtered_lrelu)


@contextlib.contextmanager
def _stubs() -> Iterator[None]:
    """Stubs for pkg_resources, which setuptools no longer contains, and requests. The peers import both, but need only
    one function."""

    def parse_version(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", text)[:2])

    absent = [name for name in ("pkg_resources", "requests") if importlib.util.find_spec(name) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].parse_version = parse_version
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _without_kernels(peer: Peer, device: torch.device) -> str | None:
    if device.type != "cuda":
        return "its kernels need a GPU"
    return _problem_of(peer.bias_act) or _problem_of(peer.upfirdn2d)  # the third is built when it is called


def _problem_of(module: types.ModuleType) -> str | None:
    """Build the kernels of one of its ops. Returns why that fails."""
    try:
        loaded = module._init() and module._plugin is not None
    except Exception as e:
        return f"{module.__name__} was not built: {type(e).__name__}: {str(e).partition(chr(10))[0]}"
    return None if loaded else f"{module.__name__} was not built"


def build(
    path: str,  # of the checkout
    name: str,  # of an op with kernels
) -> str:
    """Build the kernels of one op into PyTorch's cache of extensions. Returns a sentence about it."""
    sys.path.insert(0, str(Path(path).resolve()))
    _set_toolchain()
    with _stubs():
        if importlib.util.find_spec(f"torch_utils.ops.{name}") is None:
            return f"the peer has no {name}"
        module = importlib.import_module(f"torch_utils.ops.{name}")
    return _problem_of(module) or f"the peer's {name} was built"


def _set_toolchain() -> None:
    """Make our compiler and ninja available to PyTorch's extension tools, which the peers build with."""
    nvcc, ninja = toolchain.find_nvcc(toolchain.architectures()), toolchain.find_ninja()
    if nvcc:
        os.environ.setdefault("CUDA_HOME", str(nvcc.home))
    if ninja:
        os.environ["PATH"] += os.pathsep + str(ninja.parent)


# ---------------------------------------------------------------------------------------------- networks


LAYOUTS = {"peer": False, "peer channels_last": True}  # candidate -> layout of its half-precision levels


def synthesis(peer: Peer, config: StyleGAN2Config, half: bool, channels_last: bool = False) -> nn.Module:
    arguments = _arguments(config, half) | {"fp16_channels_last": channels_last}
    return peer.networks.SynthesisNetwork(**arguments, w_dim=config.w_dim)


def generator(peer: Peer, config: StyleGAN2Config, half: bool, channels_last: bool = False) -> nn.Module:
    arguments = {"z_dim": config.z_dim, "c_dim": 0, "w_dim": config.w_dim} | _arguments(config, half)
    sizes = {key: arguments.pop(key) for key in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")}
    sizes["fp16_channels_last"] = channels_last
    nested = peer.networks.__name__ == "training.networks"  # stylegan2-ada-pytorch
    mapping = {"num_layers": config.mapping_layers}
    return peer.networks.Generator(
        **arguments, mapping_kwargs=mapping, **({"synthesis_kwargs": sizes} if nested else sizes)
    )


def discriminator(peer: Peer, config: LevelsDiscriminatorConfig, half: bool, channels_last: bool = False) -> nn.Module:
    blocks = {"fp16_channels_last": channels_last}
    epilogue = {"mbstd_group_size": config.mbstd_group, "mbstd_num_channels": config.mbstd_channels}
    arguments = _arguments(config, half)
    return peer.networks.Discriminator(c_dim=0, **arguments, block_kwargs=blocks, epilogue_kwargs=epilogue)


def _arguments(config: StyleGAN2Config | LevelsDiscriminatorConfig, half: bool) -> dict[str, object]:
    return {
        "img_resolution": config.height,
        "img_channels": config.channels,
        "channel_base": config.channel_base,
        "channel_max": config.channel_max,
        "num_fp16_res": config.half_levels if half else 0,
        "conv_clamp": 256 if half else None,
    }


def copy_weights(peer_network: nn.Module, network: nn.Module) -> None:
    """Copy our weights into the peer's network. Raises ValueError if one of its parameters has no counterpart."""
    weights, targets = network.state_dict(), peer_network.state_dict()
    missing = [name for name, _ in peer_network.named_parameters() if name not in weights]
    if missing:
        raise ValueError(f"our network has no counterpart of the peer's {missing[0]}")
    with torch.no_grad():
        for name, value in targets.items():
            if name in weights:
                value.copy_(weights[name])


def modulated_layer(
    peer: Peer,
    x: Tensor,  # [N, I, H, W]
    w: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    noise: Tensor | None,  # [1, 1, H * up, W * up]
    b: Tensor,  # [O]
    f: Tensor,  # [4, 4]
    up: int,
    demodulate: bool,
    act: str,
    clamp: float,
    grouped: bool,  # one convolution with per-sample weights, as the peer does for inference
) -> Tensor:  # [N, O, H * up, W * up]
    """The peer's layer, as in its networks."""
    options = {"up": up, "padding": w.shape[-1] // 2, "resample_filter": f, "demodulate": demodulate}
    noise = None if noise is None else noise.to(x.dtype)
    y = peer.networks.modulated_conv2d(x, w, style, noise=noise, flip_weight=up == 1, fused_modconv=grouped, **options)
    return peer.bias_act.bias_act(y, b.to(x.dtype), act=act, clamp=clamp)


# ---------------------------------------------------------------------------------------------- training


def training_phases(
    peer: Peer,
    config: TrainConfig,
    half: bool,
    images: Tensor,  # [N, C, H, W]
    channels_last: bool = False,
) -> dict[str, Callable[[int], list[Tensor]]]:
    """Names of our phases -> the corresponding steps of the peer, with Adam."""
    device, n = images.device, len(images)
    G = generator(peer, config.generator, half, channels_last)
    D = discriminator(peer, config.discriminator, half, channels_last)
    G, D = (m.to(device).train().requires_grad_(False) for m in (G, D))
    nets = {"G": G, "D": D, "G_mapping": G.mapping, "G_synthesis": G.synthesis, "device": device}
    nets |= {"r1_gamma": config.gamma, "style_mixing_prob": config.mixing_prob, "pl_weight": config.pl_weight}
    loss = peer.losses.StyleGAN2Loss(**_known(peer.losses.StyleGAN2Loss.__init__, nets))
    _enable_gradfix(peer, device)
    inputs = {"real_img": images, "real_c": images.new_zeros(n, 0), "gen_c": images.new_zeros(n, 0)}
    inputs |= {"gain": 1, "sync": True, "cur_nimg": 0}
    inputs = _known(loss.accumulate_gradients, inputs)

    def phase(name, network, optimizer):
        def run(_):
            network.requires_grad_(True)
            optimizer.zero_grad(set_to_none=True)
            loss.accumulate_gradients(phase=name, gen_z=torch.randn(n, config.generator.z_dim, device=device), **inputs)
            network.requires_grad_(False)
            optimizer.step()
            return [p.grad for p in network.parameters() if p.grad is not None]

        return run

    g, d = (torch.optim.Adam(m.parameters(), lr=0.0, betas=(0.0, 0.99), eps=1e-8) for m in (G, D))
    return {
        "G": phase("Gmain", G, g),
        "G path length": phase("Greg", G, g),
        "D": phase("Dmain", D, d),
        "D R1": phase("Dreg", D, d),
    }


def _known(function: Callable, arguments: dict[str, object]) -> dict[str, object]:
    """The arguments that the function accepts, which differ between the peers."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in names}


def _enable_gradfix(peer: Peer, device: torch.device) -> None:
    """Enable the peer's convolutions, which train faster, if they still work with this PyTorch."""
    peer.gradfix.enabled = True
    x = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    w = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    try:
        (dx,) = torch.autograd.grad(peer.gradfix.conv2d(x, w, padding=1).square().sum(), x, create_graph=True)
        dx.sum().backward()
    except Exception as e:
        print(f"peer: training without its own convolution gradients, which fail with {type(e).__name__}: {e}")
        peer.gradfix.enabled = False
