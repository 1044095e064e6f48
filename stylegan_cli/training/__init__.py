"""Training: losses, regularizers, moving averages, statistics, and the one loop that runs them."""
