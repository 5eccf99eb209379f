"""Selection policies (gemfilter): a prompt is run once to choose among its tokens, then those alone."""
import typing

import torch

from kvasir.sequence import Sequence


class Selection:
    """Of one sequence, once in its life."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._query: typing.Optional[torch.Tensor] = None
        # The layer whose query is heard, while the first run lasts and before it.
        self.layer = sequence.filter_layer if sequence.rows == 0 else None
        self.listens = False
        self.skipped = 0  # tokens of the prompt that were not chosen

    def hear(self, query: torch.Tensor) -> None:
        """query: [1][query_head][row][dim] of the layer; that of the last row counts."""
        self._query = query[0, :, -1].float()

    def run(self, model: torch.nn.Module, ids: torch.Tensor,
            kwargs: typing.Mapping[str, typing.Any]) -> torch.Tensor:
        """Runs the prompt `ids`, [1][row], and returns the chosen ones."""
        self.listens = True
        try:
            model(**dict(kwargs, input_ids=ids, logits_to_keep=1))
        finally:
            self.listens, self.layer = False, None
        assert self._query is not None
        heads, each = self._sequence.model.shapes[0].kv_heads, self._query.shape[0]
        by_head = self._query.reshape(heads, each // heads, -1).sum(1)
        rows = self._sequence.select_rows(by_head.numpy())
        self.skipped = ids.shape[1] - len(rows)
        return ids[:, rows]
