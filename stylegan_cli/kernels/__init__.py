"""The CUDA kernels as a binary: compiler search, build and cache."""
