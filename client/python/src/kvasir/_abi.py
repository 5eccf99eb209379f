"""libkvasir.so by ctypes: the structs of the headers in client/c, and its functions.

Private. tests/python/abi_test.py compares names and sizes with the headers.
"""
import ctypes as c
import os
import threading
import typing

ABI = 4

P = c.c_void_p
U8, U32, U64, I32, I64, F64 = (c.c_uint8, c.c_uint32, c.c_uint64, c.c_int32, c.c_int64, c.c_double)
TEXT, SIZE = c.c_char_p, c.c_size_t


def _struct(kind: str, /, **fields: typing.Any) -> typing.Any:
    return type(kind, (c.Structure,), {"_fields_": list(fields.items())})


Error = _struct("kvasir_error", code=I32, text=c.c_char * 1020)
ConnectOptions = _struct("kvasir_connect_options", struct_size=SIZE, control_socket=TEXT,
                         data_socket=TEXT, deadline_ms=U64, without_ring=U32, devices=P,
                         device_count=SIZE)
Layer = _struct("kvasir_layer", kv_heads=U32, k_head_dim=U32, v_head_dim=U32, sliding_window=U32,
                query_heads=U32)
Bytes = _struct("kvasir_bytes", data=TEXT, size=SIZE)
ModelSpec = _struct("kvasir_model_spec", struct_size=SIZE, name=TEXT, kv_type=I32, layers=P,
                    layer_count=SIZE, rope=I32, rope_theta=F64, rope_dims=U32, separators=P,
                    separator_count=SIZE, vocabulary_size=U32, slots_per_block=U32,
                    weights_digest=Bytes, adapter_digests=P, adapter_count=SIZE,
                    prefill_rows_per_s=F64, pool=TEXT)
Model = _struct("kvasir_model", id=U32, slots_per_block=U32, fingerprint=U8 * 16)
TokenDigest = _struct("kvasir_token_digest", row=U64, digest=Bytes)
Prompt = _struct("kvasir_prompt", struct_size=SIZE, tokens=P, token_count=SIZE, digests=P,
                 digest_count=SIZE, salt=Bytes, rows_max=U64, least_quality=I32)
PrefixForm = _struct("kvasir_prefix_form", retention=TEXT, quality=I32, is_public=U32, rows=U64,
                     place=TEXT, condensed_from=TEXT)
Snapshot = _struct("kvasir_snapshot", id=U8 * 16, rows=U64, held_bytes=U64)
Hints = _struct("kvasir_hints", struct_size=SIZE, priority=I32, has_prediction=U32,
                predicted_rows=U64, predicted_rank=U32, age_ms=U64)
OpenOptions = _struct("kvasir_open_options", struct_size=SIZE, model=c.POINTER(Model),
                      retention=TEXT, prompt_rows=U64, label=TEXT, max_rows=U64,
                      reads_records=U32, snapshot=c.POINTER(Snapshot), snapshot_rows=U64,
                      prefix=c.POINTER(Prompt), lease=P, hints=c.POINTER(Hints))
KeptRun = _struct("kvasir_kept_run", k=P, v=P, rows=U32, k_stride=U32, v_stride=U32,
                  query_offset=I64, query_max=U64, positions=P, tokens=P, v_bits=U32,
                  head_stride=U32)
RecentBlock = _struct("kvasir_recent_block", k=P, v=P)
Mass = _struct("kvasir_mass", by_query_head=U8, kept=P, recent=P, kept_rows=U64, recent_rows=U64)
QueryRows = _struct("kvasir_query_rows", data=P, first_row=U64, count=U32, row_floats=U32)
LayerView = _struct("kvasir_layer_view", kept=P, kept_count=SIZE, records=P, record_count=SIZE,
                    record_format=P, records_from=U64, recent=P, recent_count=SIZE,
                    recent_base=U64, recent_first=U64, window=U64, sticky=P, sticky_count=SIZE,
                    slots_per_block=U32, k_stride=U32, v_stride=U32, unrotated=U8,
                    far_position=U64, mass=Mass, queries=QueryRows)
Step = _struct("kvasir_step", row=U64, count=U32, layers=P, layer_count=SIZE, mass_decay=F64)
Footprint = _struct("kvasir_footprint", held_bytes=U64, kept_rows=U64, version=U64)
Shortage = _struct("kvasir_shortage", budget=c.c_char * 64, holder=c.c_char * 64, missing=U64,
                   retry_after_ms=U64)
LeaseMember = _struct("kvasir_lease_member", model_fingerprint=U8 * 16, retention=TEXT,
                      least_quality=I32, reads_records=U32)
LeaseOptions = _struct("kvasir_lease_options", struct_size=SIZE, members=P, member_count=SIZE,
                       prompt=c.POINTER(Prompt), prompt_rows=U64, ttl_ms=U64)
TimelinePoint = _struct("kvasir_timeline_point", word=P, value=U64)
LeasedForm = _struct("kvasir_leased_form", retention=TEXT, quality=I32, is_public=U32)

_ERROR = c.POINTER(Error)
_OUT = c.POINTER(P)

# Calls that may wait: CDLL gives the interpreter's lock back while they do.
CALLS = {
    "connect": [c.POINTER(ConnectOptions), _OUT, _ERROR],
    "register_model": [P, c.POINTER(ModelSpec), c.POINTER(Model), _ERROR],
    "digest_file": [TEXT, P, _ERROR],
    "match_prefix": [P, c.POINTER(Model), c.POINTER(Prompt), U32, _OUT, _ERROR],
    "open": [P, c.POINTER(OpenOptions), _OUT, _ERROR],
    "close": [P, _ERROR],
    "begin": [P, U32, c.POINTER(Step), _ERROR],
    "commit": [P, P, SIZE, _ERROR],
    "begin_many": [P, SIZE, U32, P, P, _ERROR],
    "commit_many": [P, SIZE, P, P, _ERROR],
    "commit_async": [P, P, SIZE, c.POINTER(TimelinePoint), _ERROR],
    "commit_many_async": [P, SIZE, P, c.POINTER(TimelinePoint), P, _ERROR],
    "truncate": [P, U64, _ERROR],
    "save": [P, c.POINTER(Snapshot), _ERROR],
    "drop_snapshot": [P, P, _ERROR],
    "publish_prefix": [P, c.POINTER(U64), c.POINTER(U64), _ERROR],
    "select_rows": [P, P, SIZE, P, SIZE, c.POINTER(SIZE), _ERROR],
    "retrieve": [P, U32, P, SIZE, P, SIZE, _OUT, c.POINTER(SIZE), _ERROR],
    "measure_footprint": [P, c.POINTER(Footprint), _ERROR],
    "set_hints": [P, c.POINTER(Hints), _ERROR],
    "lease_prefix": [P, c.POINTER(LeaseOptions), _OUT, _ERROR],
    "release_lease": [P, _ERROR],
    "put_token_texts": [P, c.POINTER(Model), U32, P, SIZE, _ERROR],
    "describe_tenant": [P, _OUT, _ERROR],
    "describe_policies": [P, _OUT, _ERROR],
    "describe_rows": [P, U64, U32, U64, U32, _OUT, _ERROR],
    "open_device": [TEXT, _OUT, _ERROR],
    "read_device": [P, P, P, SIZE, _ERROR],
    "write_device": [P, P, P, SIZE, _ERROR],
}
# What only looks: PyDLL, because to give the lock back and take it again costs more than the look.
LOOKS: typing.Dict[str, typing.Tuple[typing.Any, typing.List[typing.Any]]] = {
    "version": (TEXT, []), "abi": (U32, []),
    "prefix_forms_count": (SIZE, [P]), "prefix_forms_at": (c.POINTER(PrefixForm), [P, SIZE]),
    "prefix_forms_free": (None, [P]),
    "rows": (U64, [P]), "sequence_id": (U64, [P]), "retention": (TEXT, [P]),
    "condensed_from": (TEXT, [P]), "slots_per_block": (U32, [P]), "filter_layer": (I64, [P]),
    "retrieves": (U32, [P]), "suspend_wanted": (U32, [P]), "wanted_back": (U64, [P]),
    "session_id": (U32, [P]), "boot_epoch": (U64, [P]),
    "last_shortage": (U32, [c.POINTER(Shortage)]),
    "lease_id": (P, [P]), "lease_rows": (U64, [P]), "lease_ttl_ms": (U64, [P]),
    "lease_form": (c.POINTER(LeasedForm), [P, SIZE]),
    "text_data": (TEXT, [P]), "text_free": (None, [P]), "let_go": (None, [P]),
    "device_uuid": (TEXT, [P]), "device_name": (TEXT, [P]), "device_is_cuda": (U32, [P]),
    "model_device": (TEXT, [P, c.POINTER(Model)]),
}


class Library:
    """The loaded library. `look` has what only looks; `call()` checks what the others return."""

    def __init__(self, path: str) -> None:
        calls = c.CDLL(path)
        try:
            loaded = int(calls.kvasir_abi())
        except AttributeError:
            raise ImportError(f"{path} is no libkvasir.so") from None
        if loaded < ABI:
            raise ImportError(f"{path} is too old: abi={loaded} needed={ABI}")
        self._calls: typing.Dict[str, typing.Any] = {}
        for name, arguments in CALLS.items():
            function = getattr(calls, "kvasir_" + name)
            function.argtypes, function.restype = arguments, I32
            self._calls[name] = function
        self.disconnect = calls.kvasir_disconnect  # ends a connection: may wait
        self.disconnect.argtypes, self.disconnect.restype = [P], None
        self.close_device = calls.kvasir_close_device  # ends a stream: may wait
        self.close_device.argtypes, self.close_device.restype = [P], None
        self.look = _Looks()
        looks = c.PyDLL(path)
        for name, (result, given) in LOOKS.items():
            function = getattr(looks, "kvasir_" + name)
            function.argtypes, function.restype = given, result
            setattr(self.look, name, function)
        # One lock less for the memory of views: nothing to wait for.
        self.hold_memory = looks.kvasir_hold_memory
        self.hold_memory.argtypes, self.hold_memory.restype = [P, _OUT, _ERROR], I32

    def call(self, name: str, *arguments: typing.Any) -> None:
        """Calls kvasir_NAME. Raises the KvasirError that its code says."""
        error = Error()
        if self._calls[name](*arguments, c.byref(error)) != 0:
            raise self.error_of(error)

    def call_code(self, name: str, *arguments: typing.Any) -> typing.Optional[Exception]:
        """As call(), and returns the error."""
        error = Error()
        return self.error_of(error) if self._calls[name](*arguments, c.byref(error)) else None

    def error_of(self, error: typing.Any) -> Exception:
        from kvasir.errors import make_error
        shortage = Shortage()
        known = self.look.last_shortage(c.byref(shortage)) != 0
        return make_error(error.code, error.text.decode(errors="replace"),
                          shortage if known else None)


class _Looks:
    """Functions of LOOKS by name."""

    def __getattr__(self, name: str) -> typing.Any:  # for type checkers: set by Library
        raise AttributeError(name)


_library: typing.Optional[Library] = None
_lock = threading.Lock()


def library() -> Library:
    """KVASIR_LIBRARY, else libkvasir.so.1 of the loader; loaded once. Raises ImportError."""
    global _library
    with _lock:
        if _library is None:
            path = os.environ.get("KVASIR_LIBRARY") or "libkvasir.so.1"
            try:
                _library = Library(path)
            except OSError as error:
                raise ImportError(
                    f"libkvasir.so cannot be loaded: {error}. Install it (cmake --install, or the "
                    "package), or set KVASIR_LIBRARY to its path.") from None
        return _library
