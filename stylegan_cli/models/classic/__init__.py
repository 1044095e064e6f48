"""What the families of classic GANs share: configurations, the mapping of z and label, residual networks."""
