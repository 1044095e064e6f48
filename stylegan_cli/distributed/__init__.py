"""Distributed runs: starting and restarting ranks, and communication between them.

`launch` calls a function on every rank: in this process if there is only one or if torchrun started it, otherwise in
new processes.
"""

from .launcher import launch
from .tensors import (
    alone,
    any_rank,
    broadcast_text,
    differentiable_sum_over_ranks,
    gather_over_ranks,
    rank,
    same_on_all_ranks,
    sum_gradients,
    sum_over_ranks,
    world_size,
)
from .torchrun import has_launcher, is_first_on_machine, launcher_world_size
