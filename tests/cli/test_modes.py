"""`sgan train --mode-regularize` leaves an encoder that other commands find."""

from pathlib import Path

TINY = ["--batch", "8", "--cbase", "64", "--cmax", "8", "--map-depth", "2", "--kimg", "0.016", "--snap", "0.016", "-q"]


def test_a_run_with_an_encoder(sgan, rgb_set, tmp_path):
    runs = ["--runs", tmp_path / "runs"]
    run = Path(sgan("train", "--data", rgb_set, *runs, "--mode-regularize", *TINY).stdout.strip())
    assert '"mode_weight": 1.0' in (run / "config.json").read_text()
    assert "loss/E pixels" in (run / "stats.jsonl").read_text()
    sgan("generate", *runs, "--seeds", "0", "--outdir", tmp_path)
    image = tmp_path / "seed0000.png"
    result = sgan("encode", image, *runs, "--outdir", tmp_path / "a")
    assert f"Encoder: {run / 'encoder.safetensors'}" in result.stderr
    sgan("encode", image, *runs, "--encoder", run, "--outdir", tmp_path / "b", "-q")
    assert (tmp_path / "a" / "encoded.npz").is_file() and (tmp_path / "b" / "encoded.npz").is_file()
    quick = ["--steps", "2", "--loss", "pixel", "-q"]
    sgan("project", image, *runs, "--init", "encoder", *quick, "--outdir", tmp_path / "c")
    assert "space z" in sgan("model", "info", run / "encoder.safetensors").stdout
    result = sgan("train", "--resume", run, "--mode-regularize", "2", code=None)
    assert "--mode-regularize cannot be changed" in result.stderr


def test_bad_options(sgan, rgb_set, tmp_path):
    line = ["train", "--data", rgb_set, "--runs", tmp_path / "runs", *TINY, "--mode-regularize"]
    for words, *arguments in (
        ("cannot be combined with --cond", "--cond", "hat"),
        ("cannot be combined with --info", "--info", "3"),
        ("cannot be combined with growing", "--cfg", "demo-stylegan"),
        ("is not in the range", "0"),
    ):
        arguments = [*line, *arguments]
        assert words in sgan(*arguments, code=None).stderr
    assert not (tmp_path / "runs").exists()
