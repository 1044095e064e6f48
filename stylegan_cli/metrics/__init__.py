"""Numbers that tell how good images are. One file for each metric says its detector, statistic and computation.

A stream of images (stream.py, path_pairs.py) is seen by a detector, its features go into statistics (statistics.py),
and of these the metric's function makes numbers; passes.py lets metrics share their passes. registry.py collects the
metrics and resolves names into a protocol, the value that measure.py and requests.py (models' files, and what is
recorded beside them) are given.
"""
