"""Encoders: networks that predict the latents of an image."""
