"""Pickles read as data. Nothing is imported, nothing is called that is not in the reader's own list.

A pickle is a program for a machine with a stack. This one knows the instructions that build numbers, texts, lists and
dictionaries. Where the program names a class or a function, the reader looks into `known`, and into nothing else.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterable
from typing import Any

_MARK = object()
MAX_STEPS = 1 << 17  # a step of one byte may make an object of 400; the largest networks have some 40,000
_MAX_DEPTH = 100  # of containers within containers; modules within modules make two per level
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
# With an argument in the stream, which is the value
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_LENGTHS = {"BINBYTES": 4, "BINBYTES8": 8, "BINSTRING": 4}  # bytes that say how many bytes follow
_LARGE = 1 << 12  # of these, from which on a value may stay where it is
_MAX_LINE = 1 << 20
_AHEAD = 1 << 9  # bytes
_TEXTS = {"BINUNICODE": 4, "BINUNICODE8": 8}
_MAX_TEXT = 1 << 26  # bytes, each of which may become four
_SPARE = 1 << 26  # bytes that may be made beyond as many as the file has
_GROUPS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SAME = {"FRAME": "PROTO", "BINPUT": "PUT", "LONG_BINPUT": "PUT", "BINGET": "GET", "LONG_BINGET": "GET"}


class PickleError(ValueError):
    """What makes a pickle unreadable here, in one sentence without a full stop."""


class Name:
    """A class or a function that the pickle names: on the stack it is this, and only this is ever called."""

    def __init__(self, meaning: Any):
        self.meaning = meaning


class Part:
    """A part of a file that can be read like a file. Nothing is asked for that is not there: a wrong length would make
    room for as much as it says."""

    def __init__(
        self,
        file: io.BufferedIOBase,  # an open file, or io.BytesIO
        start: int = 0,
        length: int | None = None,  # None: to the file's end
    ):
        self.file, self.start = file, start
        self.length = file.seek(0, io.SEEK_END) - start if length is None else length
        self.place = 0
        self._window, self._opens = b"", 0  # what was read ahead, and its place: most reads are of a byte or two
        self.made: Any = None  # what was made of it: it is read once, however often the pickle says so

    def __len__(self) -> int:
        return self.length

    def tell(self) -> int:
        return self.place

    def read(self, count: int) -> bytes:
        at = self.place - self._opens
        if 0 <= at <= at + count <= len(self._window):
            self.place += count
            return self._window[at : at + count]
        count = max(0, min(count, self.length - self.place))
        self.file.seek(self.start + self.place)
        ahead = self.file.read(min(max(count, _AHEAD), self.length - self.place))
        self._window, self._opens = ahead, self.place
        self.place += min(count, len(ahead))
        return ahead[:count]

    def readline(self) -> bytes:
        self.file.seek(self.start + self.place)
        data = self.file.readline(min(_MAX_LINE, self.length - self.place))
        self.place += len(data)
        return data

    def skip(self, count: int) -> Part:  # what was skipped
        """Raises PickleError if there is not as much."""
        if count > self.length - self.place:
            raise PickleError("the pickle is cut short")
        self.place += count
        return Part(self.file, self.start + self.place - count, count)


def read_pickle(
    data: bytes | Part,  # a part of a file is read up to the pickle's end
    known: Callable[[str, str], Any],  # (module, name) -> what it means here, mostly what to call; None: refuse
    persistent: Callable[[Any], Any] | None = None,  # what a persistent id stands for; None: refuse
    parts: bool = False,  # 4 KB of bytes and more stay in the file: what comes is the Part that holds them
    steps: int = MAX_STEPS,  # at most
) -> Any:
    """The object that a pickle describes. An object with a state must have the method `set_state`.

    Raises PickleError for whatever is not in the lists, and for a stream that is cut or makes no sense.
    """
    stream = Part(io.BytesIO(data)) if isinstance(data, bytes) else data
    machine = _Machine(known, persistent, len(stream) + _SPARE)
    try:
        for _ in range(steps):
            opcode = _OPCODES.get(stream.read(1))
            if opcode is None:
                raise PickleError("the pickle is cut short, or is none")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, _argument(opcode, stream, parts))
        raise PickleError("the pickle is too long for a file of weights")
    except PickleError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as e:
        raise PickleError(f"the pickle is damaged ({type(e).__name__}: {e})") from e


def _argument(opcode: pickletools.OpcodeInfo, stream: Part, parts: bool) -> Any:
    if opcode.arg is None:
        return None
    if parts and (width := _LENGTHS.get(opcode.name)):
        count = int.from_bytes(stream.read(width), "little")
        if count >= _LARGE:
            return stream.skip(count)
        stream.place -= width
    if width := _TEXTS.get(opcode.name):
        if int.from_bytes(stream.read(width), "little") > _MAX_TEXT:
            raise PickleError("a text of the pickle is too long")
        stream.place -= width
    reader: Callable[[Any], Any] = opcode.arg.reader  # of whatever has read and readline
    return reader(stream)


class _Machine:
    def __init__(self, known: Callable[[str, str], Any], persistent: Callable[[Any], Any] | None, spare: int):
        self.known, self.persistent = known, persistent
        self.spare = spare  # bytes that calls may still make: one of a few bytes may copy what is large
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # By id, renewed whenever an object is made: an id may have been another one's before
        self.depths: dict[int, int] = {}
        self.held: set[int] = set()

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.make(argument)
        elif name in _CONSTANTS:
            self.make(_CONSTANTS[name]())
        elif name in _GROUPS:
            items = tuple(self.pop() for _ in range(_GROUPS[name]))[::-1]
            self.make(items, items)
        elif method := _METHODS.get(name):
            method(self, argument)
        else:
            raise PickleError(f"its instruction {name} is not understood here")

    def make(self, value: Any, parts: Iterable = ()) -> None:
        """Put something new on the stack."""
        self.depths[id(value)] = 1
        self.held.discard(id(value))
        if parts:
            self.hold(value, parts)
        self.stack.append(value)

    def hold(self, holder: Any, parts: Iterable) -> None:
        """Count how deep it becomes: many things, also Python's own, go down by recursion and end the process.

        What is held itself must not change: its holders would be deeper than was counted, or in a circle.
        """
        ids = [id(part) for part in parts]
        self.held.update(ids)
        if ids and id(holder) in self.held:
            raise PickleError("the pickle changes what is part of something already")
        depth = 1 + max((self.depths[i] for i in ids), default=0)
        self.depths[id(holder)] = max(self.depths[id(holder)], depth)
        if depth > _MAX_DEPTH:
            raise PickleError("the pickle is nested too deeply")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("the pickle takes what it did not put")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = next((i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK), None)
        if start is None:
            raise PickleError("the pickle has no mark where it wants one")
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
        self.make(items, items)

    def do_list(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.make(items, items)

    def do_dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.make({})
        self._set(items)

    def do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self.pop_to_mark())

    def _extend(self, items: list) -> None:
        target = _container(self.stack[-1], list)
        self.hold(target, items)
        target.extend(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def do_setitems(self, _: Any) -> None:
        self._set(self.pop_to_mark())

    def _set(self, items: list) -> None:  # key, value, key, value ...
        target = _container(self.stack[-1], dict)
        if not all(is_key(key) for key in items[::2]):
            raise PickleError("a dictionary of the pickle has keys that are neither texts nor numbers")
        self.hold(target, items)
        target.update(zip(items[::2], items[1::2], strict=True))

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.make(self._look_up(module, name))

    def do_stack_global(self, _: Any) -> None:
        name, module = _container(self.pop(), str), _container(self.pop(), str)
        self.make(self._look_up(module, name))

    def _look_up(self, module: str, name: str) -> Name:
        meaning = self.known(module, name)
        if meaning is None:
            raise PickleError(f"it wants {module}.{name}, which no file of weights needs")
        return Name(meaning)

    def do_reduce(self, _: Any) -> None:
        arguments = _container(self.pop(), tuple)
        result = _container(self.pop(), Name).meaning(*arguments)
        if any(result is argument for argument in arguments):  # not made here: what was counted for it stays
            self.stack.append(result)
        else:
            if isinstance(result, (bytes, str, list, dict, set)):
                self.spare -= len(result) * (1 if isinstance(result, (bytes, str)) else 64)
                if self.spare < 0:
                    raise PickleError("the pickle makes more than it holds")
            self.make(result, arguments)

    do_newobj = do_reduce

    def do_additems(self, _: Any) -> None:
        items = self.pop_to_mark()
        if not all(is_key(item) for item in items):
            raise PickleError("a set of the pickle holds what is neither text nor number")
        _container(self.stack[-1], set).update(items)

    def do_build(self, _: Any) -> None:
        state = self.pop()
        if type(self.stack[-1]) is dict:  # attributes that an OrderedDict has besides: versions of a state_dict's parts
            return
        self.hold(self.stack[-1], [state])
        self.stack[-1].set_state(state)

    def do_binpersid(self, _: Any) -> None:
        if self.persistent is None:
            raise PickleError("it refers to something outside itself")
        self.make(self.persistent(self.pop()))


_METHODS = {name[3:].upper(): method for name, method in vars(_Machine).items() if name.startswith("do_")}
_METHODS |= {name: _METHODS[same] for name, same in _SAME.items()}


def is_key(key: Any) -> bool:
    """Whether it is hashed at once: a tuple of tuples takes twice as long per level, a long number its length."""
    return type(key) is str or (type(key) is int and key.bit_length() <= 64)


def _container(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise PickleError(f"the pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value
