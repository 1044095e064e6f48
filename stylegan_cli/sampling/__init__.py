"""Random numbers, latents, and the operations on latents before synthesis."""
