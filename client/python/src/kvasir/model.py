"""What an engine says about its model, and what it gets for it."""
import dataclasses
import enum
import typing

import numpy as np

from kvasir.device import Device
from kvasir.views import Shape


class KvType(enum.IntEnum):
    """Of the elements of K and V. NumPy has no bf16 and no fp8: arrays are uint16 and uint8."""

    F16 = 0
    BF16 = 1
    F32 = 2
    F8_E4M3 = 3  # OCP's fp8, up to 448, no infinity

    @property
    def dtype(self) -> "np.dtype[typing.Any]":
        return np.dtype((np.float16, np.uint16, np.float32, np.uint8)[self.value])


class Rope(enum.IntEnum):
    NONE = 0
    INTERLEAVED = 1
    HALF_SPLIT = 2


class Quality(enum.IntEnum):
    """How good a cached form is. ANY: only what the retention itself makes."""

    ANY = 0
    COMPACTED = 1
    QUANTISED = 2
    FULL = 3


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One layer; layers may differ in everything."""

    kv_heads: int
    k_head_dim: int  # elements
    v_head_dim: int  # elements; 0: no V rows (MLA)
    sliding_window: int = 0  # rows; 0: full attention
    query_heads: int = 0  # a multiple of kv_heads; needed by snapkv and infllm


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What an engine says about its model. Models that differ in any of it share nothing."""

    layers: typing.Sequence[LayerSpec]
    weights_digest: bytes  # 16 to 64 bytes, see digest_file()
    name: str = ""  # for people
    kv_type: KvType = KvType.F16
    rope: Rope = Rope.NONE  # needed for positions=in_cache only
    rope_theta: float = 10000.0
    rope_dims: int = 0  # rotated elements of a key
    separator_token_ids: typing.Sequence[int] = ()  # default separators of SepLLM
    vocabulary_size: int = 0
    slots_per_block: int = 0  # 0: the daemon chooses
    adapter_digests: typing.Sequence[bytes] = ()
    prefill_rows_per_s: float = 0.0  # 0: unknown
    pool: str = ""  # a [[gpu]] of the daemon's, in whose memory the rows lie; "": the host's


class Model:
    """A registered model. id, slots_per_block, fingerprint (16 bytes), spec.

    device: whose memory its rows lie in; None: the host's.
    """

    def __init__(self, spec: ModelSpec, raw: typing.Any, device: typing.Optional[Device]) -> None:
        self._raw = raw
        self.spec = spec
        self.device = device
        self.id: int = raw.id
        self.slots_per_block: int = raw.slots_per_block
        self.fingerprint = bytes(raw.fingerprint)
        self.shapes = tuple(
            Shape(one.kv_heads, one.k_head_dim, one.v_head_dim, one.query_heads, spec.kv_type.dtype,
                  device)
            for one in spec.layers)
