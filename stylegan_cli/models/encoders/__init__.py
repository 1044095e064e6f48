"""Encoders: networks that map images to latents of a generator, in one call or a few.

An encoder E maps images [N, input_channels, input_size, input_size] in [-1, 1] to offsets [N, num_ws, w_dim] from
`E.latent_avg` [num_ws, w_dim]. If `E.iterative`, half of its input channels are the image of the latents so far, and
its offsets are from those latents. `passes.encode` does either.
"""
