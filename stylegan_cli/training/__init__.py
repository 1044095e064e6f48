"""Training: losses, regularizers, moving averages, statistics, and the training loop."""
