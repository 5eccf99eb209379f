"""Sessions: this process's connection to kvasird."""
import contextlib
import ctypes as c
import dataclasses
import json
import typing
import weakref

import numpy as np

from kvasir import _abi
from kvasir._handle import Handle
from kvasir._places import Path, path_bytes, sockets_of
from kvasir.device import Device
from kvasir.insight import InspectedRow, Policy, TenantStats, policies_of, rows_of, tenants_of
from kvasir.memory import Hold, address_of
from kvasir.model import Model, ModelSpec, Quality
from kvasir.sequence import Hints, Sequence, Snapshot, Tokens, token_array


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt from row 0: what is cached of it is attached, what is computed may be published."""

    tokens: Tokens
    digests: typing.Sequence[typing.Tuple[int, bytes]] = ()  # of rows, ascending: an image's hash
    salt: bytes = b""  # sequences of other salts share nothing
    rows_max: int = 0  # no more are wanted; 0: as many as there are tokens
    least_quality: Quality = Quality.ANY  # also other forms, at least this good, where longer

    def _raw(self) -> typing.Tuple[typing.Any, typing.Any]:
        """The struct, and what has to live as long."""
        ids = token_array(self.tokens)
        digests = (_abi.TokenDigest * len(self.digests))(
            *[_abi.TokenDigest(row, _bytes(digest)) for row, digest in self.digests])
        raw = _abi.Prompt(c.sizeof(_abi.Prompt), address_of(ids), ids.size,
                          c.addressof(digests) if self.digests else None, len(self.digests),
                          _bytes(self.salt), self.rows_max, int(self.least_quality))
        return raw, (ids, digests)


class PrefixForm(typing.NamedTuple):
    """A form of a prompt's beginning that is cached."""

    retention: str
    quality: Quality
    rows: int
    is_public: bool
    place: str  # "memory", a device's pool, "disk" or "remote"
    condensed_from: str  # form that the daemon has brought into `retention`; "": none


class LeaseMember(typing.NamedTuple):
    """A model that goes through a prompt, such as a rank's shard of the weights."""

    fingerprint: bytes  # Model.fingerprint, of any session of the tenant
    retention: typing.Optional[str] = None
    least_quality: Quality = Quality.ANY


class Lease:
    """The row at which every rank of an engine goes on, held for them. A context manager."""

    def __init__(self, pointer: int) -> None:
        library = _abi.library()
        address = library.look.lease_id(pointer)
        # 16 bytes for Session.open(lease=...), in any session of the tenant; b"": there is none.
        self.id = c.string_at(address, 16) if address else b""
        self.rows: int = library.look.lease_rows(pointer)
        self.ttl_s: float = library.look.lease_ttl_ms(pointer) / 1000
        self._handle = Handle("lease", pointer, lambda p: library.call("release_lease", p), self)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives it back; sequences that were opened with it go on.

        Raises NotFoundError: its time was over.
        """
        self._handle.close()


def _bytes(data: bytes) -> typing.Any:
    return _abi.Bytes(bytes(data), len(data))


def digest_file(path: Path) -> bytes:
    """BLAKE2b-256 of a file: the weights digest of a model in one file. About 1 s a GiB."""
    digest = (c.c_uint8 * 32)()
    _abi.library().call("digest_file", path_bytes(path), digest)
    return bytes(digest)


class Session:
    """This process's connection to the daemon. A context manager, or close() it. Thread-safe.

    control_socket, data_socket: else KVASIR_CONTROL_SOCKET and KVASIR_DATA_SOCKET, else
        data.sock beside the control socket, else those of the system's daemon.
    deadline_s: seconds, of every call and every wait; nothing hangs longer, and the interpreter's
        other threads run meanwhile.
    ring: calls at block borders go through shared memory, else by gRPC as all the rest.
    devices: of this process, for models with a pool; each once.
    Raises NotFoundError or UnavailableError (no daemon), PermissionDeniedError (this user has no
    tenant), DeadlineExceededError, ResourceExhaustedError.
    """

    def __init__(self, *, control_socket: typing.Optional[Path] = None, data_socket: typing.Optional[Path] = None,
                 deadline_s: float = 10.0, ring: bool = True,
                 devices: typing.Sequence[Device] = ()) -> None:
        if not 0.001 <= deadline_s <= 86400:
            raise ValueError(f"deadline_s is out of bounds: value={deadline_s} min=0.001 max=86400")
        library = _abi.library()
        control, data = sockets_of(control_socket, data_socket)
        options = _abi.ConnectOptions(c.sizeof(_abi.ConnectOptions), control, data,
                                      round(deadline_s * 1000), int(not ring))
        pointer = c.c_void_p()
        with contextlib.ExitStack() as opened:
            raw = (c.c_void_p * len(devices))(
                *[opened.enter_context(one._handle) for one in devices])
            options.devices, options.device_count = c.addressof(raw), len(devices)
            library.call("connect", c.byref(options), c.byref(pointer))
        self._devices = {one.uuid: one for one in devices}
        self._handle = Handle("session", _some(pointer), library.disconnect, self)
        self._sequences: "weakref.WeakSet[Sequence]" = weakref.WeakSet()
        self.id: int = library.look.session_id(pointer)
        # Of the daemon: another number is another one, or that one started again.
        self.boot_epoch: int = library.look.boot_epoch(pointer)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Closes its sequences, then itself. Arrays stay readable. Nothing the second time."""
        if not self._handle.closed:
            for sequence in list(self._sequences):
                try:
                    sequence.close()
                except Exception:  # the daemon frees it with the session
                    pass
        self._handle.close()

    def _call(self, name: str, *arguments: typing.Any) -> None:
        with self._handle as pointer:
            _abi.library().call(name, pointer, *arguments)

    def _hold(self) -> Hold:
        held, error = c.c_void_p(), _abi.Error()
        library = _abi.library()
        with self._handle as pointer:
            if library.hold_memory(pointer, c.byref(held), c.byref(error)) != 0:
                raise library.error_of(error)
        return Hold(_some(held))

    def register_model(self, spec: ModelSpec) -> Model:
        """Registers the model and probes that both sides lay out its blocks alike.

        Raises InvalidArgumentError naming field and bound, NotFoundError (no such pool),
        FailedPreconditionError (the pool's device is not among Session(devices=...)).
        """
        layers = (_abi.Layer * len(spec.layers))(*[
            _abi.Layer(one.kv_heads, one.k_head_dim, one.v_head_dim, one.sliding_window,
                       one.query_heads) for one in spec.layers])
        separators = token_array(spec.separator_token_ids)
        adapters = (_abi.Bytes * len(spec.adapter_digests))(*map(_bytes, spec.adapter_digests))
        raw = _abi.ModelSpec(
            c.sizeof(_abi.ModelSpec), spec.name.encode(), int(spec.kv_type), c.addressof(layers),
            len(layers), int(spec.rope), spec.rope_theta, spec.rope_dims, address_of(separators),
            separators.size, spec.vocabulary_size, spec.slots_per_block,
            _bytes(spec.weights_digest), c.addressof(adapters), len(adapters),
            spec.prefill_rows_per_s, spec.pool.encode())
        model = _abi.Model()
        with self._handle as pointer:
            library = _abi.library()
            library.call("register_model", pointer, c.byref(raw), c.byref(model))
            uuid = library.look.model_device(pointer, c.byref(model)).decode()
        return Model(spec, model, self._devices[uuid] if uuid else None)

    def open(self, model: Model, retention: typing.Optional[str] = None, *,
             prompt: typing.Optional[Prompt] = None,
             snapshot: typing.Union[Snapshot, bytes, None] = None, snapshot_rows: int = 0,
             lease: typing.Optional[bytes] = None, prompt_rows: int = 0, max_rows: int = 0,
             label: str = "", hints: typing.Optional[Hints] = None) -> Sequence:
        """Opens a sequence.

        retention: as `kvasirctl policies` lists them, such as "sepllm:local_size=256"; None: the
            tenant's default.
        prompt: go on from its longest cached beginning (Sequence.rows says how long it is), and be
            free to publish. Without: the rows are private.
        snapshot, snapshot_rows: go on from a saved sequence, at this row; 0: its last.
        lease: Lease.id, with `prompt`: begin at exactly its rows.
        prompt_rows: how many of the first rows are prefill, for policies that tell it apart.
        max_rows: the sequence never grows beyond; 0: no bound. label: for people.
        Raises InvalidArgumentError, ResourceExhaustedError, NotFoundError, FailedPreconditionError.
        """
        options = _abi.OpenOptions(c.sizeof(_abi.OpenOptions), c.pointer(model._raw))
        options.retention = None if retention is None else retention.encode()
        options.prompt_rows, options.max_rows, options.label = prompt_rows, max_rows, label.encode()
        keep: typing.List[typing.Any] = []  # what the options point to
        if snapshot is not None:
            saved = _abi.Snapshot()
            identity = snapshot.id if isinstance(snapshot, Snapshot) else snapshot
            saved.id[:] = _exactly(identity, 16, "snapshot")
            options.snapshot, options.snapshot_rows = c.pointer(saved), snapshot_rows
        if prompt is not None:
            raw, alive = prompt._raw()
            keep.append(alive)
            options.prefix = c.pointer(raw)
        if lease is not None:
            leased = c.create_string_buffer(_exactly(lease, 16, "lease"), 16)
            keep.append(leased)
            options.lease = c.addressof(leased)
        if hints is not None:
            options.hints = c.pointer(hints._raw())
        pointer = c.c_void_p()
        self._call("open", c.byref(options), c.byref(pointer))
        sequence = Sequence(self, model, _some(pointer))
        self._sequences.add(sequence)
        return sequence

    def match_prefix(self, model: Model, prompt: Prompt,
                     prefetch: bool = False) -> typing.List[PrefixForm]:
        """Every form of the prompt's beginning that is cached, the longest first. Takes nothing.

        prefetch: the longest that lies in a tier begins to come up, and nobody waits for it.
        """
        raw, alive = prompt._raw()
        forms = c.c_void_p()
        self._call("match_prefix", c.byref(model._raw), c.byref(raw), int(prefetch), c.byref(forms))
        del alive
        look = _abi.library().look
        try:
            found = [look.prefix_forms_at(forms, i).contents
                     for i in range(look.prefix_forms_count(forms))]
            return [PrefixForm(one.retention.decode(), Quality(one.quality), one.rows,
                               bool(one.is_public), one.place.decode(), one.condensed_from.decode())
                    for one in found]
        finally:
            look.prefix_forms_free(forms)

    def lease_prefix(self, members: typing.Sequence[LeaseMember], prompt: Prompt, *,
                     prompt_rows: int = 0, ttl_s: float = 0.0) -> Lease:
        """Leases the longest rows at which every member can go on. `rows` 0: there are none.

        ttl_s: seconds; 0: as long as the daemon allows. Waits for what lies in a tier.
        """
        raw, alive = prompt._raw()
        wanted = (_abi.LeaseMember * len(members))()
        for one, member in zip(wanted, members):
            one.model_fingerprint[:] = _exactly(member.fingerprint, 16, "fingerprint")
            one.retention = None if member.retention is None else member.retention.encode()
            one.least_quality = int(member.least_quality)
        options = _abi.LeaseOptions(c.sizeof(_abi.LeaseOptions), c.addressof(wanted), len(wanted),
                                    c.pointer(raw), prompt_rows, round(ttl_s * 1000))
        pointer = c.c_void_p()
        self._call("lease_prefix", c.byref(options), c.byref(pointer))
        del alive
        return Lease(_some(pointer))

    def drop_snapshot(self, snapshot: typing.Union[Snapshot, bytes]) -> None:
        """Forgets a snapshot of this tenant. Raises NotFoundError."""
        identity = snapshot.id if isinstance(snapshot, Snapshot) else snapshot
        self._call("drop_snapshot", _exactly(identity, 16, "snapshot"))

    def put_token_texts(self, model: Model, first: int, texts: typing.Sequence[bytes]) -> None:
        """Texts of the ids first, first + 1, ... for who inspects. At most 64 bytes of each."""
        raw = (_abi.Bytes * len(texts))(*map(_bytes, texts))
        self._call("put_token_texts", c.byref(model._raw), first, c.addressof(raw), len(raw))

    @property
    def wanted_back_bytes(self) -> int:
        """Bytes that the tenant has borrowed and that their owners want back now. Cost: a load.

        Sequences whose suspend_wanted is set give theirs back when they are saved and closed.
        """
        with self._handle as pointer:
            return int(_abi.library().look.wanted_back(pointer))

    def _describe(self, name: str, *arguments: typing.Any) -> typing.Any:
        text = c.c_void_p()
        self._call(name, *arguments, c.byref(text))
        look = _abi.library().look
        try:
            return json.loads(look.text_data(text))
        finally:
            look.text_free(text)

    def stats(self) -> TenantStats:
        """Of this session's tenant; for an administrator, who sees all, of the first."""
        return self.tenants()[0]

    def tenants(self) -> typing.List[TenantStats]:
        """Of every tenant that this user may see."""
        return tenants_of(self._describe("describe_tenant"))

    def policies(self) -> typing.List[Policy]:
        """What `retention` may say, with parameters, bounds and defaults."""
        return policies_of(self._describe("describe_policies"))

    def inspect(self, sequence: typing.Union[Sequence, int], layer: int = 0,
                first_row: int = 0) -> typing.Iterator[InspectedRow]:
        """Which rows of a layer are kept, from `first_row` on. Cost: a call for 4,096 rows."""
        identity = sequence.id if isinstance(sequence, Sequence) else sequence
        while True:
            page = self._describe("describe_rows", identity, layer, first_row, 0)
            yield from rows_of(page)
            first_row = int(page["next_row"])
            if first_row == 0:
                return


def _some(pointer: typing.Any) -> int:
    return int(pointer.value or 0)


def _exactly(data: bytes, count: int, name: str) -> bytes:
    if len(data) != count:
        raise ValueError(f"{name} has another length: bytes={len(data)} expected={count}")
    return bytes(data)
