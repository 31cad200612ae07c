"""Whether the output embedding of a Hugging Face model is its token embedding."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_jax.interop.huggingface import family_and_task


def find_tied_embeddings(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    """Set whether the output embedding is the token embedding in a `config.json`, where models of this type may differ.

    As in transformers, the tensors decide: published files of T5 do not tell, or say the opposite.
    """
    family, task = family_and_task(config)
    key = family.config_keys.get('tied_embeddings')
    heads = family.head_modules[task]
    output = next((theirs for ours, theirs in heads.items() if ours.endswith('output_embedding')), None)
    if key is None or output is None:
        return config
    complete, name = family.complete(config), f'{family.base_modules["token_embedding"]}.weight'
    table = next((tensors[n] for n in (name, family.prefix + name, *family.tied) if n in tensors), None)
    is_tied = output not in tensors or (table is not None and np.array_equal(tensors[output], table))
    scale = {k: complete[k] for ours, k in family.config_keys.items() if ours == 'scale_logits'}
    return {**config, **scale, key: is_tied}
