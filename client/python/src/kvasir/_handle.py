"""A pointer of the library that is freed once, by its owner's end at the latest. Private."""
import os
import threading
import typing
import weakref

from kvasir.errors import ClosedError


class Handle:
    """Thread-safe: who closes it while others call has it freed by the last of them.

    In a child of fork() it is closed and frees nothing: connection and memory are the parent's.
    """

    def __init__(self, what: str, pointer: int, free: typing.Callable[[int], None],
                 owner: object) -> None:
        self._what = what
        self._pointer = pointer
        self._free = free
        self._users = 0
        self._closed = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        # Before the interpreter takes modules apart, and newest first: sequences before sessions.
        self._end = weakref.finalize(owner, self._close_quietly)

    def __enter__(self) -> int:
        if os.getpid() != self._process:
            raise ClosedError(f"the {self._what} belongs to the process before the fork: open one")
        with self._lock:
            if self._closed:
                raise ClosedError(f"the {self._what} is closed")
            self._users += 1
        return self._pointer

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            free = self._closed and self._users == 0
        if free:
            self._free(self._pointer)

    @property
    def closed(self) -> bool:
        return self._closed or os.getpid() != self._process

    def close(self) -> None:
        """Frees it now or, while others use it, when they are done. Nothing the second time."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            free = self._users == 0
        self._end.detach()
        if free:
            self._free(self._pointer)

    def _close_quietly(self) -> None:
        try:
            self.close()
        except Exception:  # nobody is left to hear it; the daemon frees all with the session
            pass
