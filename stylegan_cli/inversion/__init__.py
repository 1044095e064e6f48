"""Projection of images to latents, directions in the latent space, and attribution of images to a model."""
