"""Safe reading of pickles as data: nothing is imported, and only functions from the reader's own list are called.

A pickle is a program for a stack machine. This machine implements the instructions that build numbers, strings, lists
and dictionaries. The names of classes and functions are looked up with `resolve`, and nowhere else.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterable
from typing import Any

_MARK = object()
MAX_STEPS = 1 << 17  # a one-byte step can create a 400-byte object; the largest networks need about 40,000 steps
_MAX_DEPTH = 100  # of nested containers; a module in a module adds two
_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
# Opcodes whose argument is the value
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_BYTES_LENGTHS = {"BINBYTES": 4, "BINBYTES8": 8, "BINSTRING": 4}  # size of the length field, in bytes
_LARGE = 1 << 12  # bytes from which a value may stay in the file
_MAX_LINE = 1 << 20  # bytes
_READ_AHEAD = 1 << 9  # bytes
_STRING_LENGTHS = {"BINUNICODE": 4, "BINUNICODE8": 8}  # size of the length field, in bytes
_MAX_STRING = 1 << 26  # bytes, each of which may take four in memory
_EXTRA_BYTES = 1 << 26  # that calls may create in addition to the size of the file
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ALIASES = {"FRAME": "PROTO", "BINPUT": "PUT", "LONG_BINPUT": "PUT", "BINGET": "GET", "LONG_BINGET": "GET"}


class PickleError(ValueError):
    """Why a pickle cannot be read: one sentence without a full stop."""


class Name:
    """The stack entry for a class or function that the pickle names; only its `meaning` is ever called."""

    def __init__(self, meaning: Any):
        self.meaning = meaning


class Part:
    """A section of a file that can be read like a file. It never reads more than there is, because a read with a false
    length would allocate that much."""

    def __init__(
        self,
        file: io.BufferedIOBase,  # an open file, or io.BytesIO
        start: int = 0,
        length: int | None = None,  # None: to the end of the file
    ):
        self.file, self.start = file, start
        self.length = file.seek(0, io.SEEK_END) - start if length is None else length
        self.position = 0
        self._buffer, self._buffer_start = b"", 0  # read ahead, because most reads are of one or two bytes
        self.result: Any = None  # the decoded content, so that it is read once, however often the pickle refers to it

    def __len__(self) -> int:
        return self.length

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        offset = self.position - self._buffer_start
        if 0 <= offset <= offset + count <= len(self._buffer):
            self.position += count
            return self._buffer[offset : offset + count]
        count = max(0, min(count, self.length - self.position))
        self.file.seek(self.start + self.position)
        data = self.file.read(min(max(count, _READ_AHEAD), self.length - self.position))
        self._buffer, self._buffer_start = data, self.position
        self.position += min(count, len(data))
        return data[:count]

    def readline(self) -> bytes:
        self.file.seek(self.start + self.position)
        data = self.file.readline(min(_MAX_LINE, self.length - self.position))
        self.position += len(data)
        return data

    def skip(self, count: int) -> Part:  # the skipped section
        """Raises PickleError if fewer bytes are left."""
        if count > self.length - self.position:
            raise PickleError("the pickle is truncated")
        self.position += count
        return Part(self.file, self.start + self.position - count, count)


def read_pickle(
    data: bytes | Part,  # a section of a file is read to the end of the pickle
    resolve: Callable[[str, str], Any],  # (module, name) -> what to use in its place, usually a callable; None: refuse
    persistent: Callable[[Any], Any] | None = None,  # resolves persistent ids; None: refuse them
    lazy_bytes: bool = False,  # leave bytes values of 4 KB and more in the file: they are returned as Part
    max_steps: int = MAX_STEPS,
) -> Any:
    """Read the object that a pickle describes. The replacement of a class with a state needs a method `set_state`.

    Raises PickleError for names that are not resolved, unsupported instructions, and truncated or damaged pickles.
    """
    stream = Part(io.BytesIO(data)) if isinstance(data, bytes) else data
    machine = _Interpreter(resolve, persistent, len(stream) + _EXTRA_BYTES)
    try:
        for _ in range(max_steps):
            opcode = _OPCODES.get(stream.read(1))
            if opcode is None:
                raise PickleError(_damage(stream))
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, _argument(opcode, stream, lazy_bytes))
        raise PickleError("the pickle has too many instructions for a file of weights")
    except PickleError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as e:
        raise PickleError(_damage(stream, f" ({type(e).__name__}: {e})")) from e


def _damage(stream: Part, details: str = "") -> str:
    """What is wrong with a pickle after a failed read."""
    return "the pickle is truncated" if stream.position >= len(stream) else f"the pickle is damaged{details}"


def _argument(opcode: pickletools.OpcodeInfo, stream: Part, lazy_bytes: bool) -> Any:
    if opcode.arg is None:
        return None
    if lazy_bytes and (width := _BYTES_LENGTHS.get(opcode.name)):
        count = int.from_bytes(stream.read(width), "little")
        if count >= _LARGE:
            return stream.skip(count)
        stream.position -= width
    if width := _STRING_LENGTHS.get(opcode.name):
        if int.from_bytes(stream.read(width), "little") > _MAX_STRING:
            raise PickleError("a string in the pickle is too long")
        stream.position -= width
    reader: Callable[[Any], Any] = opcode.arg.reader  # accepts any object with read and readline
    return reader(stream)


class _Interpreter:
    def __init__(self, resolve: Callable[[str, str], Any], persistent: Callable[[Any], Any] | None, budget: int):
        self.resolve, self.persistent = resolve, persistent
        self.budget = budget  # bytes that calls may still create: a call of a few bytes can copy a large object
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # By id, and reset for each new object, since Python reuses ids
        self.depths: dict[int, int] = {}
        self.contained: set[int] = set()

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.push_new(argument)
        elif name in _CONSTANTS:
            self.push_new(_CONSTANTS[name]())
        elif name in _TUPLES:
            items = tuple(self.pop() for _ in range(_TUPLES[name]))[::-1]
            self.push_new(items, items)
        elif method := _METHODS.get(name):
            method(self, argument)
        else:
            raise PickleError(f"the instruction {name} is not supported")

    def push_new(self, value: Any, children: Iterable = ()) -> None:
        """Push a newly created object."""
        self.depths[id(value)] = 1
        self.contained.discard(id(value))
        if children:
            self.add_children(value, children)
        self.stack.append(value)

    def add_children(self, parent: Any, children: Iterable) -> None:
        """Update the nesting depth. It is limited because much code, including Python's, recurses into containers and
        would exhaust the stack.

        An object that is itself contained must not change: the depth of its parents would be wrong, or it could
        contain itself.
        """
        ids = [id(child) for child in children]
        self.contained.update(ids)
        if ids and id(parent) in self.contained:
            raise PickleError("the pickle changes an object that is already part of another one")
        depth = 1 + max((self.depths[i] for i in ids), default=0)
        self.depths[id(parent)] = max(self.depths[id(parent)], depth)
        if depth > _MAX_DEPTH:
            raise PickleError("the pickle is nested too deeply")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("the pickle pops from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = next((i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK), None)
        if start is None:
            raise PickleError("the pickle lacks a mark")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def do_proto(self, _: Any) -> None:
        pass

    def do_pop(self, _: Any) -> None:
        self.pop()

    def do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def do_tuple(self, _: Any) -> None:
        items = tuple(self.pop_to_mark())
        self.push_new(items, items)

    def do_list(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.push_new(items, items)

    def do_dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.push_new({})
        self._set(items)

    def do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self.pop_to_mark())

    def _extend(self, items: list) -> None:
        target = _expect(self.stack[-1], list)
        self.add_children(target, items)
        target.extend(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def do_setitems(self, _: Any) -> None:
        self._set(self.pop_to_mark())

    def _set(self, items: list) -> None:  # key, value, key, value ...
        target = _expect(self.stack[-1], dict)
        if not all(is_key(key) for key in items[::2]):
            raise PickleError("a dictionary in the pickle has keys that are neither strings nor numbers")
        self.add_children(target, items)
        target.update(zip(items[::2], items[1::2], strict=True))

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push_new(self._look_up(module, name))

    def do_stack_global(self, _: Any) -> None:
        name, module = _expect(self.pop(), str), _expect(self.pop(), str)
        self.push_new(self._look_up(module, name))

    def _look_up(self, module: str, name: str) -> Name:
        meaning = self.resolve(module, name)
        if meaning is None:
            raise PickleError(f"it uses {module}.{name}, which no file of weights needs")
        return Name(meaning)

    def do_reduce(self, _: Any) -> None:
        arguments = _expect(self.pop(), tuple)
        result = _expect(self.pop(), Name).meaning(*arguments)
        if any(result is argument for argument in arguments):  # not a new object, so it keeps its depth
            self.stack.append(result)
        else:
            if isinstance(result, (bytes, str, list, dict, set)):
                self.budget -= len(result) * (1 if isinstance(result, (bytes, str)) else 64)
                if self.budget < 0:
                    raise PickleError("the pickle expands to much more than its size")
            self.push_new(result, arguments)

    do_newobj = do_reduce

    def do_additems(self, _: Any) -> None:
        items = self.pop_to_mark()
        if not all(is_key(item) for item in items):
            raise PickleError("a set in the pickle has items that are neither strings nor numbers")
        _expect(self.stack[-1], set).update(items)

    def do_build(self, _: Any) -> None:
        state = self.pop()
        if type(self.stack[-1]) is dict:  # extra attributes of an OrderedDict: the versions in a state_dict
            return
        self.add_children(self.stack[-1], [state])
        self.stack[-1].set_state(state)

    def do_binpersid(self, _: Any) -> None:
        if self.persistent is None:
            raise PickleError("the pickle refers to an object outside it")
        self.push_new(self.persistent(self.pop()))


_METHODS = {name[3:].upper(): method for name, method in vars(_Interpreter).items() if name.startswith("do_")}
_METHODS |= {name: _METHODS[alias] for name, alias in _ALIASES.items()}


def is_key(key: Any) -> bool:
    """Whether a dictionary key is safe: hashing nested tuples or very long integers could take forever."""
    return type(key) is str or (type(key) is int and key.bit_length() <= 64)


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise PickleError(f"the pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value
