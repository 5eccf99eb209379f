"""KvasirCache: the KV cache of a transformers model in the daemon's memory.

    from kvasir.transformers import KvasirCache
    with KvasirCache(model, policy="sepllm:local_size=256", prompt=input_ids) as cache:
        model.generate(input_ids, past_key_values=cache)
    # A later cache with this prompt, in any process, begins behind it.

For transformers 5.2 to 5.23, decoder models with full attention, batch 1, CPU tensors. With any
attention of transformers: policies that keep the same tokens in all layers by their ids alone (full,
sepllm, streamingllm with positions=original). With attn_implementation="kvasir" (kvasir.attention)
all policies. What it cannot do it refuses, with the reason.
"""
import typing
import weakref

import numpy as np
import torch
import transformers
from transformers.cache_utils import Cache, CacheLayerMixin

from kvasir import attention
from kvasir.errors import KvasirError
from kvasir.model_facts import digest_model, model_spec, register, rotation
from kvasir.selection import Selection
from kvasir.sequence import Hints, Published, Sequence, Step
from kvasir.session import Prompt, Session
from kvasir.views import LayerView

_hooked: "weakref.WeakSet[torch.nn.Module]" = weakref.WeakSet()


class KvasirLayer(CacheLayerMixin):
    """One layer. The cache knows the rest."""

    is_sliding = False
    is_croppable = True
    is_compileable = False
    supports_early_init = False

    def __init__(self, cache: "KvasirCache", index: int) -> None:
        super().__init__()
        self._cache = weakref.ref(cache)
        self._index = index
        self.is_initialized = True

    @property
    def cache(self) -> "KvasirCache":
        cache = self._cache()
        assert cache is not None, "its cache has its layers"
        return cache

    def lazy_initialization(self, *_: typing.Any) -> None:
        pass

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: typing.Any,
               **__: typing.Any) -> typing.Tuple[torch.Tensor, torch.Tensor]:
        return self.cache._update(self._index, key_states, value_states)

    def get_seq_length(self, *_: typing.Any) -> int:
        """The logical length: positions follow it."""
        return self.cache.rows

    def get_mask_sizes(self, query: typing.Any) -> typing.Tuple[int, int]:
        """Keys that there are, and how many were dropped: the mask of what is left is as usual.

        query: a count or, before transformers 5.23, a tensor of positions.
        """
        count = int(query.shape[0]) if isinstance(query, torch.Tensor) else int(query)
        physical = self.cache._physical_rows()
        return physical + count, self.cache.rows - physical

    def get_max_length(self, *_: typing.Any) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name before

    def reset(self) -> None:
        self.cache.reset()

    def crop(self, length: int) -> None:
        self.cache.crop(length)

    def reorder_cache(self, _: typing.Any) -> None:
        raise NotImplementedError("a sequence has one beam: batch 1")

    def batch_repeat_interleave(self, _: typing.Any) -> None:
        raise NotImplementedError("a sequence has one row of a batch")

    def batch_select_indices(self, _: typing.Any) -> None:
        raise NotImplementedError("a sequence has one row of a batch")


class KvasirCache(Cache):
    """`past_key_values` of one sequence. Close it, or use it as a context manager.

    model: the model that will be called with it. Needed, as a cache of transformers is not told the
        token ids: a hook on the model's forward tells this one.
    policy: retention, as Session.open(); None: the tenant's default.
    prompt: token ids that the sequence will begin with: what is cached of them is attached, up to
        the last but one, so that there is something to compute; and what generate() computes of it
        is published there, before its last token. Without: the rows are private.
    session: one that is open, and stays the caller's; else one is made of `connect`, which are
        Session's arguments.
    weights_digest: 16 to 64 bytes, instead of digest_model()'s pass over the weights.
    salt: caches of other salts share nothing.
    """

    def __init__(self, model: torch.nn.Module, policy: typing.Optional[str] = "full", *,
                 prompt: typing.Any = None, session: typing.Optional[Session] = None,
                 connect: typing.Optional[typing.Mapping[str, typing.Any]] = None,
                 separator_token_ids: typing.Sequence[int] = (), salt: bytes = b"",
                 weights_digest: typing.Optional[bytes] = None, label: str = "transformers",
                 hints: typing.Optional[Hints] = None) -> None:
        spec = model_spec(model, weights_digest=weights_digest,
                          separator_token_ids=separator_token_ids)
        super().__init__(layers=[KvasirLayer(self, i) for i in range(len(spec.layers))])
        self._target = weakref.ref(model)
        self._rotation = rotation(model)
        self._found_mass: typing.Dict[int, typing.Any] = {}  # of retrieved blocks, by layer
        self._own_session = session is None
        self.session = Session(**(connect or {})) if session is None else session
        try:
            self._model = register(self.session, spec)
            known = None if prompt is None else _ids_of(prompt)
            # The row before which generate() publishes; 0: nowhere.
            self._border = 0 if known is None else len(known) - 1
            self._open: typing.Dict[str, typing.Any] = {
                "retention": policy, "label": label, "hints": hints, "prompt": None}
            if known is not None:
                self._open["prompt_rows"] = len(known)  # forms of SepLLM tell them apart
                self._open["prompt"] = Prompt(known, salt=salt, rows_max=max(1, self._border))
            self.publish_error: typing.Optional[KvasirError] = None  # why generate() could not
            self._open_sequence()
        except BaseException:
            if self._own_session:
                self.session.close()
            raise
        self._step: typing.Optional[Step] = None
        self._kept: typing.Any = None  # what layer 0 of the step sees
        if model not in _hooked:
            model.register_forward_pre_hook(_before, with_kwargs=True)
            model.register_forward_hook(_after, with_kwargs=True)
            _hooked.add(model)

    def _open_sequence(self) -> None:
        self.sequence: Sequence = self.session.open(self._model, **self._open)
        self._selection = Selection(self.sequence)
        if self._selection.layer is not None:  # what is chosen is right for this prompt alone
            self._border = 0

    def __enter__(self) -> "KvasirCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def rows(self) -> int:
        """Committed rows, dropped ones among them: the logical length."""
        return self.sequence.rows + self._selection.skipped

    def publish(self) -> Published:
        """Offers the rows to all later caches of the tenant whose prompt begins with these tokens.

        generate() does so by itself before the last token of `prompt`. A compacted form can be gone
        on from at the row where it was published alone.
        """
        return self.sequence.publish_prefix()

    def close(self) -> None:
        self._step = None
        self.sequence.close()
        if self._own_session:
            self.session.close()

    def reset(self) -> None:
        """Begins again, behind what is cached of the prompt."""
        self._step = None
        self._found_mass.clear()
        self.sequence.close()
        self._open_sequence()

    def crop(self, length: int) -> None:
        """Forgets rows: the last -length, or with a positive length those behind it.

        Raises FailedPreconditionError below the rollback floor: what is dropped is gone.
        """
        rows = self.rows + length if length <= 0 else min(length, self.rows)
        self._step = None
        if rows < self.rows:
            self.sequence.truncate(max(0, rows - self._selection.skipped))

    def _physical_rows(self) -> int:
        """Rows before the step that its queries see at least one of."""
        step = self._step if self._step is not None else self.sequence.begin()
        view = step[0]
        recent = sum(min(end, step.row) - first for first, end in view.recent_spans(step.row))
        return sum(run.rows for run in view.kept) + recent

    def _begin(self, rows: int, in_parts: bool) -> Step:
        """Of the next rows; in parts: no farther than where the prompt is published."""
        to_border = self._border - self.rows
        step = self.sequence.begin(min(rows, to_border) if in_parts and to_border > 0 else rows)
        view = step[0]
        if not self._attends():
            self._check_mask_does(view)
        elif (view.unrotated or view.far_position) and self._rotation is None:
            raise NotImplementedError("keys come rotated, and how this model does it is not known: "
                                      f"retention={self.sequence.retention}")
        self._step, self._kept = step, _kept_where(view)
        return step

    def _attends(self) -> bool:
        """Whether the model calls kvasir.attention, which asks each layer's view."""
        model = self._target()
        config: typing.Any = None if model is None else model.config
        return config is not None and config.get_text_config(
            decoder=True)._attn_implementation == attention.NAME

    def _check_mask_does(self, view: LayerView) -> None:
        """One mask for all layers says all that transformers' own attention knows of a policy."""
        retention, why = self.sequence.retention, ""
        if view.asks_mass or view.query_rows or self.sequence.retrieves or \
                self.sequence.filter_layer is not None:
            why = "this policy judges by attention, which transformers' caches are not told"
        elif view.unrotated:
            why = "keys come rotated"
        elif "positions=in_cache" in retention:
            why = "queries come rotated at their own position"
        if why:
            raise NotImplementedError(
                f"{why}: load the model with attn_implementation=\"kvasir\": retention={retention}")

    def _mask(self, dtype: torch.dtype) -> typing.Optional[torch.Tensor]:
        """What each query of the step sees, [1][1][query][key], added to scores; None: all."""
        step = self._step
        assert step is not None
        if step.count == 1:
            return None
        view = step[0]
        kept = sum(run.rows for run in view.kept)
        recent = np.concatenate([np.arange(*span)
                                 for span in view.recent_spans(step.row, step.count)])
        rows = np.arange(step.row, step.row + step.count)
        low = np.array([view.window_first(int(row)) for row in rows])
        sees = recent[None, :] <= rows[:, None]
        sees &= (recent[None, :] >= low[:, None]) | np.isin(recent, view.sticky)[None, :]
        mask = torch.zeros(1, 1, step.count, kept + len(recent), dtype=dtype)
        mask[0, 0, :, kept:].masked_fill_(torch.from_numpy(~sees), torch.finfo(dtype).min)
        return mask

    def _update(self, layer: int, k: torch.Tensor,
                v: torch.Tensor) -> typing.Tuple[torch.Tensor, torch.Tensor]:
        step = self._step
        if step is None:
            raise RuntimeError("the cache was made for another model than the one that is called")
        if k.device.type != "cpu":
            raise NotImplementedError(f"tensors of this device are not supported: {k.device}")
        if k.shape[0] != 1 or k.shape[2] != step.count:
            raise ValueError(f"a cache has one sequence: shape={tuple(k.shape)} rows={step.count}")
        view = step[layer]
        if self._attends():
            if view.unrotated and self._rotation is not None:
                back = -np.arange(step.row, step.row + step.count)
                view.write(step.row, _rows(self._rotation.turn(k, back)), _rows(v))
            else:
                view.write(step.row, _rows(k), _rows(v))
            selection = self._selection
            hear = selection.hear if selection.listens and layer == selection.layer else None
            attention.active.layer = attention.Layer(
                step, layer, self._rotation, self.sequence.retrieve, hear, k, self._found_mass)
            return k, v
        view.write(step.row, _rows(k), _rows(v))
        if _kept_where(view) != self._kept:
            raise NotImplementedError("layers keep different tokens, and all have one mask: load the "
                                      "model with attn_implementation=\"kvasir\"")
        return (self._gather(view, 0, k), self._gather(view, 1, v))

    def _gather(self, view: LayerView, plane: int, like: torch.Tensor) -> torch.Tensor:
        """All rows that the step sees, [1][head][row][dim]: one copy, gone after the layer."""
        step = self._step
        assert step is not None
        pieces: typing.List[typing.Any] = [(run.v if plane else run.k) for run in view.kept]
        pieces += [(piece.v if plane else piece.k)
                   for span in view.recent_spans(step.row, step.count)
                   for piece in view.recent_rows(*span)]
        # As rows lie: [row][head][dim], whole blocks at once.
        out = torch.from_numpy(np.concatenate(pieces)).view(like.dtype)
        return out.transpose(0, 1)[None]


def _kept_where(view: LayerView) -> typing.Any:
    """Equal for layers of one plan: their kept rows have one list of positions in memory."""
    return (view.window, view.recent_first, view.sticky,
            [(run.positions, run.rows, run.head_stride) for run in view._runs])


def _rows(tensor: torch.Tensor) -> "np.ndarray[typing.Any, typing.Any]":
    rows = tensor.detach()[0].transpose(0, 1)
    # NumPy has no bf16: the same bits as uint16.
    if rows.dtype == torch.bfloat16:
        rows = rows.contiguous().view(torch.uint16)
    return np.asarray(rows.numpy())


def _ids_of(tokens: typing.Any) -> "np.ndarray[typing.Any, typing.Any]":
    ids = tokens.detach().cpu().numpy() if isinstance(tokens, torch.Tensor) else np.asarray(tokens)
    if ids.ndim == 2 and ids.shape[0] == 1:
        ids = ids[0]
    if ids.ndim != 1:
        raise NotImplementedError(f"a cache has one sequence: batch 1: shape={ids.shape}")
    return ids


def _cache_of(model: torch.nn.Module,
              kwargs: typing.Mapping[str, typing.Any]) -> typing.Optional[KvasirCache]:
    cache = kwargs.get("past_key_values")
    return cache if isinstance(cache, KvasirCache) and cache._target() is model else None


def _before(model: torch.nn.Module, args: typing.Any,
            kwargs: typing.Dict[str, typing.Any]) -> typing.Any:
    """Begins the step of a forward; runs the first parts of rows that are taken in parts."""
    attention.active.layer = None  # of a forward that failed
    cache = _cache_of(model, kwargs)
    if cache is None:
        return None
    ids = kwargs.get("input_ids", args[0] if args else None)
    if len(args) > 1:
        raise TypeError("with a KvasirCache all arguments but input_ids are named")
    if ids is None:
        raise NotImplementedError("input_ids are needed: policies and prefixes go by token ids")
    tokens, mask = _ids_of(ids), kwargs.get("attention_mask")
    if mask is not None and mask.ndim == 2 and not bool(mask.all()):
        raise NotImplementedError("padding is not supported: one sequence needs none")
    selection, attends = cache._selection, cache._attends()
    if attends:
        kwargs = dict(kwargs, attention_mask=None)  # each layer has its view
    if attends and selection.layer is not None and not selection.listens and len(tokens) > 1:
        ids = selection.run(model, ids, kwargs)
        tokens = _ids_of(ids)
        kwargs["logits_to_keep"] = 1  # of whom else there were, many are gone
    if selection.skipped:  # what was chosen is a prompt of its own
        kwargs.pop("cache_position", None)
        first = cache.sequence.rows
        kwargs["position_ids"] = torch.arange(first, first + len(tokens))[None]
    in_parts = kwargs.get("logits_to_keep") == 1  # nobody asks what the others' are
    step = cache._begin(len(tokens), in_parts)
    while step.count < len(tokens):
        if not in_parts:
            raise ValueError(f"the policy takes {step.count} of these {len(tokens)} rows at once: "
                             "call with logits_to_keep=1, as generate() does, or with fewer rows")
        done, part = step.count, dict(kwargs, input_ids=ids[:, :step.count])
        model(**_cut(part, 0, done, len(tokens)))
        ids, tokens = ids[:, done:], tokens[done:]
        kwargs = dict(_cut(kwargs, done, None, len(tokens) + done), input_ids=ids)
        step = cache._begin(len(tokens), in_parts)
    kwargs = dict(kwargs, input_ids=ids)
    if attends:
        return (), kwargs
    everything = cache._physical_rows() == step.row and not step[0].window and not step[0].sticky
    if not everything:  # else transformers' own causal mask is the same and may be none
        kwargs["attention_mask"] = cache._mask(model.dtype)
    return (), kwargs


def _cut(kwargs: typing.Mapping[str, typing.Any], first: int, end: typing.Optional[int],
         count: int) -> typing.Dict[str, typing.Any]:
    """Arguments of a part of the rows: what is one entry a row is cut, masks are made anew."""
    cut = {name: value for name, value in kwargs.items() if name != "attention_mask"}
    for name in ("position_ids", "cache_position", "token_type_ids"):
        if isinstance(cut.get(name), torch.Tensor) and cut[name].shape[-1] == count:
            cut[name] = cut[name][..., first:end]
    return cut


def _after(model: torch.nn.Module, _: typing.Any, kwargs: typing.Mapping[str, typing.Any],
           __: typing.Any) -> None:
    cache = _cache_of(model, kwargs)
    if cache is None or cache._step is None:
        return
    ids = _ids_of(kwargs["input_ids"])
    cache._step = None
    cache.sequence.commit(ids)
    if cache.rows == cache._border and kwargs.get("logits_to_keep") == 1:
        try:
            cache.sequence.publish_prefix()
        except KvasirError as error:  # others compute it once more, that is all
            cache.publish_error = error


__all__ = ["KvasirCache", "KvasirLayer", "digest_model", "model_spec"]
_VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
if not (5, 2) <= _VERSION <= (5, 23):
    import warnings
    warnings.warn(f"kvasir.transformers is tested with transformers 5.2 to 5.23, this is "
                  f"{transformers.__version__}", stacklevel=2)
