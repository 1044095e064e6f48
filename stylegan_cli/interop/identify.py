"""Says what a file is that holds no model of ours: from its first bytes, or from the names in it."""

from __future__ import annotations

import re
import zipfile
from pathlib import PurePosixPath

from ..errors import printable
from ..pickled import Part
from .checkpoint import FormatError, is_tensor
from .modules import Contents, Module, read_tree
from .safetensors_file import is_safetensors

Finding = tuple[str, str]  # what the file is, to follow 'FILE is'; how to go on
_HEAD = 4096  # bytes that are searched
_END = 48  # bytes at the end with the mark of a TensorFlow index
_NAMES_SHOWN = 3
CONVERT_HELP = "`sgan convert --help` lists the checkpoints that can be opened."
_GENERATOR = "Use the file with the generator, for example network-snapshot-*.pkl, or a .pt with g_ema."
_UNPACK = "Unpack it, and use the checkpoint in it."
_OTHER_GAN = "Only StyleGAN (1 to 3) and progressive GANs can be opened; use the program that wrote the file."
DOWNLOAD_AGAIN = "Copy or download it again, and compare its size with the original's."

# First bytes -> what the file is
_SIGNATURES: list[tuple[int, bytes, str, str]] = [
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`."),
    (0, b"\x89PNG", "a PNG image", ""),
    (0, b"\xff\xd8\xff", "a JPEG image", ""),
    (0, b"GIF8", "a GIF image", ""),
    (0, b"BM", "a BMP image", ""),
    (8, b"WEBP", "a WebP image", ""),
    (8, b"AVI ", "a video", ""),
    (0, b"II*\0", "a TIFF image", ""),
    (0, b"MM\0*", "a TIFF image", ""),
    (4, b"ftypavif", "an AVIF image", ""),
    (4, b"ftyphei", "a HEIC image", ""),
    (4, b"ftypmif1", "a HEIC image", ""),
    (4, b"ftyp", "a video", ""),
    (0, b"\x1a\x45\xdf\xa3", "a video", ""),
    (
        0,
        b"\x89HDF",
        "an HDF5 file (.h5), as Keras writes",
        "Use a checkpoint of a PyTorch program, or a TensorFlow .pkl.",
    ),
    (0, b"\x93NUMPY", "a NumPy array, not a model", ""),
    (0, b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (0, b"BZh", "compressed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ", "compressed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"GGUF", "a GGUF language model", ""),
    (4, b"TFL3", "a TensorFlow Lite model", "Use the checkpoint that it was made from."),
    (0, b"SQLite format 3", "an SQLite database", ""),
    (0, b"\x7fELF", "a program", ""),
    (0, b"MZ", "a program for Windows", ""),
]
_IMAGE_HINT = "To project it, use `sgan project IMAGE`; for a model, use its checkpoint."
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic")
_CHECKPOINTS = (".pkl", ".pt", ".pth", ".safetensors", ".ckpt", ".bin")

# The patterns take linear time: a file may have a long path.
# Architectures that contain a known generator, or look like one: pattern in the paths -> what the file is
_VARIANTS: list[tuple[str, str]] = [
    (r"(^|\.)mapping\.embed_proj\.", "a StyleGAN-XL model (each of its stages has a layer schedule of its own)"),
    (r"(^|\.)(backbone\.synthesis|superresolution)\.", "an EG3D model"),
    (r"(^|\.)(iwt|dwt)\.|\.iwt\.|\.dwt\.", "a SWAGAN"),
    (r"(^|\.)GAN(\.|$)|(^|\.)(G\.initial_conv|S\.net\.\d)|\.to_style1\.", "a model of lucidrains' stylegan2_pytorch"),
]
# Other content: pattern -> what the file is -> how to go on
_CONTENTS: list[tuple[str, str, str]] = [
    (r"(^|\.)(generator\.)?progression\.\d", "a StyleGAN of rosinality's style-based-gan-pytorch", _OTHER_GAN),
    (r"(^|\.)g_(synthesis|mapping)\.|(^|\.)synthesis\.(layer0|blocks)\.", "a StyleGAN of another program", _OTHER_GAN),
    (r"(^|\.)stylegan_decoder", "a GFPGAN model, which restores faces", _OTHER_GAN),
    (r"(^|\.)(main\.)?(init\.init\.|se_64\.|feat_8\.)", "a FastGAN or Projected GAN", _OTHER_GAN),
    (r"(^|\.)lora_(up|down|a|b)\b|\.lora_(A|B|up|down)\.", "a LoRA, which changes another model", _OTHER_GAN),
    (r"(^|\.)model\.diffusion_model\.", "a diffusion model", _OTHER_GAN),
    (
        r"(^|\.)((post_)?quant_conv|first_stage_model|(en|de)coder\.(down|up|mid|down_blocks|up_blocks|mid_block))\.",
        "a variational autoencoder (VAE)",
        _OTHER_GAN,
    ),
    (
        r"(^|\.)((down|up)_blocks\.\d+\.(resnets|attentions)|(input|output)_blocks\.\d+|time_embed)\.",
        "a diffusion model",
        _OTHER_GAN,
    ),
    (
        r"(^|\.)encoder\.|(^|\.)styles\.\d+\.(convs|linear)\.",
        "an encoder (as of pSp or e4e) without its decoder",
        "Use the encoder's full checkpoint, which holds the decoder, or the generator it was trained for.",
    ),
    (
        r"(^|\.)body\.\d+\.(res_layer|shortcut_layer)\.",
        "a face-recognition network (ArcFace), as encoders are trained with",
        _GENERATOR,
    ),
    (
        r"(^|\.)(lin\d|lin[s]\.\d)\.model\.\d\.|(^|\.)net\.slice\d\.",
        "an LPIPS network, which measures distances",
        _GENERATOR,
    ),
    (
        r"(^|\.)(Mixed_\d[a-e]|Conv2d_1a_3x3)\.",
        "an Inception network, which metrics use",
        _GENERATOR,
    ),
    (
        r"(^|\.)(text_projection|token_embedding|visual\.(conv1|transformer))",
        "a CLIP network",
        _GENERATOR,
    ),
    (r"(^|\.)blocks\.\d+\.attn\.", "a vision transformer", _GENERATOR),
    (r"(^|\.)(layers|layer|h)\.\d+\.(self_attn|attn|attention)\.", "a transformer", _GENERATOR),
    (r"(^|\.)features\.\d+\.(weight|0\.weight|conv)", "a VGG or similar classifier", _GENERATOR),
    (r"(^|\.)layer[1-4]\.\d+\.(conv\d|bn\d)\.", "a ResNet or similar classifier", _GENERATOR),
    (
        r"(^|\.)model\.\d+\.conv_block\.",
        "an image-to-image network (as of CycleGAN or pix2pix)",
        _OTHER_GAN,
    ),
    (r"(^|\.)(b4\.out|final_linear\.1)\.weight$", "a discriminator without its generator", _GENERATOR),
    (
        r"(^|\.)(to_rgbs\.\d+\.conv|synthesis\.b\d+\.conv1)\.",
        "an incomplete StyleGAN2 generator: it lacks the constant input of its lowest level",
        _GENERATOR,
    ),
    (
        r"(^|\.)synthesis\.L\d+_\d+_\d+\.",
        "an incomplete StyleGAN3 generator: it lacks the frequencies of its input",
        _GENERATOR,
    ),
    (r"(^|\.)(synthesis\.)?(b4\.const|input\.freqs)$", "a synthesis network without its mapping network", _GENERATOR),
    (r"(^|\.)(mapping\.)?fc0\.weight$", "a mapping network without its synthesis network", _GENERATOR),
    (r"(^|\.)param_groups$", "the state of an optimizer, without a network", _GENERATOR),
    (r"(^|\.)style\.1\.weight$", "a mapping network without its synthesis network", _GENERATOR),
    (
        r"(^|\.)(latents?|dlatents?|ws?|w_plus|projected_w|boundar(y|ies)|directions?)$",
        "a file of latents or directions, not a model",
        "Pass it to a command that takes latents or directions, and the model with --model.",
    ),
]


def refuse_variants(contents: Contents) -> None:
    """Raise FormatError for architectures that contain or resemble a known generator."""
    if what := next((what for pattern, what in _VARIANTS if _has(contents, pattern)), None):
        raise FormatError(f"it is {what}, whose architecture is not supported")


def identify_head(
    file: Part,
) -> Finding | None:  # None: it may be a pickle or a file of torch.save
    """What a file is by its first bytes."""
    head = Part(file.file).read(_HEAD)
    if not head:
        return "empty", DOWNLOAD_AGAIN
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in head.lower():
        return "a web page, not a checkpoint", "Download the file itself."
    if start.startswith((b"<?xml", b"<error")):
        return "an XML text, such as a server's error message, not a checkpoint", "Download the file itself."
    if start.startswith((b'{"', b"{\n", b"[{")) and _is_text(head):
        return "a JSON text, such as a server's error message, not a checkpoint", "Download the file itself."
    for offset, signature, what, hint in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature and (len(signature) > 2 or not _is_text(head)):
            return what, hint or (_IMAGE_HINT if "image" in what else CONVERT_HELP)
    if head.startswith(b"PK"):
        return _zip_content(file)
    if head[:1] == b"\x80" or is_safetensors(
        head
    ):  # a pickle; no program writes the protocols without this start any more
        return None
    text = "a text file" if _is_text(head) else f"a file of an unknown kind (its first bytes are {head[:4].hex(' ')})"
    return _protocol_buffer(head, file) or (f"{text}, not a checkpoint", CONVERT_HELP)


def _protocol_buffer(head: bytes, file: Part) -> Finding | None:
    """ONNX and TensorFlow's graphs have no signature; their first fields are recognized."""
    original = "Use the checkpoint that it was made from."
    if head[:1] == b"\x08" and head[2:3] == b"\x12" and head[1] == 1:
        return "a TensorFlow SavedModel (.pb)", original
    if head[:1] == b"\x08" and head[1] < 64 and head[2:3] in (b"\x12", b"\x3a", b"\x42"):
        return "an ONNX model, which has no weights by name", original
    if head[:1] == b"\x0a" and re.search(rb"\x12.?(Const|Placeholder|VariableV2|VarHandleOp|NoOp)", head):
        return "a TensorFlow graph (.pb or .meta)", original
    if Part(file.file, max(0, len(file) - _END)).read(_END).endswith(b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"):
        return "the index of a TensorFlow checkpoint", "TensorFlow models can be opened as NVIDIA's .pkl only."
    return None


def _zip_content(file: Part) -> Finding | None:
    try:
        with zipfile.ZipFile(file.file) as z:
            names = z.namelist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError):
        return "cut short or damaged: the directory at the end of its zip is missing", DOWNLOAD_AGAIN
    endings = {PurePosixPath(name).suffix.lower() for name in names if not name.endswith("/")}
    bases = {PurePosixPath(name).name for name in names}
    if "constants.pkl" in bases:
        return "a TorchScript program", "Use the checkpoint that it was made from."
    if any("archive_format" in name or "serialized_exported_program" in name for name in names):
        return "a program of torch.export (.pt2)", "Use the checkpoint that it was made from."
    if "data.pkl" in bases:
        return None  # of torch.save
    if endings and endings <= {".npy"}:
        return "a file of NumPy arrays (.npz), such as latents, not a model", CONVERT_HELP
    if checkpoint := next((n for n in names if n.lower().endswith(_CHECKPOINTS)), None):
        return f"a zip that contains {_printable(checkpoint)}", _UNPACK
    if any(ending in _IMAGES for ending in endings):
        return "a zip of images, not a model", "Pass it to --data."
    return "a zip, but not one that torch.save wrote", CONVERT_HELP


def identify_content(
    file: Part,
) -> Finding:
    """What a pickle or a file of torch.save is by the names in it, if no reader knows it."""
    tree, contents = read_tree(file), Contents()
    contents.add(tree)
    for pattern, what, hint in _CONTENTS:
        if _has(contents, pattern):
            return what, hint
    if is_tensor(tree):
        size = "x".join(map(str, tree.size))
        return f"one tensor of {size} values, such as latents, not a model", CONVERT_HELP
    if isinstance(tree, Module) and tree.class_name.startswith("torch.optim."):
        return "the state of an optimizer, without a network", _GENERATOR
    if isinstance(tree, Module):
        return f"an object of the class {_printable(tree.class_name)}, not of a known generator", CONVERT_HELP
    if contents.tensors:
        names = [_printable(path) for path in contents.tensors][:_NAMES_SHOWN]
        return f"a checkpoint of another network, with tensors such as {', '.join(names)}", CONVERT_HELP
    return "a pickle without networks, not a checkpoint", CONVERT_HELP


def _has(contents: Contents, pattern: str) -> bool:
    return any(re.search(pattern, path) for path in contents.paths)


def _is_text(head: bytes) -> bool:
    try:
        head[: -3 if len(head) == _HEAD else None].decode()  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return not re.search(rb"[\0-\x08\x0e-\x1f\x7f]", head)


def _printable(name: str) -> str:
    return printable(name[:60])
