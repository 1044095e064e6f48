"""Checkpoints of other programs: read as data, written in their form. No byte of a file is ever run."""
