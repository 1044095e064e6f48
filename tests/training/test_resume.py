"""Continuing runs: with changed settings, with other images, and refused without a trace."""

import json

import pytest
import torch

from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.errors import MisuseError, SganError
from stylegan_cli.models.registry import build_generator
from stylegan_cli.runs import latest_snapshot
from stylegan_cli.runs.history import describe_changes
from stylegan_cli.runs.page import make_page
from stylegan_cli.snapshot import SnapshotInfo, load_snapshot, save_snapshot
from stylegan_cli.training.presets import make_train_config
from stylegan_cli.training.recipes import gan_plan, gan_resume
from stylegan_cli.training.recipes.gan import train
from stylegan_cli.training.run import RunOptions
from stylegan_cli.training.state_files import list_states, read_about, read_state

QUIET = RunOptions(quiet=True)


def resume(folder, data=None, **options):
    plan = gan_resume.plan_resumed_run(folder, options, data)
    train(plan.config, folder, "cpu", plan.start, QUIET, plan.dataset)


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_changed_settings_hold_from_the_state_on(train_run):
    """Counters, moments and p continue; learning rates, betas and phases are those of the new settings."""
    folder, _ = train_run(pl_weight=0)
    before, _ = read_state(list_states(folder)[0])
    resume(folder, kimg=0.056, batch=4, batch_gpu=4, gamma=0.5, lr=0.001, pl_weight=1.0, ada_target=0.3, ema_kimg=1.0)
    state, about = read_state(list_states(folder)[0])
    assert state["clock"] == {"step": 6 + 2, "shown": 48 + 2 * 4} and state["data"]["position"] == 56
    assert about["config"]["gamma"] == settings(folder)["gamma"] == 0.5
    for name in ("G", "D"):  # regularized every other step: k / (k + 1) = 2 / 3
        (group,) = state[f"optimizer.{name}"]["param_groups"]
        assert group["lr"] == pytest.approx(0.001 * 2 / 3) and group["betas"][1] == pytest.approx(0.99 ** (2 / 3))
    # A main step each, and one path-length step.
    assert [max(float(s["step"]) for s in x["optimizer.G"]["state"].values()) for x in (before, state)] == [6, 9]
    assert abs(float(state["augment"]["p"]) - float(before["augment"]["p"])) <= 4 * 4 / 500_000
    ((entry),) = settings(folder)["history"]
    assert entry["kimg"] == 0.048
    assert entry["changes"].keys() == {"lr", "batch", "gamma", "pl_weight", "ada_target", "ema_kimg"}
    assert entry["changes"]["batch"] == [8, 4] and entry["changes"]["gamma"] == [2.0, 0.5]
    log = (folder / "log.txt").read_text()
    assert "Settings changed at kimg 0.048:" in log and "not exact" in log
    page = make_page(folder)
    assert "changed at 0.048 kimg" in page and "gamma 2.0 -&gt; 0.5" in page and 'class="change"' in page


def test_unchanged_settings_may_be_repeated(train_run):
    uninterrupted, config = train_run(name="uninterrupted", kimg=0.072)
    folder, _ = train_run()
    repeated = {"cfg": "auto", "batch": 8, "gamma": 2.0, "lr": config.lr, "channel_base": 64, "mirror": True}
    resume(folder, kimg=0.072, size=(16, 16), **repeated)
    a, b = (read_state(list_states(x)[0])[0]["G_ema"] for x in (uninterrupted, folder))
    assert all(torch.equal(a[name], b[name]) for name in a) and "history" not in settings(folder)


@pytest.mark.parametrize(
    ("trained", "fits"),
    [("stylegan3-t", "stylegan3-t"), ("stylegan3-r", "stylegan3-r"), ("demo-stylegan3", "stylegan3-t")]
    + [("paper256", "auto"), ("progan", "auto")],
)
def test_the_default_preset_for_the_weights_of_a_model_is_of_its_family(rgb_set, tmp_path, trained, fits):
    config = make_train_config(trained, open_dataset(rgb_set).spec, channel_base=64, channel_max=8)
    path = tmp_path / "model.safetensors"
    save_snapshot(path, build_generator(config.generator), None, SnapshotInfo(config.generator))
    plan = gan_plan.plan_new_run(str(rgb_set), None, str(path))
    assert plan.config.cfg == fits and plan.config.pl_weight == (2 if fits == "auto" else 0)
    assert gan_plan.plan_new_run(str(rgb_set), "auto", str(path)).config.cfg == "auto"


@pytest.mark.parametrize(
    ("trained", "fits"), [("paper256", "demo-stylegan2"), ("style-r3gan", "demo"), ("demo-stylegan3", "demo-stylegan3")]
)
def test_for_the_bundled_images_it_is_the_small_one(rgb_set, tmp_path, trained, fits):
    bundled = open_dataset(None, size=(16, 16)).spec
    config = make_train_config(trained, bundled, channel_base=64, channel_max=8)
    path = tmp_path / "model.safetensors"
    save_snapshot(path, build_generator(config.generator), None, SnapshotInfo(config.generator, data=bundled))
    assert gan_plan.plan_new_run(None, None, str(path)).config.cfg == fits


def test_auto_trains_a_model_of_another_family_in_a_precision_that_it_bears(rgb_set, tmp_path):
    """Nothing bounds the features of R3GAN, and its images have one latent."""
    data = open_dataset(rgb_set).spec
    config = make_train_config("r3gan", data, channel_base=64, channel_max=16)
    path = tmp_path / "model.safetensors"
    save_snapshot(path, build_generator(config.generator), None, SnapshotInfo(config.generator))
    plan = gan_plan.plan_new_run(str(rgb_set), "auto", str(path), device="cuda", precision="auto")
    assert (plan.config.precision, plan.config.mixing_prob) == ("bf16", 0.0)
    with pytest.raises(MisuseError, match="--mixing-prob has no effect on R3GAN models"):
        gan_plan.plan_new_run(str(rgb_set), "auto", str(path), mixing_prob=0.5)
    assert make_train_config("auto", data, device="cuda", precision="auto").precision == "fp16"


def test_a_learning_rate_is_that_of_both_networks(train_run):
    folder, _ = train_run(d_lr=0.004)
    planned = gan_resume.plan_resumed_run(folder, {"lr": 0.003, "kimg": 0.056}).config
    assert (planned.lr, planned.d_lr) == (0.003, None)
    planned = gan_resume.plan_resumed_run(folder, {"lr": 0.003, "d_lr": 0.005, "kimg": 0.056}).config
    assert (planned.lr, planned.d_lr) == (0.003, 0.005)
    planned = gan_resume.plan_resumed_run(folder, {"lr": 0.003, "d_lr": 0.004, "kimg": 0.056}).config
    assert (planned.lr, planned.d_lr) == (0.003, 0.004)
    assert gan_resume.plan_resumed_run(folder, {"kimg": 0.056}).config.d_lr == 0.004


def test_the_weight_of_r2_is_that_of_r1_unless_it_is_named(train_run):
    folder, _ = train_run(loss="relativistic", gamma=1.0)
    for options, weights in (
        ({"gamma": 2.0}, (2.0, 2.0)),
        ({"gamma": 2.0, "r2_gamma": 1.0}, (2.0, 1.0)),
        ({"r2_gamma": 3.0}, (1.0, 3.0)),
    ):
        planned = gan_resume.plan_resumed_run(folder, {"kimg": 0.056, **options}).config
        assert (planned.gamma, planned.r2_gamma) == weights


def test_an_interval_of_a_resumed_run_needs_a_penalty(train_run):
    folder, _ = train_run()
    options = {"kimg": 0.056, "r1_interval": 4}
    assert gan_resume.plan_resumed_run(folder, options).config.r1_interval == 4
    with pytest.raises(MisuseError, match="--penalty-interval has no effect without a penalty"):
        gan_resume.plan_resumed_run(folder, options | {"gamma": 0.0})


def test_a_change_survives_a_kill_and_a_lost_state(train_run):
    """Killed after config.json was written; and resumed from an older state than the one the change was made at."""
    folder, _ = train_run()
    resume(folder, kimg=0.056, gamma=0.5)
    list_states(folder)[0].unlink()  # now the newest state has the previous settings
    resume(folder, kimg=0.064)
    assert settings(folder)["history"] == [{"kimg": 0.048, "changes": {"gamma": [2.0, 0.5]}}]
    list_states(folder)[0].unlink()
    resume(folder, kimg=0.072, gamma=1.0)
    assert settings(folder)["history"] == [{"kimg": 0.048, "changes": {"gamma": [2.0, 1.0]}}]


def test_every_change_is_recorded(train_run):
    folder, _ = train_run()
    resume(folder, kimg=0.056, gamma=0.5)
    resume(folder, kimg=0.064, lr=0.001)
    resume(folder, kimg=0.072)
    assert [(e["kimg"], *e["changes"]) for e in settings(folder)["history"]] == [(0.048, "gamma"), (0.056, "lr")]


def test_a_constant_p_can_be_changed(train_run):
    folder, _ = train_run(aug="fixed", aug_p=0.2)
    resume(folder, kimg=0.056, aug_p=0.4)
    state, _ = read_state(list_states(folder)[0])
    assert float(state["augment"]["p"]) == pytest.approx(0.4)


def test_continuing_with_another_dataset(train_run, make_set, tmp_path):
    folder, _ = train_run()
    larger = make_set(tmp_path / "larger.zip", (32, 32, 3), 12)
    resume(folder, str(larger), kimg=0.064)
    data = read_about(list_states(folder)[0])["config"]["data"]
    assert (data["path"], data["num"], data["height"], data["filter"]) == (str(larger), 12, 16, "box")
    (entry,) = settings(folder)["history"]
    assert "other images (32 -> 12)" in describe_changes(entry["changes"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channel_base": 128}, "--cbase cannot be changed"),
        ({"size": (8, 8)}, "--size cannot be changed"),
        ({"cfg": "stylegan2"}, "--cfg cannot be changed"),
        ({"cond": "hat"}, "--cond cannot be changed"),
        ({"seed": 1}, "--seed cannot be changed"),
        ({"loss": "hinge"}, "--loss cannot be changed"),
        ({"aug_p": 0.5}, "--p cannot be changed with --aug ada"),
        ({"aug": "noaug", "ada_target": 0.5}, "--target has no effect"),
        ({"aug": "fixed"}, "needs a probability"),
        ({"gp_weight": 1.0}, "--gp has no effect"),
        ({"batch": 5, "batch_gpu": 2}, "is not a multiple of"),
        ({"batch": 1}, "minibatch-deviation group"),
        ({"data": (16, 16)}, "its channels are 1, not 3"),
        ({"data": (8, 8, 3)}, "cannot be enlarged"),
    ],
    ids=str,
)
def test_a_refused_resume_leaves_a_finished_run_untouched(train_run, make_set, tmp_path, options, words):
    folder, _ = train_run()
    before = contents(folder)
    data = str(make_set(tmp_path / "other.zip", options["data"])) if "data" in options else None
    with pytest.raises(SganError, match=words):
        resume(folder, data, kimg=1.0, **{name: value for name, value in options.items() if name != "data"})
    assert contents(folder) == before


def test_a_failure_before_the_first_step_leaves_the_run_untouched(train_run, monkeypatch):
    folder, _ = train_run()
    before = contents(folder)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("stylegan_cli.training.run.load_newest", fail)
    with pytest.raises(MemoryError):
        resume(folder, kimg=1.0, gamma=5.0)
    assert contents(folder) == before


def test_a_folder_with_undecodable_bytes(train_run, tmp_path):
    """Its states are read, not taken for damaged."""
    folder, _ = train_run(name="run\udcff")
    resume(folder, kimg=0.056)
    assert len(list_states(folder)) == 2 and not list(folder.glob("*.damaged"))
    assert load_snapshot(latest_snapshot(folder)).info.kimg == 0.056
