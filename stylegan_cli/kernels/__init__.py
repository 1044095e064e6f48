"""The CUDA kernels as a binary: the compilers that make it, the build, and the cache that keeps it."""
