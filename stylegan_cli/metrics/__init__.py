"""Numbers that tell how good pictures are; one file for each metric, a pure function of features.

A stream of pictures (stream.py) is seen by a detector, its features go into statistics (statistics.py), and of these
the function makes a number. registry.py names the protocols, passes.py lets metrics share their passes, measure.py and
in_training.py are what commands call.
"""
