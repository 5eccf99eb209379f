"""Where the daemon is."""
import os
import typing

Path = typing.Union[str, "os.PathLike[str]"]


def path_bytes(path: typing.Optional[Path]) -> typing.Optional[bytes]:
    return None if path is None else os.fsencode(path)


def sockets_of(control: typing.Optional[Path], data: typing.Optional[Path]
               ) -> typing.Tuple[typing.Optional[bytes], typing.Optional[bytes]]:
    """Those given, those that the environment names, or the library's own: None."""
    control = control or os.environ.get("KVASIR_CONTROL_SOCKET") or None
    data = data or os.environ.get("KVASIR_DATA_SOCKET") or None
    if control is not None and data is None:
        data = os.path.join(os.path.dirname(os.fsdecode(control)), "data.sock")
    return path_bytes(control), path_bytes(data)
