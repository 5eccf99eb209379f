"""What the daemon is told of a transformers model."""
import hashlib
import typing
import weakref

import torch

from kvasir.rotation import Rotation, rotation_of
from kvasir.model import KvType, LayerSpec, Model, ModelSpec, Rope
from kvasir.session import Session

_KV_TYPES = {torch.float16: KvType.F16, torch.bfloat16: KvType.BF16, torch.float32: KvType.F32}
_models: "weakref.WeakKeyDictionary[Session, typing.Dict[typing.Any, Model]]" = \
    weakref.WeakKeyDictionary()
_rotations: "weakref.WeakKeyDictionary[torch.nn.Module, typing.Optional[Rotation]]" = \
    weakref.WeakKeyDictionary()
_digests: "weakref.WeakKeyDictionary[torch.nn.Module, bytes]" = weakref.WeakKeyDictionary()


def digest_model(model: torch.nn.Module) -> bytes:
    """BLAKE2b-256 of weights and configuration. About 1 s a GiB; a model's is made once.

    Caches of models that differ in it never meet, nor those of engines that lay rows out otherwise.
    """
    if model not in _digests:
        config = model.config.to_dict()
        for name in ("_name_or_path", "transformers_version", "_attn_implementation"):
            config.pop(name, None)  # say where from and how, not what
        digest = hashlib.blake2b(b"transformers " + repr(sorted(config.items())).encode(),
                                 digest_size=32)
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        _digests[model] = digest.digest()
    return _digests[model]


def rotation(model: torch.nn.Module) -> typing.Optional[Rotation]:
    """How it rotates keys, found out once; None: not known."""
    if model not in _rotations:
        _rotations[model] = rotation_of(model)
    return _rotations[model]


def model_spec(model: torch.nn.Module, *, weights_digest: typing.Optional[bytes] = None,
               separator_token_ids: typing.Sequence[int] = ()) -> ModelSpec:
    """What the daemon is told of a model. Raises NotImplementedError: KvasirCache cannot."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise NotImplementedError(f"layers of this model are not all full attention: {kinds}")
    if model.dtype not in _KV_TYPES:
        raise NotImplementedError(f"no KV cache has elements of this type: {model.dtype}")
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    turns = rotation(model)  # None: a policy that moves keys (positions=in_cache) is refused by name
    rope: typing.Dict[str, typing.Any] = {} if turns is None else {
        "rope": Rope.HALF_SPLIT, "rope_theta": turns.theta, "rope_dims": turns.dims}
    return ModelSpec(
        layers=[LayerSpec(kv_heads, dim, dim, query_heads=heads)] * config.num_hidden_layers,
        weights_digest=weights_digest or digest_model(model), name=config.model_type,
        kv_type=_KV_TYPES[model.dtype], separator_token_ids=separator_token_ids,
        vocabulary_size=config.vocab_size, **rope)


def register(session: Session, spec: ModelSpec) -> Model:
    """Once a session: caches of one model share it."""
    key = (spec.weights_digest, tuple(spec.separator_token_ids), spec.kv_type, tuple(spec.layers),
           spec.rope, spec.rope_theta, spec.rope_dims)
    models = _models.setdefault(session, {})
    if key not in models:
        models[key] = session.register_model(spec)
    return models[key]


__all__ = ["digest_model", "model_spec", "register", "rotation"]
