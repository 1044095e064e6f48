"""Malicious files: each is refused in one sentence, within seconds, and without side effects."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import stylegan_cli
from stylegan_cli.interop.nvidia_writer import write_nvidia
from stylegan_cli.interop.rosinality_writer import write_unchecked
from stylegan_cli.models.registry import build_generator
from stylegan_cli.models.stylegan3.config import StyleGAN3Config

SCRIPT = Path(__file__).with_name("_hostile.py")
MAGIC = 0x1950A86A20F9469CFC6C


def run(*arguments, timeout=300):
    root = Path(stylegan_cli.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def text(s):
    return b"\x8c" + bytes([len(s)]) + s.encode()


def storage(kind="FloatStorage", count=4, stored=None, key="0", magic=MAGIC, system=None, keys=None, reference=None):
    """An embedded file of torch.save with one storage, as its five pickles. `stored` replaces the count at its end."""
    parts = [magic, 1001, {"little_endian": True} if system is None else system]
    if reference is None:
        middle = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
        middle += pickle.dumps(count, 2)[2:-1] + b"Nt"
    else:
        middle = reference
    stored = count if stored is None else stored
    numbers = struct.pack("<q", stored) + b"\0" * (4 * min(max(stored, 0), 1000))
    ends = pickle.dumps([key] if keys is None else keys, 2)
    return b"".join(pickle.dumps(p, 2) for p in parts) + b"\x80\x02" + middle + b"Q." + ends + numbers


def blob(data):
    return b"B" + struct.pack("<I", len(data)) + data


def tensor(inner, size="(K\x04t", stride="(K\x01t", offset=b"K\x00"):
    """_rebuild_tensor_v2(_load_from_bytes(inner), offset, size, stride, False, {})"""
    size, stride = size.encode("latin-1"), stride.encode("latin-1")
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n" + blob(inner) + b"\x85R"
    return start + offset + size + stride + b"\x89}tR"


def network(*middle):
    """{'G_ema': _reconstruct_persistent_obj({... 'state': {'_parameters': {'x': <middle>}}})}"""
    inner = b"}" + text("_parameters") + b"}" + text("x") + b"".join(middle) + b"ss"
    meta = b"}" + text("type") + text("class") + b"s" + text("state") + inner + b"s"
    call = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"\x85R"
    return b"\x80\x04}" + text("G_ema") + call + b"s."


def module(inner):
    """_reconstruct_persistent_obj({'type': 'class', 'state': {'_modules': <inner>}})"""
    meta = b"}" + text("type") + text("class") + b"s" + text("state") + b"}" + text("_modules") + inner + b"ss"
    return b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + meta + b"\x85R"


def put(i):
    return b"r" + struct.pack("<I", i)


def get(i):
    return b"j" + struct.pack("<I", i)


def nest(levels):
    """Storages nested in each other."""
    inner = b"N"
    for _ in range(levels):
        inner = b"ctorch.storage\n_load_from_bytes\n" + blob(b"\x80\x02" + inner + b".") + put(9) + b"\x85R0"
        inner += b"ctorch.storage\n_load_from_bytes\n" + get(9) + b"\x85R"
    return b"\x80\x04" + inner + b"."


TUPLES = b"N\x85" + put(0) + b"".join(b"0" + get(i) + get(i) + b"\x86" + put(i + 1) for i in range(80))
LISTS = b"]" + put(0) + b"".join(b"0](" + get(i) + get(i) + b"e" + put(i + 1) for i in range(80))
DAG = b"\x80\x04" + module(b"}") + put(0)
for _i in range(14):
    _names = b"".join(text(f"b{4 << k}") + get(_i) for k in range(20))
    DAG += b"0" + module(b"}(" + _names + b"u") + put(_i + 1)
DAG = b"\x80\x04}" + text("G_ema") + DAG[2:] + b"s."
NESTED = nest(24)
CALL = b"cos\nsystem\n" + text("touch EVIL") + b"\x85R"
CALL_STACK = text("os") + text("system") + b"\x93" + text("touch EVIL") + b"\x85R"
DEEP = 50_000

PROGRAMS = {
    "global": b"\x80\x04" + CALL + b".",
    "global in a network": network(CALL),
    "stack_global": b"\x80\x04" + CALL_STACK + b".",
    "stack_global through the memo": b"\x80\x04"
    + text("os")
    + b"\x94"
    + text("system")
    + b"\x940\x30h\x00h\x01\x93)R.",
    "stack_global of memo puts": b"\x80\x04" + text("os") + b"q\x05" + text("system") + b"q\x06h\x05h\x06\x93)R.",
    "stack_global of numbers": b"\x80\x04K\x01K\x02\x93)R.",
    "dotted name": b"\x80\x04" + text("torch") + text("storage._load_from_bytes.__globals__") + b"\x93.",
    "dotted module": b"\x80\x04" + text("torch._utils.os") + text("system") + b"\x93.",
    "name of a known module": b"\x80\x04ctorch.storage\n_load_from_bytes.__class__\n.",
    "builtins eval": b"\x80\x04cbuiltins\neval\n" + text("1") + b"\x85R.",
    "python 2 builtins": b"\x80\x02c__builtin__\neval\n" + text("1") + b"\x85R.",
    "obj": b"(cos\nsystem\n" + b"Vtouch EVIL\no.",
    "inst": b"(Vtouch EVIL\nios\nsystem\n.",
    "protocol 0": b"cos\nsystem\n(S'touch EVIL'\ntR.",
    "newobj": b"\x80\x04cos\nsystem\n" + text("touch EVIL") + b"\x85\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\n" + text("touch EVIL") + b"\x85}\x92.",
    "newobj of a network": b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n)\x81.",
    "build with slots": network(b"}}\x86b"),
    "build of a known function": b"\x80\x04ctorch.storage\n_load_from_bytes\n}b.",
    "build of a network": network(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R}b"),
    "build setattr": b"\x80\x04ccollections\nOrderedDict\n)R}" + text("__class__") + CALL + b"sb.",
    "ext1": b"\x80\x02\x82\x01.",
    "ext2": b"\x80\x02\x83\x01\x00.",
    "ext4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "persistent id": b"\x80\x02Pos.system\n.",
    "binary persistent id": b"\x80\x04" + text("os.system") + b"Q.",
    "persistent id in a network": network(text("x") + b"Q"),
    "nested storage calls": network(tensor(storage(reference=b"(" + text("storage") + CALL + b"t"))),
    "nested storage names": network(tensor(storage(reference=b"(" + text("storage") + b"cos\nsystem\nt"))),
    "nested code in the keys": network(tensor(storage(keys=[])[:-24] + b"\x80\x02" + CALL + b".")),
    "nested magic": network(tensor(storage(magic=5))),
    "nested other order": network(tensor(storage(system={"little_endian": False}))),
    "nested in nested": network(tensor(storage(reference=tensor(storage())))),
    "storage larger than its bytes": network(tensor(storage(count=1 << 40, stored=1 << 40))),
    "storage of two sizes": network(tensor(storage(count=4, stored=3))),
    "storage of negative size": network(tensor(storage(count=-1))),
    "storage of an unknown type": network(tensor(storage(kind="EvilStorage"))),
    "storage under another key": network(tensor(storage(keys=["1"]))),
    "shape overflow": network(tensor(storage(), "(\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00K\x04t")),
    "shape of a million digits": network(tensor(storage(), "(\x8b\x00\x00\x01\x00" + "\x01" * 65536 + "t")),
    "shape that multiplies to nothing": network(
        tensor(storage(), "(J\x00\x00\x00\x40J\x00\x00\x00\x40K\x00t", "(K\x01K\x01K\x01t")
    ),
    "shape of texts": network(tensor(storage(), "(X\x01\x00\x00\x00at")),
    "stride beyond": network(tensor(storage(), "(K\x02t", "(K\x09t")),
    "stride of another length": network(tensor(storage(), "(K\x04t", "(K\x01K\x01t")),
    "negative stride": network(tensor(storage(), "(K\x02t", "(J\xff\xff\xff\xfft")),
    "offset beyond": network(tensor(storage(), offset=b"K\x09")),
    "offset of a float": network(tensor(storage(), offset=b"G?\xf0\0\0\0\0\0\0")),
    "numpy object array": network(b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R"),
    "numpy array too large": network(
        b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01\x8a\x06\xff\xff\xff\xff\xff\x00\x85"
        b"cnumpy\ndtype\n" + text("f4") + b"\x89\x88\x87R\x89C\x04\0\0\0\0tb"
    ),
    "numpy scalar of a pickle": network(b"cnumpy.core.multiarray\nscalar\n" + text("x") + b"C\x01a\x86R"),
    "frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",
    "frame that straddles": b"\x80\x04\x95" + struct.pack("<Q", 3) + text("os") + text("system") + b"\x93)R.",
    "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
    "bytes of 2^31": b"\x80\x04B" + struct.pack("<I", 1 << 31) + b"abc.",
    "text of 2^62": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.",
    "long of 2^31": b"\x80\x04\x8b" + struct.pack("<i", (1 << 31) - 1) + b"abc.",
    "long of negative size": b"\x80\x04\x8b" + struct.pack("<i", -5) + b"abc.",
    "code before a truncation": b"\x80\x04" + CALL,
    "no stop": network()[:-1],
    "two pickles": network() + b"\x80\x04" + CALL + b".",
    "another pickle before": b"\x80\x04" + CALL + b"." + network(),
    "memo bomb": b"\x80\x04]" + b"\x94" * 200_000 + b".",
    "memo of 2^32": b"\x80\x04]r\xff\xff\xff\xff.",
    "dup bomb": b"\x80\x04]" + b"2" * 200_000 + b"t.",
    "doubled lists": b"\x80\x04]q\x00"
    + b"".join(b"]q" + bytes([i + 1]) + b"(h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"e" for i in range(100))
    + b".",
    "a list in itself": b"\x80\x04]q\x00h\x00a.",
    "a dict in itself": b"\x80\x04}q\x00" + text("a") + b"h\x00s.",
    "a network in itself": network(b"}q\x00" + text("a") + b"h\x00s"),
    "deep tuples": b"\x80\x04)" + b"\x85" * DEEP + b".",
    "deep lists": b"\x80\x04" + b"](" * DEEP + b"e" * DEEP + b".",
    "deep dicts": b"\x80\x04" + (b"}" + text("a")) * DEEP + b"N" + b"s" * DEEP + b".",
    "marks": b"\x80\x04" + b"(" * 300_000 + b"t" * 300_000 + b".",
    "colliding keys": b"\x80\x04}("
    + b"".join(pickle.dumps(i * ((1 << 61) - 1), 4)[2:-1].split(b"\x95")[-1][-12:] for i in range(3))
    + b"u.",
    "unhashable key": b"\x80\x04}]Ns.",
    "tuple key": network(b"})NsN"),
    "python 2 text": b"(S'" + b"a" * 10 + b"'\nS'os'\nios\nsystem\n.",
    "line without end": b"c" + b"a" * 3_000_000,
    "a number of a million digits": b"I" + b"9" * 500_000 + b"\n.",
    "a float in words": b"Fnan\n.",
    "decoded by a codec": network(b"c_codecs\nencode\n" + text("a") + text("zlib_codec") + b"\x86R"),
    "unknown opcode": b"\x80\x04\xff.",
    "protocol 9": b"\x80\x09}.",
    "out of band buffers": b"\x80\x05\x97.",
    "readonly buffer": b"\x80\x05C\x01a\x98.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"a.",
    "nothing but stop": b"\x80\x04.",
    "empty network": b"\x80\x04}" + text("G_ema") + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85Rs.",
    "network of a number": b"\x80\x04}"
    + text("G_ema")
    + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nK\x01\x85Rs.",
    "pairs with a key that hashes forever": b"\x80\x04ccollections\nOrderedDict\n](" + TUPLES + b"N\x86e\x85R.",
    "a class name that prints forever": network().replace(
        text("class") + b"s", text("class") + b"s" + text("class_name") + LISTS + b"s"
    ),
    "an activation that prints forever": network(LISTS),
    "a dag of modules": DAG,
    "storages again and again": b"\x80\x04ctorch.storage\n_load_from_bytes\nq\x00"
    + blob(storage() + b"N" * 5000)
    + b"q\x01"
    + b"h\x00h\x01\x85R" * 40_000
    + b".",
    "storages in storages": NESTED,
    "sets of a large list": b"\x80\x04cbuiltins\nset\nq\x00]("
    + b"N" * 100_000
    + b"eq\x01"
    + b"h\x00h\x01\x85R" * 30_000
    + b".",
    "encoded again and again": b"\x80\x04c_codecs\nencode\nq\x00X"
    + struct.pack("<I", 500_000)
    + b"a" * 500_000
    + b"q\x01"
    + text("latin1")
    + b"q\x02"
    + b"h\x00h\x01h\x02\x86R" * 60_000
    + b".",
    "a million sets": b"\x80\x04" + b"\x8f" * 1_000_000 + b".",
    "a wide text": b"\x80\x04X" + struct.pack("<I", (1 << 26) + 4) + b"a" * ((1 << 26) + 4) + b".",
    "names that are numbers": b"\x80\x04}"
    + text("G_ema")
    + b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}"
    + text("type")
    + text("class")
    + b"s"
    + text("state")
    + b"}"
    + text("_modules")
    + b"}K\x01Nsss\x85Rs.",
    "safetensors of 2^60": struct.pack("<Q", 1 << 60) + b"{}",
    "safetensors of a tensor beyond its end": struct.pack("<Q", 58)
    + b'{"input.input":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'[:58],
    "safetensors of lists": struct.pack("<Q", 100_004) + b'{"":' + b"[" * 100_000,
    "safetensors of numbers": struct.pack("<Q", 9) + b'{"a": 1}\n',
    "safetensors of nothing": struct.pack("<Q", 2) + b"{}",
}


def zipped(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as z:
        for name, data in entries:
            z.writestr(name, data)
    return buffer.getvalue()


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def overwrite(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def classes():
    """Files of torch.save whose objects are of any class: their names are kept, and nothing else is."""

    def file(middle):
        return zipped([("a/data.pkl", b"\x80\x02" + middle + b"."), ("a/version", b"3\n")])

    new = b"cos\nsystem\n)\x81"
    yield "class of a function", file(new)
    yield "class called with a text", file(b"cos\nsystem\n" + text("touch EVIL") + b"\x85\x81")
    yield "class called by reduce", file(b"cos\nsystem\n" + text("touch EVIL") + b"\x85R")
    yield "class with a keyword call", file(b"cos\nsystem\n)}\x92")
    yield "class of a class", file(b"ccopyreg\n_reconstructor\ncos\nsystem\nc__builtin__\nobject\nN\x87R")
    yield "attributes of a class", file(new + b"}" + text("__class__") + b"cos\nsystem\nsb")
    yield "two states", file(new + b"}" + text("a") + b"K\x01sb}b")
    yield "state of a list", file(new + b"]b")
    yield "module in itself", file(b"q\x00".join((new, b"}" + text("_modules") + b"}" + text("a") + b"h\x00sb")))
    dag = new + b"}" + text("_parameters") + b"}sb" + put(0)
    for i in range(40):
        inside = b"}(" + b"".join(text(f"b{k}") + get(i) for k in range(20)) + b"u"
        dag += b"0" + new + b"}" + text("_modules") + inside + b"sb" + put(i + 1)
    yield "dag of classes", file(dag)
    lists = b"".join(b"0](" + (get(i)) * 9 + b"e" + put(i + 1) for i in range(30))
    yield "dag of lists", file(b"]" + put(0) + lists)
    paths = b"}(" + b"".join(text("n" * 200 + str(k)) + b"GET" for k in range(40)) + b"u"
    yield (
        "long paths",
        file(b"}" + put(0) + b"".join(b"0" + paths.replace(b"GET", get(i)) + put(i + 1) for i in range(9))),
    )
    inputs = b"".join(text(f"a{i}.input.input") + b"h\x00" for i in range(3000))
    yield "many generators", file(tensor(storage()) + b"q\x000}(" + inputs + b"u")


def zips():
    data = saved({"g_ema": {"a": torch.zeros(100)}})
    directory = data.index(b"PK\1\2")
    yield "zip calls", zipped([("archive/data.pkl", b"\x80\x02" + CALL + b"."), ("archive/version", b"3\n")])
    yield "zip slip", zipped([("../../EVIL", b"x"), ("/EVIL", b"x"), ("archive/data.pkl", b"\x80\x02}.")])
    yield "zip compressed", zipped([("archive/data.pkl", b"\x80\x02" + b"(" * 10_000_000)], zipfile.ZIP_DEFLATED)
    yield "zip with two of a name", zipped([("a/data.pkl", b"\x80\x02}."), ("a/data.pkl", b"\x80\x02" + CALL + b".")])
    yield "zip with two roots", zipped([("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"\x80\x02" + CALL + b".")])
    yield "zip of something else", zipped([("word/document.xml", b"<x/>")])
    yield "zip with an encrypted flag", overwrite(data, directory + 8, b"\x01\x00")
    yield "zip with a wrong method", overwrite(data, directory + 10, b"\x63\x00")
    yield "zip with a wrong size", overwrite(data, directory + 24, struct.pack("<I", 0x7FFFFFFF))
    yield "zip with a wrong place", overwrite(data, directory + 42, struct.pack("<I", 0x7FFFFFFF))
    yield "zip cut in half", data[: len(data) // 2]
    yield "pickle before a zip", b"\x80\x04" + CALL + b"." + data
    yield from classes()
    yield "zip of no storages", zipped([("a/data.pkl", pickle.dumps({"g_ema": {"a": 1}}, 2))])
    middle = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("../../etc/passwd") + text("cpu") + b"K\x04tQ"
    yield "zip with a storage elsewhere", zipped([("a/data.pkl", b"\x80\x02" + middle + b".")])


@pytest.fixture(scope="module")
def good(networks, nvidia_bytes):
    """Small valid files, one of each format."""
    G, D = networks(size=8, channel_base=16, channel_max=2)
    files = {"good nvidia": nvidia_bytes(G, D, 4), "good nvidia 2": nvidia_bytes(G, None, 2)}
    return files | {"good stylegan3": nvidia_bytes(stylegan3(), None, 4)}


def stylegan3():
    return build_generator(StyleGAN3Config(16, 16, z_dim=2, w_dim=2, channel_base=32, channel_max=2))


def test_corpus(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    data = good["good nvidia"]
    files = {**good, **PROGRAMS, **dict(zips())}
    files["html"] = b"<html><body>Too many requests</body></html>"
    files["lfs"] = b"version https://git-lfs.github.com/spec/v1\n"
    files["empty"] = b""
    for at in range(1, len(data), max(1, len(data) // 60)):
        files[f"cut at {at:06d}"] = data[:at]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert len(PROGRAMS) + len(dict(zips())) >= 60
    results = run("corpus", folder)
    assert len(results) == len(files)
    for report in results:
        expected = "opened" if report["name"].startswith("good") else "refused"
        expected = ("opened", "refused") if report["name"] == "two pickles" else (expected,)
        assert report["result"] in expected, report
        assert not report["events"], report
        assert report["seconds"] < 10, report
        assert report["peak"] < 2 * report["size"] + (256 << 20), report
        if report["message"]:
            assert "\n" not in report["message"] and len(report["message"]) < 1000, report
    assert not list(tmp_path.rglob("EVIL"))


@pytest.fixture(scope="module")
def tiny(networks, nvidia_bytes, tmp_path_factory):
    """The smallest valid files of each format, so that thousands of mutations can be read quickly."""
    folder = tmp_path_factory.mktemp("tiny")
    common = {"size": 8, "channel_base": 16, "channel_max": 2, "architecture": "orig"}
    G, D = networks(d_architecture="orig", **common)
    contents = {"nvidia.pkl": nvidia_bytes(G, D, 4), "nvidia 2.pkl": nvidia_bytes(G, None, 2)}
    contents["stylegan3.pkl"] = nvidia_bytes(stylegan3(), None, 4)
    write_nvidia(folder / "built stylegan3.pkl", stylegan3(), None, "sg3")
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    G, _ = networks(**common | {"architecture": "skip"})
    write_nvidia(folder / "built.pkl", G, None, "ada")
    write_unchecked(folder / "rosinality.pt", G, None)
    tree = torch.load(folder / "rosinality.pt", weights_only=True)
    torch.save(tree, folder / "rosinality old.pt", _use_new_zipfile_serialization=False)
    torch.save({"G_ema": {f"module.{k}": v for k, v in G.state_dict().items()}}, folder / "state.pt")
    nvidia_bytes(G, None, change=lambda content: torch.save(content["G_ema"], folder / "module.pt"))
    nvidia_bytes(G, None, change=lambda c: torch.save(c, folder / "old.pt", _use_new_zipfile_serialization=False))
    whole = torch.nn.DataParallel(as_modules(tree["g_ema"]))
    torch.save({"g": whole}, folder / "whole.pt")
    save_file({k: v.contiguous() for k, v in G.state_dict().items()}, folder / "state.safetensors")
    return sorted(folder.iterdir())


def as_modules(state):
    """A state dictionary as whole modules, whose classes are torch's."""
    root = torch.nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            place = place._modules.setdefault(part, torch.nn.Module())
        place.register_buffer(last, tensor)
    return root


def mutations(paths, count, seed=0):
    (report,) = run("mutations", count, seed, *paths, timeout=3000)
    assert not report["events"] and not report["crashed"], report
    assert report["opened"] + report["refused"] == count and report["refused"] and report["slowest"] < 5, report
    return report


def test_mutations(tiny):
    mutations(tiny, 1000)


@pytest.mark.slow
def test_ten_thousand_mutations(tiny):
    print(mutations(tiny, 10_000, seed=1))


@pytest.mark.parametrize("step", [401, pytest.param(1, marks=pytest.mark.slow)])
def test_truncation_anywhere(good, step):
    """The reader itself refuses the file, and raises no other exception."""
    from stylegan_cli.interop.networks import read_networks
    from stylegan_cli.pickled import Part, PickleError

    data = good["good nvidia 2"]
    for end in range(0, len(data), step):
        with pytest.raises(PickleError):
            read_networks(Part(io.BytesIO(data[:end])))
