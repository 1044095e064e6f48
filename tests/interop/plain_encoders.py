"""The encoders of pSp, e4e and ReStyle by the definitions of their layers, from tensors with the names of their files.

A case has the attributes of `Case` in test_encoders.py. The widths are smaller than in the programs.
"""

import math

import torch
from torch.nn import functional as F

WIDTHS = (16, 32, 48, 64)  # channels of the stages
IR_BLOCKS, RESNET_BLOCKS = (3, 4, 14, 3), (3, 4, 6, 3)


# ---------------------------------------------------------------------------------- the content of a file


class Weights(dict):
    """Random tensors by name."""

    def __init__(self, seed):
        super().__init__()
        self.g = torch.Generator().manual_seed(seed)

    def normal(self, name, *shape, scale=1.0):
        self[name] = torch.randn(shape, generator=self.g) * scale

    def conv(self, name, before, after, kernel, bias=False):
        self.normal(f"{name}.weight", after, before, kernel, kernel, scale=math.sqrt(1.6 / (before * kernel**2)))
        if bias:
            self.normal(f"{name}.bias", after, scale=0.1)

    def norm(self, name, n, scale=1.0):
        for tensor in ("weight", "running_var"):
            self[f"{name}.{tensor}"] = torch.rand(n, generator=self.g) + 0.5
        self[f"{name}.weight"] *= scale
        for tensor in ("bias", "running_mean"):
            self.normal(f"{name}.{tensor}", n, scale=0.1)
        self[f"{name}.num_batches_tracked"] = torch.tensor(300_000)

    def prelu(self, name, n):
        self[f"{name}.weight"] = torch.rand(n, generator=self.g) / 2

    def linear(self, name, before, after):
        self.normal(f"{name}.weight", after, before, scale=0.3)
        self.normal(f"{name}.bias", after, scale=0.1)


def stages(case):  # index, channels before and after, and stride of each residual block
    index, before = 0, WIDTHS[0]
    for stage, (count, after) in enumerate(zip(RESNET_BLOCKS if case.resnet else IR_BLOCKS, WIDTHS, strict=True)):
        for i in range(count):
            yield index, before, after, 1 if i or (case.resnet and stage == 0) else 2
            index, before = index + 1, after


def halvings(case, i):
    return 4 + (case.pyramid and i >= 3) + (case.pyramid and i >= 7)


def weights(case):
    """Random weights of an encoder."""
    t = Weights(5)
    stem, norm, act = ("conv1", "bn1", "relu") if case.resnet else (f"input_layer.{i}" for i in range(3))
    t.conv(stem, case.channels, WIDTHS[0], 7 if case.resnet else 3)
    t.norm(norm, WIDTHS[0])
    t.prelu(act, WIDTHS[0])
    for i, before, after, _ in stages(case):
        block = f"body.{i}"
        convs = ("conv1", "conv2") if case.resnet else ("res_layer.1", "res_layer.3")
        norms = {"bn1": after, "bn2": after} if case.resnet else {"res_layer.0": before, "res_layer.4": after}
        t.conv(f"{block}.{convs[0]}", before, after, 3)
        t.conv(f"{block}.{convs[1]}", after, after, 3)
        for name, n in norms.items():
            t.norm(f"{block}.{name}", n, 0.3 if name in ("bn2", "res_layer.4") else 1)  # so that they do not add up
        if before != after:
            shortcut = f"{block}.{'downsample' if case.resnet else 'shortcut_layer'}"
            t.conv(f"{shortcut}.0", before, after, 1)
            t.norm(f"{shortcut}.1", after)
        if not case.resnet:
            t.prelu(f"{block}.res_layer.2", after)
        if not case.resnet and case.se:
            t.conv(f"{block}.res_layer.5.fc1", after, after // 16, 1)
            t.conv(f"{block}.res_layer.5.fc2", after // 16, after, 1)
    heads(t, case)
    return dict(t)


def heads(t, case):
    if case.into_w:
        t.linear("linear", WIDTHS[-1], case.w_dim)
    elif case.into_w_plus:
        t.norm("output_layer_2.0", WIDTHS[-1])
        t.normal("output_layer_2.3.weight", case.w_dim, 49 * WIDTHS[-1], scale=0.02)
        t.normal("output_layer_2.3.bias", case.w_dim)
        t.linear("linear", case.w_dim, case.w_dim * case.num_ws)
    else:
        for i in range(case.num_ws):
            for j in range(halvings(case, i)):
                t.conv(f"styles.{i}.convs.{2 * j}", case.w_dim if j else WIDTHS[-1], case.w_dim, 3, bias=True)
            t.linear(f"styles.{i}.linear", case.w_dim, case.w_dim)
    if case.pyramid:
        t.conv("latlayer1", WIDTHS[2], WIDTHS[-1], 1, bias=True)
        t.conv("latlayer2", WIDTHS[1], WIDTHS[-1], 1, bias=True)


# ------------------------------------------------------------------------------- the definitions of the layers


def norm(t, name, x):
    mean, var, weight, bias = (
        t[f"{name}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def conv(t, name, x, stride=1):
    w = t[f"{name}.weight"]
    return F.conv2d(x, w, t.get(f"{name}.bias"), stride, w.shape[-1] // 2)


def prelu(t, name, x):
    return torch.where(x > 0, x, x * t[f"{name}.weight"][:, None, None])


def linear(t, name, x):
    w = t[f"{name}.weight"]
    return x @ w.t() / math.sqrt(w.shape[1]) + t[f"{name}.bias"]


def residual_block(t, name, case, x, stride):
    if case.resnet:
        y = norm(t, f"{name}.bn1", conv(t, f"{name}.conv1", x, stride)).clamp(min=0)
        y, shortcut = norm(t, f"{name}.bn2", conv(t, f"{name}.conv2", y)), f"{name}.downsample"
    else:
        layer, shortcut = f"{name}.res_layer", f"{name}.shortcut_layer"
        y = prelu(t, f"{layer}.2", conv(t, f"{layer}.1", norm(t, f"{layer}.0", x)))
        y = norm(t, f"{layer}.4", conv(t, f"{layer}.3", y, stride))
        if case.se:
            hidden = conv(t, f"{layer}.5.fc1", y.mean([2, 3], keepdim=True)).clamp(min=0)
            y = y / (1 + (-conv(t, f"{layer}.5.fc2", hidden)).exp())
    if f"{shortcut}.0.weight" in t:
        x = norm(t, f"{shortcut}.1", conv(t, f"{shortcut}.0", x, stride))
    else:
        x = x[:, :, ::stride, ::stride]
    return (x + y).clamp(min=0) if case.resnet else x + y


def offsets(t, case, x):
    """What the encoder of a file returns."""
    x = x[:, :, 32:224] if case.opts.get("dataset_type") == "cars_encode" else x
    if case.resnet:
        x = prelu(t, "relu", norm(t, "bn1", conv(t, "conv1", x, 2)))
    else:
        x = prelu(t, "input_layer.2", norm(t, "input_layer.1", conv(t, "input_layer.0", x)))
    maps = {}  # by height
    for i, _, _, stride in stages(case):
        maps[x.shape[2] // stride] = x = residual_block(t, f"body.{i}", case, x, stride)
    if case.into_w:
        return linear(t, "linear", x.mean([2, 3]))[:, None].repeat(1, case.num_ws, 1)
    if case.into_w_plus:
        x = F.adaptive_avg_pool2d(norm(t, "output_layer_2.0", x), 7).flatten(1)
        x = x @ t["output_layer_2.3.weight"].t() + t["output_layer_2.3.bias"]
        return linear(t, "linear", x).reshape(len(x), case.num_ws, case.w_dim)
    levels = [x, x, x]
    if case.pyramid:
        for level, height in ((1, 2 * x.shape[2]), (2, 4 * x.shape[2])):
            side = conv(t, f"latlayer{level}", maps[height])
            levels[level] = side + F.interpolate(levels[level - 1], side.shape[2:], mode="bilinear", align_corners=True)
    results = []
    for i in range(case.num_ws):
        x = levels[(i >= 3) + (i >= 7)]
        for j in range(halvings(case, i)):
            x = F.leaky_relu(conv(t, f"styles.{i}.convs.{2 * j}", x, 2), 0.01)
        results.append(linear(t, f"styles.{i}.linear", x.reshape(len(x), case.w_dim)))
    if case.adds_up:
        results = [results[0], *(results[0] + r for r in results[1:])]
    return torch.stack(results, 1)
