"""A script that torchrun starts, for test_distributed.py.

python -m torch.distributed.run --standalone --nproc-per-node 2 _distributed_torchrun.py FOLDER
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _distributed_ranks import write

from stylegan_cli import distributed
from stylegan_cli.errors import SganError


def report(folder):
    facts = distributed.has_launcher(), distributed.launcher_world_size(), distributed.is_first_on_machine()
    write(folder, "launched", facts)
    assert distributed.broadcast_text(os.environ["RANK"]) == "0"


if __name__ == "__main__":
    distributed.launch(report, (sys.argv[1],), None)
    try:
        distributed.launch(report, (sys.argv[1],), 3)
    except SganError as e:
        sys.exit(f"Error: {e}\n{e.hint}")
