"""Which implementation of an op runs."""

from __future__ import annotations


def use_fast(
    impl: str,  # 'auto', 'cuda' or 'reference'
) -> bool:
    """Whether the fast path may be taken. Raises RuntimeError for 'cuda', ValueError on an unknown name."""
    if impl == "cuda":
        raise RuntimeError("this version has no CUDA kernels yet: use impl='auto' or 'reference'")
    if impl not in ("auto", "reference"):
        raise ValueError(f"impl must be 'auto', 'cuda' or 'reference', not {impl!r}")
    return impl == "auto"
