"""Chains of generators, each of which enlarges the image of the one before: what LAPGAN and StackGAN share."""
