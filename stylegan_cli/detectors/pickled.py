"""Pickles read as data. Nothing is imported, nothing is called that is not in the reader's own list.

A pickle is a program for a machine with a stack. This one knows the instructions that build numbers, texts, lists and
dictionaries. Where the program names a class or a function, the reader looks into `known`, and into nothing else.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

_MARK = object()
_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
# With an argument in the stream, which is the value
_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_GROUPS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SAME = {"FRAME": "PROTO", "BINPUT": "PUT", "LONG_BINPUT": "PUT", "BINGET": "GET", "LONG_BINGET": "GET"}


class PickleError(ValueError):
    """What makes a pickle unreadable here, in one sentence without a full stop."""


class Name:
    """A class or a function that the pickle names: on the stack it is this, and only this is ever called."""

    def __init__(self, meaning: Any):
        self.meaning = meaning


def read_pickle(
    data: bytes,
    known: Callable[[str, str], Any],  # (module, name) -> what it means here, mostly what to call; None: refuse
    persistent: Callable[[Any], Any] | None = None,  # what a persistent id stands for; None: refuse
) -> Any:
    """The object that a pickle describes. An object with a state must have the method `set_state`.

    Raises PickleError for whatever is not in the lists, and for a stream that is cut or makes no sense.
    """
    machine = _Machine(known, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as e:
        raise PickleError(f"the pickle is damaged ({type(e).__name__}: {e})") from e
    raise PickleError("the pickle is cut short")


class _Machine:
    def __init__(self, known: Callable[[str, str], Any], persistent: Callable[[Any], Any] | None):
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _GROUPS:
            self.stack.append(tuple(self.pop() for _ in range(_GROUPS[name]))[::-1])
        elif method := getattr(self, f"do_{_SAME.get(name, name).lower()}", None):
            method(argument)
        else:
            raise PickleError(f"its instruction {name} is not understood here")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("the pickle takes what it did not put")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = max(i for i, value in enumerate(self.stack) if value is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def do_proto(self, _: Any) -> None:
        pass

    def do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def do_list(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def do_dict(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def do_append(self, _: Any) -> None:
        value = self.pop()
        _container(self.stack[-1], list).append(value)

    def do_appends(self, _: Any) -> None:
        items = self.pop_to_mark()
        _container(self.stack[-1], list).extend(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        _container(self.stack[-1], dict)[key] = value

    def do_setitems(self, _: Any) -> None:
        items = self.pop_to_mark()
        _container(self.stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._look_up(module, name))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self._look_up(module, name))

    def _look_up(self, module: str, name: str) -> Name:
        meaning = self.known(module, name)
        if meaning is None:
            raise PickleError(f"it wants {module}.{name}, which no file of weights needs")
        return Name(meaning)

    def do_reduce(self, _: Any) -> None:
        arguments = _container(self.pop(), tuple)
        self.stack.append(_container(self.pop(), Name).meaning(*arguments))

    do_newobj = do_reduce

    def do_build(self, _: Any) -> None:
        state = self.pop()
        self.stack[-1].set_state(state)

    def do_binpersid(self, _: Any) -> None:
        if self.persistent is None:
            raise PickleError("it refers to something outside itself")
        self.stack.append(self.persistent(self.pop()))


def _container(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise PickleError(f"the pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value
