"""Devices of this process, and rows that lie in the memory of one."""
import ctypes as c
import os
import typing

import numpy as np

from kvasir import _abi
from kvasir._handle import Handle
from kvasir.errors import ClosedError
from kvasir.memory import Hold, address_of

Array = np.ndarray


class Device:
    """A device of this process, for Session(devices=...) and models with a pool.

    name: "cuda:0" (CUDA's order), "GPU-..." (a uuid, which says the same GPU in every process), or
        "host-POOL": host memory that stands in for one, the daemon's pool POOL with
        device = "host".
    A context manager, or close() it: sessions and arrays that came of it keep what they need.
    Thread-safe: copies take turns.
    Raises InvalidArgumentError (no such kind of name), NotFoundError (naming the uuids that are
    there), UnavailableError (no driver, no GPU), KvasirError with code UNIMPLEMENTED where
    libkvasir.so is built without CUDA.
    """

    def __init__(self, name: str) -> None:
        library = _abi.library()
        pointer = c.c_void_p()
        library.call("open_device", name.encode(), c.byref(pointer))
        self._handle = Handle("device", int(pointer.value or 0), library.close_device, self)
        self.uuid: str = library.look.device_uuid(pointer).decode()
        self.name: str = library.look.device_name(pointer).decode()  # for people
        self.is_cuda: bool = library.look.device_is_cuda(pointer) != 0

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<kvasir.Device {self.uuid}{' closed' if self.closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """No copies any more. Nothing the second time."""
        self._handle.close()

    def _copy(self, verb: str, source: typing.Any, target: typing.Any, count: int) -> None:
        with self._handle as pointer:
            _abi.library().call(verb, pointer, source, target, count)


class DeviceRows:
    """Rows in a device's memory, [row][kv_head][dim]: what an array is where they lie in the host's.

    The processor cannot read them in place: numpy() copies them here, write() copies there, and
    rows[first:end] is a part. Rows of a GPU are in place for what knows CUDA's array interface
    (`cupy.asarray(rows)`). They stay mapped as long as this lives, as arrays do. The stream that
    writes rows is waited for before commit(), and one that reads them before the next step, unless
    the commit says when they are done (TimelinePoint).
    shape, dtype, strides (bytes): as of an array. address: of the device. writable: kept rows are
    not.
    """

    def __init__(self, device: Device, hold: Hold, address: int, shape: typing.Tuple[int, ...],
                 strides: typing.Tuple[int, ...], dtype: "np.dtype[typing.Any]",
                 writable: bool) -> None:
        self.device, self.address = device, address
        self.shape, self.strides, self.dtype, self.writable = shape, strides, dtype, writable
        self._hold = hold
        self._process = os.getpid()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<kvasir.DeviceRows {self.shape} {self.dtype} on {self.device.uuid}>"

    def __getitem__(self, part: slice) -> "DeviceRows":
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise TypeError("rows of a device are taken by rows[first:end]; numpy() has elements")
        first, end, _ = part.indices(len(self))
        return DeviceRows(self.device, self._hold, self.address + first * self.strides[0],
                          (max(0, end - first), *self.shape[1:]), self.strides, self.dtype,
                          self.writable)

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    def numpy(self) -> Array:
        """A copy in this process's memory. Waits for the device; other threads run meanwhile."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        # With what lies between the rows: one copy.
        span = np.empty((len(self) - 1) * self.strides[0] + self._row_bytes, np.uint8)
        self.device._copy("read_device", self.address, address_of(span), span.size)
        there: Array = np.ndarray(self.shape, self.dtype, span.data, 0, self.strides)
        return there if there.flags.c_contiguous else there.copy()

    def write(self, rows: Array) -> None:
        """Copies `rows`, of this shape, there. Returns when they are.

        Raises ValueError (another shape), FailedPreconditionError (kept rows).
        """
        rows = np.ascontiguousarray(rows, self.dtype)
        if rows.shape != self.shape:
            raise ValueError(f"rows have another shape: shape={rows.shape} expected={self.shape}")
        if rows.size == 0:
            return
        whole = self.strides[0] == self._row_bytes
        for i, part in enumerate((rows,) if whole else rows):
            self.device._copy("write_device", address_of(part), self.address + i * self.strides[0],
                              part.nbytes)

    @property
    def __cuda_array_interface__(self) -> typing.Dict[str, typing.Any]:
        if not self.device.is_cuda:  # so that nobody believes it to be a GPU's
            raise AttributeError("__cuda_array_interface__: the rows lie on no GPU")
        if os.getpid() != self._process:
            raise ClosedError("the memory is the parent's: a child of fork() has not got it")
        return {"version": 3, "shape": self.shape, "strides": self.strides,
                "typestr": self.dtype.str, "data": (self.address, not self.writable)}
