"""Attention over a layer's own rows: what transformers calls with attn_implementation="kvasir".

    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="kvasir")
    with KvasirCache(model, policy="h2o:hh_size=128,recent_size=128") as cache: ...

Every layer attends to what its view shows (client/view.h has the rules), so layers may keep other
tokens, keys may be moved, and policies hear what they ask for: attention mass, queries of the
prompt, the query that retrieval looks up. A model that is called without a KvasirCache attends as
with "sdpa".
"""
import threading
import typing

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvasir.rotation import Rotation
from kvasir.sequence import Step
from kvasir.views import KeptRun, LayerView

NAME = "kvasir"
Tensor = torch.Tensor


class Layer:
    """What one layer of one step attends to. Its keys and values are written already.

    hear: where the layer's query chooses among the prompt's tokens.
    mass: of the blocks that retrieval returned for this layer's last step, for the next one.
    """

    def __init__(self, step: Step, index: int, rotation: typing.Optional[Rotation],
                 retrieve: typing.Callable[..., typing.Any],
                 hear: typing.Optional[typing.Callable[[Tensor], None]], key: Tensor,
                 mass: "typing.Dict[int, typing.Any]") -> None:
        self.step, self.view, self.index, self.key = step, step[index], index, key
        self._rotation, self._retrieve, self._hear, self._mass = rotation, retrieve, hear, mass
        self._rows = np.arange(step.row, step.row + step.count)

    def attend(self, query: Tensor, scaling: float) -> Tensor:
        """query: [1][query_head][row][dim], rotated at its row. As transformers' eager function."""
        view = self.view
        if view.query_rows:
            self._put_queries(query)
        if self._hear is not None:
            self._hear(query)
        kept = list(view.kept)
        found: typing.Sequence[KeptRun] = ()
        if view.far_position:
            far = self._turn(query, view.far_position - self._rows)
            found = self._look_up(far)
        scores, values = [], []
        for runs in _alike(kept + list(found), self.step.row, view.far_position):
            scores.append(self._scores_of_runs(query, runs) * scaling)
            values.append(self._heads(np.concatenate([run.v for run in runs]), query))
        spans = view.recent_spans(self.step.row, self.step.count)
        if view.far_position:  # those as well that are no longer near, and in no block yet
            spans = [(view.recent_first, self.step.row + self.step.count)]
        pieces = [piece for span in spans for piece in view.recent_rows(*span)]
        recent = np.concatenate([np.arange(*span) for span in spans])
        near, mask = self._recent_scores(query, np.concatenate([one.k for one in pieces]), recent)
        scores.append(near * scaling)
        values.append(self._heads(np.concatenate([one.v for one in pieces]), query))
        weights = torch.cat(scores, -1)
        if mask is not None:
            weights[..., -len(recent):] += mask
        weights = torch.softmax(weights, dim=-1, dtype=torch.float32)
        if view.asks_mass or found:
            self._report(weights, kept, found, recent)
        out = torch.matmul(weights.to(query.dtype), torch.cat(values, -2))
        return out.transpose(1, 2).contiguous()

    # ---- keys and queries ---------------------------------------------------------------------

    def _heads(self, rows: typing.Any, like: Tensor) -> Tensor:
        """[row][kv_head][dim] as [1][query_head][row][dim]: each kv head for its query heads."""
        plain = torch.from_numpy(rows).view(like.dtype).transpose(0, 1)
        each = like.shape[1] // plain.shape[0]
        return plain[:, None].expand(-1, each, -1, -1).reshape(1, like.shape[1], *plain.shape[1:])

    def _turn(self, x: Tensor, by: typing.Any) -> Tensor:
        """x: [..., row, dim], each row turned by so many positions."""
        if not np.any(by):
            return x
        if self._rotation is None:
            raise NotImplementedError("keys or queries are to be turned, and how this model rotates "
                                      "them is not known: it is no plain RoPE of halves")
        return self._rotation.turn(x, np.broadcast_to(by, x.shape[-2:-1]))

    def _scores_of_runs(self, query: Tensor, runs: typing.List[KeptRun]) -> Tensor:
        key = self._heads(np.concatenate([run.k for run in runs]), query)
        if self.view.far_position:  # keys as they lie
            at = np.full(len(self._rows), self.view.far_position)
        else:
            at = np.array([runs[0].query_position(int(row)) for row in self._rows])
            if self.view.unrotated:
                key = self._rotate_kept(key, runs)
        return torch.matmul(self._turn(query, at - self._rows), key.transpose(2, 3))

    def _rotate_kept(self, key: Tensor, runs: typing.List[KeptRun]) -> Tensor:
        places = np.concatenate([run.positions for run in runs], axis=-1)
        if places.ndim == 1:
            return self._turn(key, places)
        each = key.shape[1] // len(places)  # each kv head has rows of its own
        return torch.cat([self._turn(key[:, h * each:(h + 1) * each], places[h])
                          for h in range(len(places))], 1)

    def _is_near(self, recent: typing.Any) -> typing.Any:
        """[row][recent]: inside the window of the row's query, or behind it."""
        low = np.array([self.view.window_first(int(row)) for row in self._rows])
        return recent[None, :] >= low[:, None]

    def _recent_scores(self, query: Tensor, keys: typing.Any,
                       recent: typing.Any) -> typing.Tuple[Tensor, typing.Optional[Tensor]]:
        """And what is to be added to them, where not every query sees every row."""
        view, rows = self.view, self._rows
        key, near = self._heads(keys, query), self._is_near(recent)
        if view.far_position:
            sees = recent[None, :] <= rows[:, None]
            turned = self._turn(query, view.far_position - rows)
            scores = torch.where(torch.from_numpy(near),
                                 torch.matmul(query, self._turn(key, recent).transpose(2, 3)),
                                 torch.matmul(turned, key.transpose(2, 3)))
        else:
            sees = (recent[None, :] <= rows[:, None]) & (
                near | np.isin(recent, np.array(view.sticky, np.int64))[None, :])
            if view.unrotated:
                key = self._turn(key, recent)
            scores = torch.matmul(query, key.transpose(2, 3))
        if sees.all():
            return scores, None
        mask = torch.zeros(sees.shape, dtype=query.dtype)
        return scores, mask.masked_fill_(torch.from_numpy(~sees), torch.finfo(query.dtype).min)

    # ---- what policies ask for ----------------------------------------------------------------

    def _put_queries(self, query: Tensor) -> None:
        wanted, rows = self.view.query_rows, self._rows
        first, end = max(wanted.start, int(rows[0])), min(wanted.stop, int(rows[-1]) + 1)
        if first < end:
            at = slice(first - int(rows[0]), end - int(rows[0]))
            self.view.put_queries(first, query[0, :, at].transpose(0, 1).float().numpy())

    def _look_up(self, far: Tensor) -> typing.Sequence[KeptRun]:
        paid = self._mass.pop(self.index, None)
        return typing.cast(typing.Sequence[KeptRun], self._retrieve(
            self.index, far[0].float().mean(1).numpy(), paid))

    def _report(self, weights: Tensor, kept: typing.List[KeptRun],
                found: typing.Sequence[KeptRun], recent: typing.Any) -> None:
        """weights: [1][query_head][row][key]: kept, found, then recent."""
        view, step = self.view, self.step
        age = torch.arange(step.count - 1, -1, -1, dtype=torch.float32)
        decay = torch.pow(torch.tensor(step.mass_decay), age)
        kept_rows, found_rows = (sum(run.rows for run in runs) for runs in (kept, found))
        end = kept_rows + found_rows
        if found:
            sums, at = weights[0].sum((0, 1)).numpy(), kept_rows
            borders = np.cumsum([0] + [run.rows for run in found]) + at
            self._mass[self.index] = np.add.reduceat(sums, borders[:-1])
        if not view.asks_mass:
            return
        if view.far_position:  # by query head, of what lies inside the window
            near = torch.from_numpy(self._is_near(recent))
            paid = (weights[0, :, :, end:] * near).sum(1).numpy()
        else:
            by_head = (weights[0] * decay[:, None]).sum(1).numpy()
            heads = view.shape.kv_heads
            by_head = by_head.reshape(heads, -1, by_head.shape[-1]).sum(1)
            paid = by_head[:, end:]
        whole = np.zeros((len(paid), view.mass_recent_rows), np.float32)
        whole[:, recent - view.recent_base] = paid
        view.add_mass(by_head[:, :kept_rows] if kept_rows and not view.far_position else None, whole)


def _alike(runs: typing.Sequence[KeptRun], row: int,
           far: int) -> typing.Iterator[typing.List[KeptRun]]:
    """Neighbours for which the query is rotated alike: they are attended at once."""
    together: typing.List[KeptRun] = []
    for run in runs:
        if together and not far and run.query_rule != together[0].query_rule:
            yield together
            together = []
        together.append(run)
    if together:
        yield together


class _Active(threading.local):
    layer: typing.Optional[Layer] = None  # whose rows were written, and which attends next


active = _Active()


def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor,
           attention_mask: typing.Optional[Tensor], scaling: typing.Optional[float] = None,
           dropout: float = 0.0, **kwargs: typing.Any) -> typing.Any:
    """An attention function of transformers: [1][row][query_head][dim], and no weights."""
    layer, active.layer = active.layer, None
    if layer is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask,
                                               scaling=scaling, dropout=dropout, **kwargs)
    if layer.key is not key:
        raise NotImplementedError("this model attends to other keys than those of its cache")
    for name in ("softcap", "s_aux", "sliding_window", "position_bias"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"attention of this model has {name}, which is not known here")
    if dropout:
        raise NotImplementedError("a cache is for inference: call model.eval()")
    return layer.attend(query, query.shape[-1]**-0.5 if scaling is None else scaling), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
