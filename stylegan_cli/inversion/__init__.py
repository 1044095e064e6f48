"""From images to the latents that draw them, and what can be done with latents once they are known."""
