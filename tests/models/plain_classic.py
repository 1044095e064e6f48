"""The classic networks written down plainly, as the papers define them: what the tests compare the networks with.

They take a state dict of ours, and note what they read of it, so that a tensor that a paper does not have is found.
Radford et al. 2016 (DCGAN), Miyato et al. 2018 (SNGAN, appendix B.4), Miyato and Koyama 2018 (labels), Zhang et al.
2019 (SAGAN, equations 1 to 3), Brock et al. 2019 (BigGAN, appendix B).
"""

import math

import torch


class Tensors(dict):
    """A state dict that notes what is read."""

    def __init__(self, state):
        super().__init__(state)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def conv(x, weight, bias=None, stride=1):
    return torch.nn.functional.conv2d(x, weight, bias, stride, weight.shape[2] // 2)


def relu(x):
    return torch.where(x > 0, x, 0.0)


def halved(x):
    """Means of 2 x 2 pixels."""
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def doubled(x):
    """Nearest neighbors."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def at_pixels(x):
    return x[..., None, None]


class Network:
    def __init__(self, state, training):
        self.s, self.training = Tensors(state), training

    def weight(self, name, spectral):
        """W / (u^T W v), v = W^T u / |W^T u| (Miyato et al. 2018, algorithm 1), u and v constant."""
        weight = self.s[f"{name}.weight"]
        if not spectral:
            return weight
        matrix, u = weight.reshape(len(weight), -1), self.s[f"{name}.u"]
        v = (matrix.T @ u).detach()
        return weight / (u @ matrix @ (v / v.norm()))

    def dense(self, x, name, spectral=False, bias=True):
        y = x @ self.weight(name, spectral).T
        return y + self.s[f"{name}.bias"] if bias else y

    def conv(self, x, name, spectral=False, bias=True):
        return conv(x, self.weight(name, spectral), self.s[f"{name}.bias"] if bias else None)

    def normalized(self, x, name):
        """By the moments of the batch, or the stored ones."""
        mean, variance = self.s[f"{name}.mean"], self.s[f"{name}.variance"]
        if self.training:
            mean = x.mean((0, 2, 3))
            variance = (x - at_pixels(mean)).square().mean((0, 2, 3))
        return (x - at_pixels(mean)) / at_pixels(variance + 1e-5).sqrt()

    def batch_norm(self, x, name):
        gain, bias = 1 + self.s[f"{name}.gain"], self.s[f"{name}.bias"]
        return at_pixels(gain) * self.normalized(x, name) + at_pixels(bias)

    def conditional_norm(self, x, name, condition, spectral):
        """Gains and biases are linear functions of a condition (Miyato and Koyama 2018; Brock et al. 2019, B)."""
        gain, bias = (self.dense(condition, f"{name}.{part}", spectral, bias=False) for part in ("gain", "bias"))
        return at_pixels(1 + gain) * self.normalized(x, f"{name}.norm") + at_pixels(bias)

    def attention(self, x, name, spectral, pooled):
        """o_j = v(sum_i softmax_i(f(x_i)^T g(x_j)) h(x_i)), y = gamma o + x; in BigGAN i counts 2 x 2 pixels."""
        g, f, h = (self.conv(x, f"{name}.{part}", spectral, bias=False) for part in ("query", "key", "value"))
        if pooled:
            f, h = (torch.nn.functional.max_pool2d(y, 2) for y in (f, h))
        beta = torch.einsum("nki,nkj->nij", f.flatten(2), g.flatten(2)).softmax(1)
        found = torch.einsum("nci,nij->ncj", h.flatten(2), beta).reshape(len(x), -1, *x.shape[2:])
        return x + self.s[f"{name}.gamma"] * self.conv(found, f"{name}.out", spectral, bias=False)

    # ---------------------------------------------------------------------------- DCGAN

    def dcgan_generator(self, z, c, size):
        x = (1 + torch.erf(z / math.sqrt(2))) / 2  # the distribution function: uniform numbers of normal ones
        x = 2 * x - 1 if c is None else torch.cat([2 * x - 1, c], 1)
        x = self.dense(x, "synthesis.dense.affine", bias=False)
        x = x.reshape(len(z), -1, size[0] // 4, size[1] // 4)
        x = relu(self.batch_norm(x, "synthesis.norm"))
        x = relu(self.batch_norm(self.transposed(x, self.s["synthesis.b8.up.weight"]), "synthesis.b8.norm"))
        x = self.transposed(x, self.s["synthesis.b16.up.weight"]) + at_pixels(self.s["synthesis.b16.up.bias"])
        return x.tanh()

    def transposed(self, x, weight):
        """Zeros between the pixels, then a convolution with the kernel turned around."""
        n, channels, h, w = x.shape
        spread = torch.zeros(n, channels, 2 * h, 2 * w, dtype=x.dtype)
        spread[:, :, ::2, ::2] = x
        return conv(spread, weight.flip(2, 3).transpose(0, 1))

    def dcgan_discriminator(self, x, c):
        x = conv(x, self.s["b16.down.weight"], self.s["b16.down.bias"], stride=2)
        x = torch.where(x > 0, x, 0.2 * x)
        x = self.batch_norm(conv(x, self.s["b8.down.weight"], stride=2), "b8.norm")
        x = torch.where(x > 0, x, 0.2 * x)
        return self.logits(x.flatten(1), c, spectral=False)

    def logits(self, h, c, spectral):
        """A h + b, and the projection of the label (Miyato and Koyama 2018, equation 3)."""
        y = self.dense(h, "out", spectral)
        return y if c is None else y + (self.dense(c, "embed", spectral, bias=False) * h).sum(1, keepdim=True)

    # ----------------------------------------------------- SNGAN, SAGAN and BigGAN

    def residual_generator(self, family, z, c, size, attention=None):
        spectral = family != "sngan"
        if family == "biggan":  # part k of z with the shared embedding (appendix B, figure 15)
            shared = [] if c is None else [self.dense(c, "mapping.embed", bias=False)]
            z, *parts = z.chunk(3, 1)
            conditions = [torch.cat([part, *shared], 1) for part in parts]
        else:
            conditions = [c, c]
        x = self.dense(z, "synthesis.dense.affine", spectral)
        x = x.reshape(len(z), -1, size[0] // 4, size[1] // 4)
        for level, condition in zip((8, 16), conditions, strict=True):
            x = self.up_block(x, f"synthesis.b{level}", condition, family, spectral)
            if level == attention:
                x = self.attention(x, "synthesis.attention", spectral, pooled=family == "biggan")
        x = relu(self.batch_norm(x, "synthesis.norm"))
        return self.conv(x, "synthesis.torgb", spectral).tanh()

    def up_block(self, x, name, condition, family, spectral):
        """Batch normalization, ReLU, upsampling, 3x3; batch normalization, ReLU, 3x3. Beside it upsampling, 1x1."""

        def norm(x, which):
            if condition is None:
                return self.batch_norm(x, f"{name}.{which}.norm")
            return self.conditional_norm(x, f"{name}.{which}.norm", condition, spectral=family == "biggan")

        y = self.conv(doubled(relu(norm(x, "norm0"))), f"{name}.conv0", spectral)
        y = self.conv(relu(norm(y, "norm1")), f"{name}.conv1", spectral)
        return y + self.conv(doubled(x), f"{name}.skip", spectral)

    def residual_discriminator(self, family, x, c, blocks, attention=None):
        """blocks: names with whether they halve the size. The sum over the pixels of the last ReLU is h."""
        for k, (name, down) in enumerate(blocks):
            y = self.conv(x if k == 0 else relu(x), f"{name}.conv0", spectral=True)
            y = self.conv(relu(y), f"{name}.conv1", spectral=True)
            if down or x.shape[1] != y.shape[1]:
                x = self.conv(x, f"{name}.skip", spectral=True)
            x = halved(y) + halved(x) if down else y + x
            if name == attention:
                x = self.attention(x, "attention", True, pooled=family == "biggan")
        return self.logits(relu(x).sum((2, 3)), c, spectral=True)
