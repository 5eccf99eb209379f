"""What an engine reads and writes: the rows of one sequence in one layer, in place."""
import ctypes as c
import functools
import typing

import numpy as np

from kvasir import _abi
from kvasir.device import Device, DeviceRows
from kvasir.memory import Hold, array_of

if typing.TYPE_CHECKING:
    from kvasir.sequence import Step

Array = np.ndarray
Rows = typing.Union[Array, DeviceRows]  # where the model has a pool: DeviceRows
_U32, _F32 = np.dtype(np.uint32), np.dtype(np.float32)
_U64_MAX = 2**64 - 1


class Shape(typing.NamedTuple):
    """Of the rows of a layer, as its model was registered. K and V of one slot: [kv_head][dim]."""

    kv_heads: int
    k_dim: int
    v_dim: int
    query_heads: int
    dtype: "np.dtype[typing.Any]"  # bf16: uint16, as NumPy has none
    device: typing.Optional[Device] = None  # whose memory rows lie in; None: the host's

    def rows_at(self, hold: Hold, address: typing.Optional[int], rows: int, stride: int, dim: int,
                writable: bool) -> Rows:
        """`rows` rows of `dim` elements a head, each `stride` bytes behind the one before."""
        item = self.dtype.itemsize
        where = (hold, address, (rows, self.kv_heads, dim), (stride, dim * item, item), self.dtype,
                 writable)
        if self.device is None:
            return array_of(*where)
        return DeviceRows(self.device, hold, address or 0, *where[2:])


def _copies(kind: typing.Any, address: typing.Optional[int], count: int) -> typing.Any:
    return (kind * count).from_buffer_copy((kind * count).from_address(address)) if count else ()


def _floats(address: int, count: int) -> Array:
    # Any: NumPy's types know no array of ctypes.
    memory: typing.Any = (c.c_float * count).from_address(address)
    return np.frombuffer(memory, _F32)


class KeptRun:
    """Consecutive kept rows. All arrays are read-only and lie in the daemon's memory.

    k, v: [row][kv_head][dim]; v is None where it is coded by itself (`v_bits` > 0). Of a model with
        a pool DeviceRows, as all rows below.
    positions, tokens: original position and token id of each row: [row], or where each kv head
        keeps rows of its own [kv_head][row].
    """

    def __init__(self, hold: Hold, shape: Shape, raw: typing.Any) -> None:
        self._hold, self._shape, self._raw = hold, shape, raw
        self.rows: int = raw.rows
        self.v_bits: int = raw.v_bits

    @functools.cached_property
    def k(self) -> Rows:
        return self._shape.rows_at(self._hold, self._raw.k, self.rows, self._raw.k_stride,
                                   self._shape.k_dim, False)

    @functools.cached_property
    def v(self) -> typing.Optional[Rows]:
        if self.v_bits:
            return None
        return self._shape.rows_at(self._hold, self._raw.v, self.rows, self._raw.v_stride,
                                   self._shape.v_dim, False)

    def _labels_at(self, address: int) -> Array:
        apart = self._raw.head_stride
        if not apart:
            return array_of(self._hold, address, (self.rows,), (4,), _U32, False)
        return array_of(self._hold, address, (self._shape.kv_heads, self.rows), (4 * apart, 4),
                        _U32, False)

    @functools.cached_property
    def positions(self) -> Array:
        return self._labels_at(self._raw.positions)

    @functools.cached_property
    def tokens(self) -> Array:
        return self._labels_at(self._raw.tokens)

    @property
    def query_rule(self) -> typing.Tuple[int, int]:
        """Runs of one rule have the same query_position() in every row."""
        return self._raw.query_offset, self._raw.query_max

    def query_position(self, row: int) -> int:
        """Where the query of row `row` is rotated to for the keys of this run."""
        return int(min((row - self._raw.query_offset) & _U64_MAX, self._raw.query_max))


class RecentBlock(typing.NamedTuple):
    """Slots that the engine writes, for rows [first_row, first_row + len(k)). Writable.

    k, v: [slot][kv_head][dim]. Keys are written rotated at their row number, unless the layer's
    `unrotated` says otherwise. Rows beyond the step are not there yet: what one writes is lost.
    """

    first_row: int
    k: Rows
    v: Rows


class Visible(typing.NamedTuple):
    """Rows that a query sees: keys and values, and where the query is rotated to for them."""

    k: Rows
    v: Rows
    query_position: int


class RecentBlocks(typing.Sequence[RecentBlock]):
    """The blocks of recent, in order; each is made when it is looked at."""

    def __init__(self, hold: Hold, shape: Shape, raw: typing.Any) -> None:
        self._hold, self._shape, self._raw = hold, shape, raw
        self._blocks = _copies(_abi.RecentBlock, raw.recent, raw.recent_count)

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> RecentBlock:  # type: ignore[override]
        block, raw, shape = self._blocks[index], self._raw, self._shape
        slots = raw.slots_per_block
        if index < 0:
            index += len(self)
        return RecentBlock(
            raw.recent_base + index * slots,
            shape.rows_at(self._hold, block.k, slots, raw.k_stride, shape.k_dim, True),
            shape.rows_at(self._hold, block.v, slots, raw.v_stride, shape.v_dim, True))


class LayerView:
    """A layer of a step. The exact rule of attention is `visible()`; client/view.h has it in words.

    Arrays that were taken from it stay mapped as long as they live; the view itself raises
    ClosedError after the sequence's next begin or commit.
    """

    def __init__(self, step: "Step", shape: Shape, raw: typing.Any) -> None:
        self._step = step
        self.shape = shape
        self._raw = raw
        self._held = hold = step._hold()
        # All lists lie in memory of the sequence that its next call overwrites: copied once.
        self._runs = _copies(_abi.KeptRun, raw.kept, raw.kept_count)
        self.sticky: typing.Tuple[int, ...] = tuple(
            _copies(c.c_uint64, raw.sticky, raw.sticky_count))
        self.recent = RecentBlocks(hold, shape, raw)

    @functools.cached_property
    def kept(self) -> typing.Tuple[KeptRun, ...]:
        """Kept rows, in cache order."""
        return tuple(KeptRun(self._held, self.shape, one) for one in self._runs)

    @property
    def recent_base(self) -> int:
        """First row of recent[0]."""
        return int(self._raw.recent_base)

    @property
    def recent_first(self) -> int:
        """First row of recent that is visible to anybody."""
        return int(self._raw.recent_first)

    @property
    def window(self) -> int:
        """Rows, the query's own included; 0: all."""
        return int(self._raw.window)

    @property
    def unrotated(self) -> bool:
        """Keys are written and kept without rotation; each is rotated at its position when read."""
        return bool(self._raw.unrotated)

    @property
    def far_position(self) -> int:
        """Retrieval policies; 0: none."""
        return int(self._raw.far_position)

    @property
    def asks_mass(self) -> bool:
        """The policy wants `add_mass()`."""
        return bool(self._raw.mass.kept or self._raw.mass.recent)

    @property
    def mass_recent_rows(self) -> int:
        """Rows from recent_base on that `add_mass(recent=...)` takes; 0: none are asked for."""
        return int(self._raw.mass.recent_rows) if self._raw.mass.recent else 0

    @property
    def query_rows(self) -> range:
        """Rows whose queries the policy wants by `put_queries()`."""
        queries = self._raw.queries
        return range(queries.first_row, queries.first_row + queries.count if queries.data else
                     queries.first_row)

    def window_first(self, row: int) -> int:
        """First row of recent that the query of `row` sees through the window."""
        low = 0 if self.window == 0 or row + 1 < self.window else row + 1 - self.window
        return max(low, self.recent_first)

    def recent_spans(self, row: int, count: int = 1) -> typing.List[typing.Tuple[int, int]]:
        """Rows of recent that a query of [row, row + count) sees: [first, end) each, ascending."""
        low = self.window_first(row)
        return [(p, p + 1) for p in self.sticky if p < low] + [(low, row + count)]

    def recent_rows(self, first: int, end: int) -> typing.List[RecentBlock]:
        """Rows [first, end) of recent, block by block, in place."""
        slots = int(self._raw.slots_per_block)
        last = self.recent_base + len(self.recent) * slots
        if not self.recent_base <= first <= end <= last:
            raise IndexError(f"rows are not in recent: first={first} end={end} "
                             f"recent_first={self.recent_base} recent_end={last}")
        pieces = []
        while first < end:
            block = self.recent[(first - self.recent_base) // slots]
            low, high = first - block.first_row, min(end - block.first_row, slots)
            pieces.append(RecentBlock(first, block.k[low:high], block.v[low:high]))
            first = block.first_row + high
        return pieces

    def write(self, row: int, k: Array, v: Array) -> None:
        """Copies k and v, [n][kv_head][dim] each, into the rows [row, row + n) of the step."""
        self._step._check_live()
        step = self._step
        if not step.row <= row <= row + len(k) <= step.row + step.count or len(k) != len(v):
            raise IndexError(f"rows are not of the step: row={row} k_rows={len(k)} v_rows={len(v)} "
                             f"step_row={step.row} step_rows={step.count}")
        for piece in self.recent_rows(row, row + len(k)):
            at = slice(piece.first_row - row, piece.first_row - row + len(piece.k))
            for there, rows in ((piece.k, k[at]), (piece.v, v[at])):
                if isinstance(there, DeviceRows):
                    there.write(rows)
                else:
                    there[...] = rows

    def visible(self, row: int) -> typing.List[Visible]:
        """All that the query of `row` sees, in cache order, in place. Its own row is in it.

        Raises NotImplementedError for rows that are encoded, and for retrieval policies.
        """
        if self._raw.record_count or self.far_position or any(run.v is None for run in self.kept):
            raise NotImplementedError("encoded rows and far blocks are not plain arrays")
        pieces = [Visible(run.k, run.v, run.query_position(row)) for run in self.kept
                  if run.v is not None]
        return pieces + [Visible(piece.k, piece.v, row) for first, end in self.recent_spans(row)
                         for piece in self.recent_rows(first, end)]

    def add_mass(self, kept: typing.Optional[Array] = None,
                 recent: typing.Optional[Array] = None) -> None:
        """Adds attention that the step's queries paid, for policies that score by it.

        kept: [kv_head][rows of all kept runs]; recent: [kv_head][rows from recent_base on], or by
        query head (retrieval policies). Summed and weighted as client/view.h says of MassView.
        """
        mass, shape = self._raw.mass, self.shape
        heads = shape.query_heads if mass.by_query_head else shape.kv_heads
        for given, address, rows in ((kept, mass.kept, mass.kept_rows),
                                     (recent, mass.recent, mass.recent_rows)):
            if given is None:
                continue
            if not address or given.shape != (heads, rows):
                raise ValueError(f"mass of this shape is not asked for: shape={given.shape} "
                                 f"expected={(heads, rows) if address else None}")
            with self._step._live():  # memory of the sequence: only while the step is
                target = _floats(address, heads * rows)
                target += np.asarray(given, _F32).ravel()

    def put_queries(self, row: int, queries: Array) -> None:
        """Hands over the queries, [n][query_head][k_dim], of rows [row, row + n) of query_rows."""
        raw = self._raw.queries
        flat = np.asarray(queries, _F32).reshape(len(queries), -1)
        wanted = self.query_rows
        if row not in wanted or row + len(flat) > wanted.stop or flat.shape[1] != raw.row_floats:
            raise ValueError(f"queries are not asked for: row={row} shape={flat.shape} "
                             f"rows={wanted} row_floats={raw.row_floats}")
        with self._step._live():
            address = raw.data + (row - wanted.start) * raw.row_floats * 4
            _floats(address, flat.size)[...] = flat.ravel()
