"""InsightFace's .bin files of pairs, read without unpickling.

Such a file is a pickle of two things: encoded pictures, two for each pair, and whether the pairs are of one person. To
unpickle a file is to run what its author wants run. Here its opcodes are read as data: containers, bytes, numbers, and
the few calls by which byte strings and NumPy arrays are commonly written, which are recognised by name and done here.
Anything else is refused.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_training.protocols.embedding import ProtocolError

_MOST_PICTURES = 1_000_000


@dataclass(frozen=True, eq=False)
class PackedPicture:
    """An encoded picture inside a file, read like a path."""

    name: str
    data: bytes = field(repr=False)

    def read_bytes(self) -> bytes:
        """The encoded picture."""
        return self.data


def read_packed(path: Path) -> tuple[list[PackedPicture], list[bool]]:
    """Pictures, two a pair, and whether each pair is of one person.

    Raises:
        ProtocolError: the file is something else, or wants more run than it takes to hold pictures.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            content = _Reader(path).read(mapped)
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"{path} is not one of InsightFace's .bin files: {error}") from error
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise ProtocolError(f"{path} does not hold pictures and a list of pairs")
    pictures, same = _listed(content[0]), _listed(content[1])
    if len(pictures) != 2 * len(same) or not same or len(pictures) > _MOST_PICTURES:
        raise ProtocolError(f"{path} has {len(pictures)} pictures for {len(same)} pairs")
    named = [PackedPicture(f"{path.name}#{number}", _encoded(each, path)) for number, each in enumerate(pictures)]
    return named, [bool(each) for each in same]


def _listed(value: object) -> list[Any]:
    if isinstance(value, _Array) and value.value is not None:
        return list(value.value.tolist())
    if not isinstance(value, list | tuple):
        raise ProtocolError("neither a list nor an array where pictures or pairs should be")
    return list(value)


def _encoded(value: object, path: Path) -> bytes:
    if isinstance(value, _Array) and value.value is not None and value.value.dtype == np.uint8:
        return value.value.tobytes()
    if isinstance(value, str):
        # A byte string of Python 2, whose bytes pickletools shows as the characters of the same numbers.
        return value.encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise ProtocolError(f"{path} holds something else than encoded pictures")


@dataclass(frozen=True)
class _Name:
    """A function or class that the file names; it is not looked up."""

    module: str
    name: str


class _Mark:
    """Where a container's items begin."""


@dataclass
class _Array:
    """An array that is being written: shape, type and bytes come after it is made."""

    value: np.ndarray | None = None


@dataclass(frozen=True)
class _Dtype:
    """A NumPy type by its short name."""

    code: str


_NUMPY = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}
# Short names of the types that pictures and labels have.
_TYPES = {"u1", "b1", "i1", "i2", "i4", "i8", "u2", "u4", "u8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BINSTRING", "SHORT_BINSTRING", "STRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
}  # fmt: skip
_NOTHING = {"PROTO", "FRAME", "STOP"}


class _Reader:
    """A stack machine with the opcodes that hold data."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._does: dict[str, Callable[[Any], None]] = {
            "MARK": lambda _: self._stack.append(_Mark()),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "LIST": lambda _: self._stack.append(self._since_mark()),
            "TUPLE": lambda _: self._stack.append(tuple(self._since_mark())),
            "TUPLE1": lambda _: self._stack.append(tuple(self._popped(1))),
            "TUPLE2": lambda _: self._stack.append(tuple(self._popped(2))),
            "TUPLE3": lambda _: self._stack.append(tuple(self._popped(3))),
            "APPEND": lambda _: self._extend(self._popped(1)),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "MEMOIZE": lambda _: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            "GLOBAL": lambda named: self._stack.append(_Name(*named.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self._stack.append(_Name(*self._popped(2))),
            "REDUCE": lambda _: self._reduce(),
            "BUILD": lambda _: self._build(),
        }
        self._does |= dict.fromkeys(
            ("PUT", "BINPUT", "LONG_BINPUT"), lambda number: self._memo.__setitem__(number, self._stack[-1])
        )
        self._does |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda at: self._stack.append(self._memo[at]))

    def read(self, stream: mmap.mmap) -> Any:
        """What the file holds."""
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name in _LITERALS:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in self._does:
                self._does[name](argument)
            elif name not in _NOTHING:
                raise ProtocolError(f"{self._path} wants {name}, which holding pictures does not need")
        (content,) = self._stack
        return content

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ProtocolError(f"{self._path} takes more from its stack than it put there")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _since_mark(self) -> list[Any]:
        start = next((at for at in range(len(self._stack) - 1, -1, -1) if isinstance(self._stack[at], _Mark)), None)
        if start is None:
            raise ProtocolError(f"{self._path} ends a container that it did not begin")
        taken = self._stack[start + 1 :]
        del self._stack[start:]
        return taken

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ProtocolError(f"{self._path} appends to what is no list")
        self._stack[-1].extend(items)

    def _reduce(self) -> None:
        called, arguments = self._popped(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise ProtocolError(f"{self._path} calls what has no name")
        match called, arguments:
            case _Name("_codecs", "encode"), (str() as text, "latin1" | "latin-1"):
                made: object = text.encode("latin-1")
            case _Name("__builtin__" | "builtins", "bytes"), ():
                made = b""
            case _Name(module, "_frombuffer"), (data, _Dtype(code), tuple() as shape, _) if module in _NUMPY:
                made = _Array(np.frombuffer(_bytes(data), dtype=code).reshape(shape))
            case _Name(module, "_reconstruct"), (_Name("numpy", "ndarray"), (0,), _) if module in _NUMPY:
                made = _Array()
            case _Name("numpy", "dtype"), (str() as code, *_) if code in _TYPES:
                made = _Dtype(code)
            case _Name(module, "scalar"), (_Dtype(code), data) if module in _NUMPY:
                made = np.frombuffer(_bytes(data), dtype=code)[0].item()
            case _:
                raise ProtocolError(f"{self._path} calls {called.module}.{called.name}, which is not run")
        self._stack.append(made)

    def _build(self) -> None:
        (state,) = self._popped(1)
        match self._stack[-1], state:
            case _Array() as array, (int(), tuple() as shape, _Dtype(code), _, data):
                array.value = np.frombuffer(_bytes(data), dtype=code).reshape(shape)
            case _Dtype(), tuple():
                # Byte order and alignment, which the types above do not need: files are written little-endian.
                if state[1:2] == (">",):
                    raise ProtocolError(f"{self._path} has numbers of the other byte order")
            case _:
                raise ProtocolError(f"{self._path} gives a state to what has none")


def _bytes(data: object) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)  # type: ignore[call-overload, no-any-return]
