"""How a transformers model rotates queries and keys, found out by trying."""
import sys
import typing

import numpy as np
import torch


class Rotation(typing.NamedTuple):
    """Plain RoPE of halves: elements i and i + dims/2 are turned by theta^(-2i/dims) a row."""

    theta: float
    dims: int  # the first of a head; the others stay

    def turn(self, x: torch.Tensor, by: typing.Any) -> torch.Tensor:
        """x: [..., row, dim], row i turned by by[i] positions; angles in double."""
        half = self.dims // 2
        speeds = self.theta ** (-np.arange(half) / half)
        angles = np.asarray(by, np.float64)[:, None] * speeds
        cos, sin = (torch.from_numpy(f(angles)).to(torch.float32) for f in (np.cos, np.sin))
        first, second = x[..., :half].float(), x[..., half:self.dims].float()
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        return torch.cat((turned.to(x.dtype), x[..., self.dims:]), -1)


def rotation_of(model: torch.nn.Module) -> typing.Optional[Rotation]:
    """None: it is not known that the model rotates so. Cost: a few small tensors."""
    found = [module for module in model.modules() if hasattr(module, "inv_freq")]
    attentions = [module for module in model.modules() if hasattr(module, "layer_idx")]
    if len(found) != 1 or not attentions:
        return None
    embedding: typing.Any = found[0]
    config = model.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta")
    apply = next((getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
                  for module in attentions), None)
    if theta is None or apply is None:
        return None
    rotation = Rotation(float(theta), 2 * len(embedding.inv_freq))
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    places = [0, 1, 5, 700, 3]
    x = torch.linspace(-1, 1, len(places) * dim).reshape(1, 1, len(places), dim)
    try:
        cos, sin = embedding(x, torch.tensor([places]))
        theirs, _ = apply(x, x, cos, sin)
    except (TypeError, ValueError, RuntimeError, IndexError):  # called otherwise: not plain
        return None
    ours = rotation.turn(x, places)
    alike = ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=2e-3)
    return rotation if alike else None


__all__ = ["Rotation", "rotation_of"]
