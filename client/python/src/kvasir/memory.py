"""The daemon's memory as NumPy arrays and DLPack, without a copy."""
import ctypes
import os
import typing

import numpy as np

from kvasir import _abi
from kvasir.errors import ClosedError


class Hold:
    """Keeps mapped what the views of a session showed when it was taken. Private."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self._process = os.getpid()
        self._let_go = _abi.library().look.let_go

    def __del__(self) -> None:
        # A child of fork() has not got the mappings: what is there now is something else.
        if os.getpid() == self._process:
            self._let_go(self._pointer)


class Memory:
    """Rows in the daemon's memory: what the arrays of a view are made from, and their `base`.

    `numpy()` and DLPack (`numpy.from_dlpack`, `torch.from_dlpack`) share it without a copy. It
    stays mapped as long as this or an array of it lives, also after the session is closed; what it
    shows after its step may change. Kept rows are read-only: the mapping itself is, so there is
    nothing by which an array of them could be made writable, and DLPack passes them on only to who
    understands read-only (NumPy 2.1 or newer), else BufferError. Memory that is held counts as the
    tenant's. A child of fork() has none of it: to read an array there ends the child.
    """

    def __init__(self, hold: Hold, address: int, shape: typing.Tuple[int, ...],
                 strides: typing.Tuple[int, ...], dtype: "np.dtype[typing.Any]",
                 writable: bool) -> None:
        self._hold = hold
        self._process = os.getpid()
        self._interface = {"version": 3, "shape": shape, "strides": strides, "typestr": dtype.str,
                           "data": (address, not writable)}

    @property
    def __array_interface__(self) -> typing.Dict[str, typing.Any]:
        if os.getpid() != self._process:
            raise ClosedError("the memory is the parent's: a child of fork() has not got it")
        return dict(self._interface)

    def numpy(self) -> "np.ndarray[typing.Any, typing.Any]":
        return np.asarray(self)

    def __dlpack__(self, **arguments: typing.Any) -> typing.Any:
        array = self.numpy()
        if not array.flags.writeable and not _takes_read_only(arguments):
            raise BufferError("kept rows are read-only, and the caller's DLPack cannot say so: "
                              "copy them, or ask with max_version=(1, 0) or newer")
        return array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> typing.Tuple[int, int]:
        return (1, 0)  # kDLCPU


def _takes_read_only(arguments: typing.Dict[str, typing.Any]) -> bool:
    version = arguments.get("max_version")
    return arguments.get("copy") is True or (version is not None and version[0] >= 1)


def array_of(hold: Hold, address: typing.Optional[int], shape: typing.Tuple[int, ...],
             strides: typing.Tuple[int, ...], dtype: "np.dtype[typing.Any]",
             writable: bool) -> "np.ndarray[typing.Any, typing.Any]":
    if not address or 0 in shape:
        empty = np.empty(shape, dtype)
        empty.flags.writeable = writable
        return empty
    return Memory(hold, address, shape, strides, dtype, writable).numpy()


def address_of(array: "np.ndarray[typing.Any, typing.Any]") -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data if array.size else None)
