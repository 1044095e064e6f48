"""Encoders: networks that map images to latents of a generator, in one call or a few.

An encoder E maps images [N, E.input_channels, *E.input_size] in [-1, 1] to offsets [N, E.num_ws, E.w_dim]
from `E.latent_avg` [num_ws, w_dim]. If `E.iterative`, the second half of its input channels is the image of the latents
so far, its offsets are from those latents, and `E.passes` is how often it is called. `passes.encode` does either.
"""
