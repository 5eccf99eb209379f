"""Sequences: token streams whose K and V rows live in the daemon's memory."""
import contextlib
import ctypes as c
import threading
import typing

import numpy as np

from kvasir import _abi
from kvasir._handle import Handle
from kvasir.errors import ClosedError, KvasirError
from kvasir.memory import Hold, address_of
from kvasir.views import KeptRun, LayerView, Shape, _copies

if typing.TYPE_CHECKING:
    from kvasir.model import Model
    from kvasir.session import Session

Tokens = typing.Union[typing.Sequence[int], "np.ndarray[typing.Any, typing.Any]"]


class Snapshot(typing.NamedTuple):
    """A saved sequence. Whoever has the id and is of the tenant may open it."""

    id: bytes
    rows: int
    held_bytes: int


class Published(typing.NamedTuple):
    rows: int
    held_bytes: int  # of all that it names, shared or not


class Footprint(typing.NamedTuple):
    held_bytes: int
    kept_rows: int  # that the next query sees, in the layer that sees most
    version: int


class Hints(typing.NamedTuple):
    """What an engine knows of a request: it decides which sequence gives its memory up first."""

    priority: int = 0  # -100 to 100; larger: later
    predicted_rows: typing.Optional[int] = None  # of the response in all; not with predicted_rank
    predicted_rank: typing.Optional[int] = None  # larger is longer, on any scale
    age_s: float = 0.0  # since the request came in; 0: as it was

    def _raw(self) -> typing.Any:
        if self.predicted_rows is not None and self.predicted_rank is not None:
            raise ValueError("predicted_rows and predicted_rank are given both: say one")
        kind = 1 if self.predicted_rows is not None else 2 if self.predicted_rank is not None else 0
        return _abi.Hints(c.sizeof(_abi.Hints), self.priority, kind, self.predicted_rows or 0,
                          self.predicted_rank or 0, round(self.age_s * 1000))


class TimelinePoint(typing.NamedTuple):
    """A place in a stream: it has come once the word, which only grows, has reached `value`.

    address: of 8 aligned bytes of this process's memory that the stream writes behind the kernels
        of a step (of CUDA: pinned, by cuStreamWriteValue64). They have to live until the sequence
        is closed, or a call that waits for them has returned: nothing here keeps them, so close it,
        or use `with`, before they go.
    """

    address: int
    value: int

    def _raw(self) -> typing.Any:
        return _abi.TimelinePoint(self.address, self.value)


def token_array(tokens: Tokens) -> "np.ndarray[typing.Any, typing.Any]":
    """As the library reads them. Raises ValueError for what is no token id."""
    array = np.asarray(tokens)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"tokens are no list of integers: {array.dtype} of shape {array.shape}")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= 2**32):
        raise ValueError("a token id is out of bounds: min=0 max=4294967295")
    return np.ascontiguousarray(array, np.uint32)


class Step:
    """The rows [row, row + count) that one step computes. step[i] is the view of layer i."""

    def __init__(self, sequence: "Sequence", raw: typing.Any) -> None:
        self._sequence = sequence
        self._number = sequence._begun
        self._raw = raw
        self._held: typing.Optional[Hold] = None
        self.row: int = raw.row
        self.count: int = raw.count
        self.mass_decay: float = raw.mass_decay

    def __len__(self) -> int:
        return int(self._raw.layer_count)

    def __getitem__(self, layer: int) -> LayerView:
        if layer < 0:
            layer += len(self)
        if not 0 <= layer < len(self):
            raise IndexError(f"no such layer: layer={layer} layers={len(self)}")
        with self._live():
            raw = _abi.LayerView.from_address(self._raw.layers + layer * c.sizeof(_abi.LayerView))
            copy = _abi.LayerView.from_buffer_copy(raw)
            return LayerView(self, self._sequence.model.shapes[layer], copy)

    def __iter__(self) -> typing.Iterator[LayerView]:
        return (self[i] for i in range(len(self)))

    def _check_live(self) -> None:
        if self._sequence._live != self._number:
            raise ClosedError("the step is over: its sequence has begun, committed or closed since")

    @contextlib.contextmanager
    def _live(self) -> typing.Iterator[None]:
        """While it runs nobody begins, commits or closes."""
        with self._sequence._lock, self._sequence._handle:
            self._check_live()
            yield

    def _hold(self) -> Hold:
        if self._held is None:
            self._held = self._sequence.session._hold()
        return self._held


class Sequence:
    """One token stream. Use it as a context manager, or close() it.

    Threads take turns: a call waits while another thread's runs. Every call ends at the session's
    deadline, and other threads of the interpreter run while it waits.
    """

    def __init__(self, session: "Session", model: "Model", pointer: int) -> None:
        library = _abi.library()
        self.session = session
        self.model = model
        self._lock = threading.RLock()
        # Steps are told apart by number: were the step itself here, both would live until the next
        # collection of cycles, and the memory that it holds as long.
        self._begun = 0
        self._live = 0  # number of the step that is begun; 0: none
        self._handle = Handle("sequence", pointer, lambda p: library.call("close", p), self)
        self.id: int = library.look.sequence_id(pointer)
        self.retention: str = library.look.retention(pointer).decode()  # with every default
        # Form of which the daemon has made the rows that it goes on from; "": an engine has.
        self.condensed_from: str = library.look.condensed_from(pointer).decode()
        self.slots_per_block: int = library.look.slots_per_block(pointer)
        self.retrieves: bool = library.look.retrieves(pointer) != 0
        layer = library.look.filter_layer(pointer)
        # Selection policies: the layer whose keys the daemon scores.
        self.filter_layer: typing.Optional[int] = layer if layer >= 0 else None

    def __enter__(self) -> "Sequence":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except KvasirError:
            if kind is None:  # else what went wrong first is what its caller hears
                raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"rows={self.rows}"
        return f"<kvasir.Sequence {self.id} {self.retention!r} {state}>"

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Gives everything back; nothing the second time.

        Raises UnavailableError; it is closed all the same.
        """
        with self._lock if not self.closed else contextlib.nullcontext():
            self._live = 0
            self._handle.close()

    def _call(self, name: str, *arguments: typing.Any) -> None:
        with self._lock, self._handle as pointer:
            _abi.library().call(name, pointer, *arguments)

    @property
    def rows(self) -> int:
        """Committed rows."""
        with self._handle as pointer:
            return int(_abi.library().look.rows(pointer))

    @property
    def suspend_wanted(self) -> bool:
        """The tenant is short of memory: this one should be saved and closed. Cost: a load."""
        with self._handle as pointer:
            return bool(_abi.library().look.suspend_wanted(pointer))

    def begin(self, want_rows: int = 1) -> Step:
        """The next 1 to `want_rows` rows and what their queries may see.

        Makes no call while rows are granted and the table is valid. Fewer rows than wanted come
        back at a table's border or the tenant's limit. Raises ResourceExhaustedError,
        UnavailableError, DeadlineExceededError, InvalidArgumentError.
        """
        raw = _abi.Step()
        with self._lock:
            self._live = 0
            self._call("begin", want_rows, c.byref(raw))
            return self._new_step(raw)

    def _new_step(self, raw: typing.Any) -> Step:
        self._begun += 1
        self._live = self._begun
        return Step(self, raw)

    def commit(self, tokens: Tokens, done: typing.Optional[TimelinePoint] = None) -> None:
        """The first len(tokens) rows of the step are written in every layer and have these ids.

        done: they are not yet, but once this has come, and then nothing reads what the step showed.
        The next begin() may follow at once; save(), publish_prefix(), truncate(), close() and a
        commit() without it wait for what is under way.
        Raises InvalidArgumentError (more than begun, or beyond the vocabulary: nothing is
        committed, and the step goes on), UnavailableError (the step's results are void), with
        `done` FailedPreconditionError (the policy is told of attention).
        """
        ids = token_array(tokens)
        with self._lock:
            if self._live == 0:
                self.rows  # says so where it is closed
                raise ClosedError("no step is begun")
            # Without ids the library still wants to know where there are none.
            where = address_of(ids) if ids.size else c.byref(c.c_uint32())
            if done is None:
                self._call("commit", where, ids.size)
            else:
                self._call("commit_async", where, ids.size, c.byref(done._raw()))
            self._live = 0

    def append(self, tokens: Tokens,
               fill: typing.Callable[[Step], typing.Any]) -> None:
        """begin(), fill(step) and commit() until all tokens are in, in as few steps as it takes."""
        ids = token_array(tokens)
        done = 0
        while done < ids.size:
            step = self.begin(int(ids.size) - done)
            fill(step)
            self.commit(ids[done:done + step.count])
            done += step.count

    def truncate(self, rows: int) -> None:
        """Forgets the rows from `rows` on.

        Raises FailedPreconditionError naming the rollback floor.
        """
        with self._lock:
            self._live = 0
            self._call("truncate", rows)

    def save(self) -> Snapshot:
        """Saves the committed rows: Session.open(snapshot=...) goes on, in any process."""
        raw = _abi.Snapshot()
        with self._lock:
            self._live = 0
            self._call("save", c.byref(raw))
        return Snapshot(bytes(raw.id), raw.rows, raw.held_bytes)

    def publish_prefix(self) -> Published:
        """Offers the committed rows to all later sequences of the tenant with these tokens.

        Raises FailedPreconditionError: opened without `prompt`, or under 16 rows.
        """
        rows, held = c.c_uint64(), c.c_uint64()
        with self._lock:
            self._live = 0
            self._call("publish_prefix", c.byref(rows), c.byref(held))
        return Published(rows.value, held.value)

    def set_hints(self, hints: Hints) -> None:
        self._call("set_hints", c.byref(hints._raw()))

    def footprint(self) -> Footprint:
        """What it holds now. Cost: a call."""
        raw = _abi.Footprint()
        with self._lock:
            self._live = 0
            self._call("measure_footprint", c.byref(raw))
        return Footprint(raw.held_bytes, raw.kept_rows, raw.version)

    def select_rows(self, query: "np.ndarray[typing.Any, typing.Any]") -> typing.List[int]:
        """Selection policies: which rows of the prompt to run again. The sequence is empty then.

        query: [kv_head][dim], as client/sequence.h says of SelectRows().
        """
        flat = np.ascontiguousarray(query, np.float32).ravel()
        with self._lock:
            chosen = np.empty(max(1, self.rows), np.uint32)
            count = c.c_size_t()
            self._live = 0
            self._call("select_rows", address_of(flat), flat.size, address_of(chosen), chosen.size,
                       c.byref(count))
        return [int(row) for row in chosen[:count.value]]

    def retrieve(self, layer: int, query: "np.ndarray[typing.Any, typing.Any]",
                 mass: typing.Optional["np.ndarray[typing.Any, typing.Any]"] = None
                 ) -> typing.Tuple[KeptRun, ...]:
        """Retrieval policies: blocks that the step's queries see beside what the view shows.

        As client/sequence.h says of Retrieve(); between begin() and commit(), once for every layer.
        """
        flat = np.ascontiguousarray(query, np.float32).ravel()
        paid = np.ascontiguousarray(() if mass is None else mass, np.float32).ravel()
        runs, count = c.c_void_p(), c.c_size_t()
        with self._lock:
            if self._live == 0:
                raise ClosedError("no step is begun")
            self._call("retrieve", layer, address_of(flat), flat.size, address_of(paid), paid.size,
                       c.byref(runs), c.byref(count))
            shape: Shape = self.model.shapes[layer]
            hold = self.session._hold()  # may show more than the step's own
            return tuple(KeptRun(hold, shape, run)
                         for run in _copies(_abi.KeptRun, runs.value, count.value))


Answer = typing.Union[Step, KvasirError]


@contextlib.contextmanager
def _all_of(sequences: typing.Sequence[Sequence]) -> typing.Iterator[typing.Any]:
    if len({id(one) for one in sequences}) != len(sequences):
        raise ValueError("a sequence is in the batch twice")
    with contextlib.ExitStack() as stack:
        for one in sorted(sequences, key=lambda s: s.id):  # two batches take them in one order
            stack.enter_context(one._lock)
        yield (c.c_void_p * len(sequences))(
            *[stack.enter_context(one._handle) for one in sequences])


def begin_many(sequences: typing.Sequence[Sequence], want_rows: int = 1) -> typing.List[Answer]:
    """begin() of all sequences of a batch in one call. Of each its step, or why there is none."""
    count = len(sequences)
    with _all_of(sequences) as pointers:
        raws, codes = (_abi.Step * count)(), (c.c_int32 * count)()
        for one in sequences:
            one._live = 0
        error = _abi.library().call_code("begin_many", pointers, count, want_rows, raws, codes)
        answers: typing.List[Answer] = []
        for one, raw, code in zip(sequences, raws, codes):
            if code == 0:
                answers.append(one._new_step(_abi.Step.from_buffer_copy(raw)))
            else:
                answers.append(_error_of(code, error))
        return answers


def commit_many(sequences: typing.Sequence[Sequence], tokens: Tokens,
                done: typing.Optional[TimelinePoint] = None
                ) -> typing.List[typing.Optional[KvasirError]]:
    """commit() of one row of each in one call. Of each None, or what was wrong."""
    ids, count = token_array(tokens), len(sequences)
    if ids.size != count:
        raise ValueError(f"one token for each sequence: tokens={ids.size} sequences={count}")
    with _all_of(sequences) as pointers:
        codes = (c.c_int32 * count)()
        if done is None:
            error = _abi.library().call_code("commit_many", pointers, count, address_of(ids), codes)
        else:
            error = _abi.library().call_code("commit_many_async", pointers, count, address_of(ids),
                                             c.byref(done._raw()), codes)
        for one, code in zip(sequences, codes):
            if code == 0:
                one._live = 0
        return [None if code == 0 else _error_of(code, error) for code in codes]


def _error_of(code: int, first: typing.Optional[Exception]) -> KvasirError:
    from kvasir.errors import make_error
    if isinstance(first, KvasirError) and first.code == code:
        return first
    return make_error(code, "failed in a batch: ask it alone for the reason", None)
