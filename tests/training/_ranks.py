"""Trains the same run on a number of ranks and saves the results; a script for test_ranks.py.

python _ranks.py DATA.zip OUT.pt RANKS
"""

import sys
from pathlib import Path

import torch

from stylegan_cli import distributed
from stylegan_cli.cache import sha256_of
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import SganError
from stylegan_cli.sampling.critics import Critic, CriticInfo, make_classifier, save_critic
from stylegan_cli.training.config import GuideConfig
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes.gan import make_engine
from stylegan_cli.training.state import gather


def make_guide(folder):
    """The settings of an untrained critic. Each rank writes its own file: another would find it half-written."""
    torch.manual_seed(0)
    info = CriticInfo("hat", "tall", 3, 16, 16, True, accuracy=1, low=-1, high=1)
    path = folder / f"critic-{distributed.world_size()}-{distributed.rank()}.safetensors"
    save_critic(path, Critic(info, make_classifier("hat", "tall", 3, True)))
    return GuideConfig(str(path), sha256_of(path), "hat", "tall", 2.0, 0.5)


def config(dataset, ranks, guides=()):
    return make_train_config(
        *("auto", dataset.spec),
        gpus=ranks,
        guides=guides,
        **{"batch": 8, "mbstd_group": 2, "channel_base": 64, "channel_max": 8},
        **{"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "gamma": 2.0, "r1_interval": 8, "pl_interval": 4},
        **{"ema_kimg": 0.1, "mixing_prob": 0.9, "lr": 0.002, "aug": "ada", "ada_kimg": 5.0, "aug_p": 0.3},
    )


def growing_config(dataset, ranks):
    return make_train_config(
        *("demo-stylegan", dataset.spec),
        gpus=ranks,
        **{"batch": 8, "mbstd_group": 2, "mbstd_channels": 1, "channel_base": 64, "channel_max": 8},
        **{"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "r1_interval": 4, "ema_kimg": 0.1, "loss": "hinge"},
        **{"r2_gamma": 1.0, "aux_classifier": True, "grow_batch": {4: 16}},
        **{"grow_kimg": 0.064, "fade_kimg": 0.064, "kimg": 1.0},
    )


def alias_free_config(dataset, ranks):
    """With parts of the batch on a single rank."""
    return make_train_config(
        *("demo-stylegan3", dataset.spec),
        gpus=ranks,
        **{"batch": 8, "batch_gpu": 4, "mbstd_group": 2, "mbstd_channels": 1, "channel_base": 64, "channel_max": 8},
        **{"z_dim": 8, "w_dim": 8, "r1_interval": 4, "pl_weight": 2.0, "pl_interval": 4, "pl_batch_shrink": 1},
        **{"aug": "ada", "aug_p": 0.3, "ema_kimg": 0.1, "blur_sigma": 2.0},
    )


def relativistic_config(dataset, ranks):
    """Pairs of images, both penalties at every step, parts of the batch, and settings that move."""
    return make_train_config(
        *("r3gan", dataset.spec),
        gpus=ranks,
        **{"batch": 8, "batch_gpu": 4, "channel_base": 64, "channel_max": 8, "z_dim": 8, "gamma": 2.0},
        **{"schedule_kimg": 0.08, "lr": 0.002},
    )


def normalized_config(dataset, ranks):
    """Batch and spectral normalization, self-attention, parts of z for each block, several steps of D for one of G."""
    return make_train_config(
        *("biggan", dataset.spec),
        gpus=ranks,
        **{"batch": 8, "channel_base": 64, "channel_max": 8, "z_dim": 8, "lr": 0.002, "d_lr": 0.004},
    )


def chain_config(dataset, ranks, cfg):
    """Stages with batch normalization in turn, and with parts of the batch at once."""
    own = {"z_dim": 80, "stage_kimg": 0.032} if cfg == "demo-stackgan" else {"z_dim": 8, "batch_gpu": 4, "gamma": 1.0}
    sizes = {"batch": 8, "channel_base": 64, "channel_max": 8, "lr": 0.002, "kimg": 0.064}
    return make_train_config(cfg, dataset.spec, gpus=ranks, **sizes | own)


def lack_memory_once(trainer, on_rank):
    """Let the first path lengths of one rank run out of memory, where others would wait for a sum over ranks."""
    objective, fails = trainer.recipe.objective, distributed.rank() == on_rank

    def fail(*args, **options):
        del objective._path_lengths
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return objective._path_lengths(*args, **options)

    objective._path_lengths = fail


def record_gradients(trainer):
    """Record the gradients that each phase passes to its optimizer, by phase."""
    gradients = {}
    for phase in trainer.recipe.phases:
        step = phase.optimizer.step

        def wrapped(step=step, phase=phase):
            name = f"{phase.name[0]}{sum(k.startswith(phase.name[0]) for k in gradients)}"
            gradients[name] = [p.grad.clone() for p in phase.network.parameters() if p.grad is not None]
            step()

        if not hasattr(phase.optimizer, "recorded"):
            phase.optimizer.step, phase.optimizer.recorded = wrapped, True
    return gradients


def work(path, out, ranks):
    dataset = open_dataset(path, size=(8, 8), mirror=True, label="hat")
    results = {}
    guides = (make_guide(Path(out).parent),)
    trainer = make_engine(config(dataset, ranks, guides), dataset, dtype=torch.float64)
    for _ in range(50):
        trainer.step()
    results["state"] = gather(trainer.stateful)
    results["means"] = trainer.means.take()
    trainer.close()
    trainer = make_engine(growing_config(dataset, ranks), dataset, dtype=torch.float64)
    for _ in range(24):  # into the third stage
        trainer.step()
    results["growing"] = gather(trainer.stateful)
    trainer.close()
    trainer = make_engine(alias_free_config(dataset, ranks), dataset, dtype=torch.float64)
    for _ in range(8):
        trainer.step()
    results["alias-free"] = gather(trainer.stateful)
    trainer.close()
    trainer = make_engine(normalized_config(dataset, ranks), dataset, dtype=torch.float64)
    for _ in range(6):
        trainer.step()
    trainer.recipe.prepare_snapshot()
    results["normalized"] = gather(trainer.stateful)
    trainer.close()
    trainer = make_engine(relativistic_config(dataset, ranks), dataset, dtype=torch.float64)
    for _ in range(8):
        trainer.step()
    results["relativistic"] = gather(trainer.stateful)
    trainer.close()
    for cfg in ("demo-lapgan", "demo-stackgan"):
        larger = open_dataset(path, mirror=True, label="hat")
        trainer = make_engine(chain_config(larger, ranks, cfg), larger, dtype=torch.float64)
        for _ in range(8):
            trainer.step()
        trainer.recipe.prepare_snapshot()
        results[cfg] = gather(trainer.stateful)
        trainer.close()
    trainer = make_engine(config(dataset, ranks), dataset)
    lack_memory_once(trainer, on_rank=ranks - 1)
    trainer.fit_memory()
    results["batch_gpu"] = trainer.recipe.batch_gpu
    gradients = record_gradients(trainer)
    trainer.step()
    trainer.close()
    results["gradients"] = gradients
    results["world"] = distributed.world_size()
    flat = torch.cat([p.flatten() for p in trainer.recipe.G.parameters()])
    total = distributed.sum_over_ranks(flat.clone())
    results["same on all ranks"] = bool(torch.allclose(total, flat * ranks, rtol=1e-6))
    if distributed.rank() == 0:
        torch.save(results, out)


def fail():
    raise SganError("The images are gone.", hint="Bring them back.")


if __name__ == "__main__":
    distributed.launch(work, (sys.argv[1], sys.argv[2], int(sys.argv[3])), int(sys.argv[3]))
    try:
        distributed.launch(fail, (), int(sys.argv[3]))
    except Exception as e:
        print(type(e).__name__, str(e), getattr(e, "hint", None), sep="|")
