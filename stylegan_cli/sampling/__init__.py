"""Where random numbers and latents come from, and what is done to latents before synthesis."""
