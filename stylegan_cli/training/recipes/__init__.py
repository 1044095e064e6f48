"""What can be trained: each recipe declares its networks, phases and memory, and what a run shows of it."""
