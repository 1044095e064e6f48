"""A phase as a CUDA graph: one launch instead of thousands, which limit training on small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 3  # eager runs before the capture: cuDNN selects algorithms, Adam allocates moments, kernels load


class Graphed:
    """A function of static tensors, without arguments or results, as a CUDA graph.

    Runs eagerly at first, then is captured, including double backward, sum over ranks and optimizer, and replayed.
    """

    def __init__(
        self,
        work: Callable[[], None],
        pool: Any,  # torch.cuda.graph_pool_handle(), shared by graphs that never run at the same time
        stream: torch.cuda.Stream,  # of the eager runs and the capture: memory is cached by stream
    ):
        self.work, self.pool, self.stream = work, pool, stream
        self._runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self._runs < WARM_UP:
            self._eager()
            return
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Raises torch.OutOfMemoryError if memory runs out, whatever the capture raises because it cannot end."""
        graph = torch.cuda.CUDAGraph()
        try:
            # A capture that fails leaves its stream current. thread_local: the loader's thread pins memory meanwhile,
            # which would invalidate a global capture.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"),
            ):
                self.work()
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise torch.OutOfMemoryError(f"CUDA out of memory in the capture of a graph: {error}") from None
            raise
        return graph

    def _eager(self) -> None:
        """Run on the stream of the capture, so that PyTorch's per-stream setup is done."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.work()
        torch.cuda.current_stream().wait_stream(self.stream)
        self._runs += 1


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one during which it was raised, says that memory ran out: CUDA, cuBLAS and cuDNN do so in
    their own words."""
    if error is None:
        return False
    words = ("out of memory", "ALLOC_FAILED")
    return any(word in str(error) for word in words) or _is_out_of_memory(error.__context__)
