"""Several processes as one: rank, start and restart, sums and other words between the ranks.

`launch` calls a function on every rank: here if there is one, in new processes if there are more, and as one rank of
many in a process that torchrun started.
"""

from .launcher import launch
from .tensors import (
    any_rank,
    broadcast_text,
    gather_over_ranks,
    rank,
    same_on_all_ranks,
    sum_gradients,
    sum_over_ranks,
    world_size,
)
from .torchrun import has_launcher, is_first_on_machine, launcher_world_size
