"""Metrics of image quality. Each metric is one file that declares its detector, its statistic and its computation.

A detector extracts features of a stream of images (stream.py, path_pairs.py), statistics.py accumulates them, and the
metric's function computes values from the statistics; passes.py shares passes between metrics. registry.py collects
the metrics and resolves names into a protocol, which measure.py measures; requests.py does so for a model's file and
records the values beside it.
"""
