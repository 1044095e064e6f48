"""The other images of the pairs that translation is measured with: outlines, as the task sketch sees them.

sgan data pack stylegan_cli/assets/critters64.zip images.zip --size 32
python benchmarks/make_pairs.py images.zip sketches.zip
python benchmarks/make_pairs.py images.zip colored.zip --colors
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import click
from PIL import Image

from stylegan_cli.data.codec import from_array, png_bytes
from stylegan_cli.data.dataset import open_dataset
from stylegan_cli.data.images import to_uint8
from stylegan_cli.sampling.degrade import enlarge, reduce, sketch

BLOCK = 8  # pixels


@click.command()
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--colors", is_flag=True, help=f"Outlines on averages of {BLOCK} x {BLOCK} pixels.")
def main(data: str, out: Path, colors: bool) -> None:
    dataset = open_dataset(data)
    with zipfile.ZipFile(out, "w") as archive:
        for i, name in enumerate(dataset.names):
            images = dataset.images([i]).float() / 127.5 - 1
            outlines = sketch(images)
            if colors:
                outlines = (enlarge(reduce(images, BLOCK), images.shape[2:]) + 1) * (outlines + 1) / 2 - 1
            image: Image.Image = from_array(to_uint8(outlines)[0].numpy())
            archive.writestr(name, png_bytes(image))


if __name__ == "__main__":
    main()
