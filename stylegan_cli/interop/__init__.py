"""Reading and writing checkpoints of other programs. Files are read as data; code in them is never run."""
