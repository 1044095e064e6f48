"""`python -m stylegan_cli` is `sgan`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="sgan")
