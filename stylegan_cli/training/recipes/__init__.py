"""What can be trained: each recipe declares its networks, phases and state, and what its runs report."""
