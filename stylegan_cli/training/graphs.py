"""A phase of the step as one CUDA graph: one launch instead of thousands, which is what small images wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 3  # eager runs first: cuDNN chooses algorithms, Adam makes its moments, kernels load


class Graphed:
    """Work on tensors that stay where they are, without arguments or results.

    Runs eagerly at first, then is captured, double backward, sum over ranks and optimizer included, and replayed.
    """

    def __init__(
        self,
        work: Callable[[], None],
        pool: Any,  # torch.cuda.graph_pool_handle(): graphs that never run at the same time share their memory
        stream: torch.cuda.Stream,  # of the first runs and the captures: memory is kept by stream
    ):
        self.work, self.pool, self.stream = work, pool, stream
        self._runs = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self._runs < WARM_UP:
            self._eager()
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            # thread_local: the loader's thread pins memory meanwhile, which a capture of all threads would refuse.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                self.work()
            self._graph = graph
        self._graph.replay()

    def _eager(self) -> None:
        """On the stream of the capture: what PyTorch sets up by stream is then there."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.work()
        torch.cuda.current_stream().wait_stream(self.stream)
        self._runs += 1
