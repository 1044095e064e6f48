"""Files of weights of other programs: every format, and malicious files."""

import collections
import contextlib
import os
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch

from stylegan_cli.detectors.reader import read_tensors
from stylegan_cli.errors import SganError
from stylegan_cli.pickled import PickleError, read_pickle

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Scripted(torch.nn.Module):
    """A module with everything that a TorchScript file may contain."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(12.0).view(3, 4).t())  # not contiguous
        self.register_buffer("part", torch.arange(6).half()[2:4])  # part of a storage
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("empty", torch.zeros(0, 2))
        self.pad, self.names = [0, 1], {"a": 1}
        self.inner = torch.nn.Sequential(collections.OrderedDict(conv=torch.nn.Conv2d(1, 2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.fixture
def scripted(tmp_path):
    module = Scripted()
    torch.jit.save(torch.jit.script(module), tmp_path / "scripted.pt")
    return module, tmp_path / "scripted.pt"


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor)


@pytest.mark.parametrize("new", [True, False])
def test_torch_save(tmp_path, new):
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.arange(3)}
    torch.save(tensors, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    assert_equal(read_tensors(tmp_path / "w.pth"), tensors)


def test_torchscript(scripted):
    module, path = scripted
    assert_equal(read_tensors(path), module.state_dict())


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numpy_pickle(tmp_path, protocol):
    arrays = {"Conv_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3)}}
    arrays["Conv_1"] = {"kernel": np.asfortranarray(arrays["Conv_0"]["kernel"])}
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(arrays, protocol))
    if protocol == 5:  # NumPy then stores the bytes differently: rejected with a message, not misread
        with pytest.raises(SganError, match="which no file of weights needs"):
            read_tensors(tmp_path / "w.ckpt")
        return
    flat = {f"{a}.{b}": torch.from_numpy(x.copy()) for a, part in arrays.items() for b, x in part.items()}
    assert_equal(read_tensors(tmp_path / "w.ckpt"), flat)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torchscript"])
def test_no_code_in_a_file_is_run(tmp_path, scripted, kind):
    trace, path = tmp_path / "executed", tmp_path / "evil"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Evil(trace)}))
    elif kind == "torch":
        torch.save({"a": Evil(trace)}, path)
    else:
        evil = pickle.dumps(Evil(trace), 2)
        rewrite(scripted[1], path, lambda name, data: evil if name.endswith("data.pkl") else data)
    with pytest.raises(SganError, match="cannot be read as a file of weights"):
        read_tensors(path)
    assert not trace.exists()


def rewrite(path, to, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_tensors_beyond_their_storage_are_rejected(tmp_path, scripted):
    """A storage's size, a shape and an offset that exceed the storage."""
    module, path = scripted
    pkl = zipfile.ZipFile(path).read("scripted/data.pkl")
    where = pkl.index(b"weight")
    numel = pkl.index(b"K\x0ct", where)  # BININT1 12, the end of the storage's tuple
    for old, new in ((b"K\x0ct", b"K\x0dt"), (b"(K\x04K\x03t", b"(K\xffK\x03t"), (b"K\x00(K\x04", b"K\x05(K\x04")):
        place = pkl.index(old, numel if old == b"K\x0ct" else where)
        changed = pkl[:place] + new + pkl[place + len(old) :]
        rewrite(path, tmp_path / "lie.pt", lambda name, data, changed=changed: changed if "data.pkl" in name else data)
        with pytest.raises(SganError, match=r"not have the declared size|larger than its storage"):
            read_tensors(tmp_path / "lie.pt")


def test_zip_bombs_are_rejected(tmp_path, scripted):
    """Compressed entries, or one entry listed many times."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "saved.pth")
    for path in (scripted[1], tmp_path / "saved.pth"):
        rewrite(path, tmp_path / "bomb.pt", lambda name, data: data, zipfile.ZIP_DEFLATED)
        with pytest.raises(SganError, match="is compressed, which PyTorch never does"):
            read_tensors(tmp_path / "bomb.pt")
    with zipfile.ZipFile(tmp_path / "saved.pth", "a") as z:
        z.writestr("saved/data/1", bytes(4000))
        z.filelist += z.filelist[-1:] * 20
    with pytest.raises(SganError, match="its entries are larger than the file"):
        read_tensors(tmp_path / "saved.pth")


def test_shared_tensors_take_memory_once(tmp_path):
    """Tensors are views of their storage; arrays are copied, up to twice the size of the file."""
    module = torch.nn.Module()
    whole = torch.zeros(1000)
    for i in range(5):
        module.register_buffer(f"b{i}", whole[i:])
    torch.jit.save(torch.jit.script(module), tmp_path / "shared.pt")
    actual = read_tensors(tmp_path / "shared.pt")
    assert len(actual) == 5 and len({t.untyped_storage().data_ptr() for t in actual.values()}) == 1
    (tmp_path / "w").write_bytes(shared_arrays(2))
    assert [t.tolist() for t in read_tensors(tmp_path / "w").values()] == [[0] * 1000] * 2
    (tmp_path / "w").write_bytes(shared_arrays(3))
    with pytest.raises(SganError, match="its arrays are larger than the file"):
        read_tensors(tmp_path / "w")


def shared_arrays(num):
    """A pickle of arrays that share their bytes."""
    blob, dtype = bytes(4000), np.dtype("f4")

    class Array:
        def __reduce__(self):
            return np.array(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1000,), dtype, False, blob)

    return pickle.dumps({str(i): Array() for i in range(num)}, 3)


def test_long_names_are_rejected(tmp_path):
    tree = {"a" * 300: {"b" * 300: {"c" * 300: {"d" * 300: np.zeros(1)}}}}
    (tmp_path / "w").write_bytes(pickle.dumps(tree, 3))
    with pytest.raises(SganError, match="name of a tensor is too long"):
        read_tensors(tmp_path / "w")


def test_truncated_files_are_rejected(tmp_path):
    body = pickle.dumps({"a": np.zeros(100, np.float32)}, 3)
    for length in range(2, len(body), 23):
        (tmp_path / "cut").write_bytes(body[:length])
        with pytest.raises(SganError, match="cannot be read as a file of weights"):
            read_tensors(tmp_path / "cut")
    with pytest.raises(SganError, match="does not exist"):
        read_tensors(tmp_path / "none")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([{}]), np.zeros(2, ">f4"), np.zeros(2, complex)])
def test_arrays_that_are_not_weights_are_rejected(tmp_path, array):
    (tmp_path / "w").write_bytes(pickle.dumps({"a": array}, 3))
    with pytest.raises(SganError, match="cannot be read as a file of weights"):
        read_tensors(tmp_path / "w")


VALUES = [None, True, 0, 255, 65535, -1, 2**40, -(2**70), 1.5, "a", "\u00e9" * 300, b"x", b"y" * 300, (), (1,), (1, 2)]
VALUES += [(1, 2, 3, 4), [], [1], [1, [2]], {}, {"a": 1}, {"a": {"b": (1, None)}, "c": [2]}]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values(protocol):
    """Everything that a pickle can express without naming a class is read as by Python itself."""
    values = [v for v in VALUES if protocol > 2 or not isinstance(v, bytes)]  # older protocols use _codecs.encode
    shared = [1]
    values += [shared, shared]
    actual = read_pickle(pickle.dumps(values, protocol), lambda module, name: None)
    assert actual == values and actual[-1] is actual[-2]


INVALID = [b"", b".", b"\x80\x02", b"a.", b"(u.", b"(.", b"0.", b"h\x07.", b"cos\nsystem\n.", b"(Va\nVb\nVc\nd."]


@pytest.mark.parametrize("program", [*INVALID, b"N)R.", b"N)b.", b"NQ."])
def test_invalid_pickles_are_rejected(program):
    with pytest.raises(PickleError):
        read_pickle(program, lambda module, name: None)


DEEP = 1_000_000
DOUBLED = b")" + b"q\x00h\x00\x86" * 60  # t = (t, t), 60 times
CRAFTED = {
    "a deep key": b"})" + b"\x85" * DEEP + b"Ns.",
    "a doubled key": b"}" + DOUBLED + b"Ns.",
    "a doubled key in a dict": b"(" + DOUBLED + b"Nd.",
    "a key in a tuple": b"})\x85Ns.",
    "a long number": b"}\x8b\x10\x00\x00\x00" + b"\x7f" * 16 + b"Ns.",
    "a deep tuple": b")" + b"\x85" * DEEP + b".",
    "deep lists": b"]" * 200 + b"a" * 199 + b".",
    "lists from outside in": b"]q\x00" + b"h\x00]q\x00a0" * 200 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a doubled name": DOUBLED + DOUBLED + b"\x93.",
    "too many marks": b"N" * 200_000 + b"(t0" * 60_000,
    "too many steps": b"}0" * DEEP + b".",
    "no mark": b"N" * 1000 + b"t.",
}


@pytest.mark.parametrize("program", CRAFTED.values(), ids=CRAFTED)
def test_crafted_pickles_fail_fast(program):
    start = time.process_time()
    with pytest.raises(PickleError):
        read_pickle(program, lambda module, name: None)
    assert time.process_time() - start < 15


def test_deeply_nested_states_are_rejected():
    class Thing:
        def set_state(self, state):
            self.state = state

    program = b"cm\nn\n)R"
    assert read_pickle(program * 50 + b"b" * 49 + b".", lambda module, name: Thing)
    with pytest.raises(PickleError, match="nested too deeply"):
        read_pickle(program * 200 + b"b" * 199 + b".", lambda module, name: Thing)


def test_corrupt_pickles_raise_only_pickle_error():
    rng = np.random.default_rng(3)
    body = bytearray(pickle.dumps(VALUES + [np.zeros(3)], 4))
    for _ in range(300):
        broken = body.copy()
        broken[rng.integers(len(body))] = rng.integers(256)
        with contextlib.suppress(PickleError):
            read_pickle(bytes(broken), lambda module, name: None)
