"""Adapter for MTEB (`mteb`, version 2; Muennighoff et al. 2023), whose tasks then evaluate a model of this package."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.evals import retrieval
from bert_jax.evals.embedder import Embedder
from bert_jax.modeling.sentence_vectors import Pooling
from bert_jax.train import checkpoint as checkpoint_lib


class Encoder:
    """An encoder with the methods of `EncoderProtocol` of MTEB.

    Args:
      checkpoint: working directory of a run, or the folder of one of its checkpoints.
      pooling: as in `Embedder`.
      length: as in `Embedder`.
      prompts: text that precedes a 'query' or a 'document' of retrieval, by these names; None takes those of training.

    Raises:
      UserError: if `prompts` has another key, or as in `Embedder`.
    """

    def __init__(
        self,
        checkpoint: str | pathlib.Path,
        pooling: Pooling | None = None,
        length: int = 0,
        prompts: Mapping[str, str] | None = None,
    ):
        if unknown := [name for name in prompts or () if name not in ('query', 'document')]:
            raise UserError(f"prompts has the key {unknown[0]!r}. Use the keys 'query' and 'document'.")
        self.embedder = Embedder(checkpoint, pooling, length)
        trained = {'query': self.embedder.query_prompt, 'document': self.embedder.passage_prompt}
        self.prompts = trained if prompts is None else prompts

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = '',
        hf_subset: str = '',
        prompt_type: Any = None,
        batch_size: int = 64,
        **options: Any,
    ) -> np.ndarray:
        """Return the vectors of all texts of batches with a list `text`; see `Embedder.encode`.

        The metadata of the task and other options of MTEB change nothing.
        """
        texts = [text for batch in inputs for text in batch['text']]
        prompt = self.prompts.get(getattr(prompt_type, 'value', prompt_type) or '', '')
        return self.embedder.encode(texts, prompt, batch_size, show_progress=False)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Return the similarity of each of A texts with each of B, [A, B]; see `retrieval.similarities`."""
        passages = np.asarray(embeddings2)
        return np.stack([retrieval.similarities(query, passages) for query in np.asarray(embeddings1)])

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Return the similarity of each text with the one of the same number, [A]."""
        pairs = zip(np.asarray(embeddings1), np.asarray(embeddings2), strict=True)
        return np.array([retrieval.similarities(a, b[None])[0] for a, b in pairs])


def make(
    checkpoint: str | pathlib.Path,
    pooling: Pooling | None = None,
    length: int = 0,
    prompts: Mapping[str, str] | None = None,
) -> Any:
    """Return an `Encoder` with the metadata that `mteb.evaluate` needs; the arguments are those of `Encoder`.

    The results of MTEB are cached under the name of the folder and a hash of the weights.

    Raises:
      UserError: if MTEB is not installed, or as in `Encoder`.
    """
    model: Any = Encoder(checkpoint, pooling, length, prompts)
    path = pathlib.Path(checkpoint)
    model.mteb_model_meta = make_metadata(
        model.embedder.width,
        model.embedder.length,
        name=f'bert_jax/{path.resolve().name}',
        revision=checkpoint_lib.content_hash(*checkpoint_lib.read_metadata(path)),
        use_instructions=any(model.prompts.values()),
        similarity_fn_name='MaxSim' if model.embedder.has_token_vectors else 'cosine',
    )
    return model


def make_metadata(width: int, length: int, name: str = 'bert_jax/model', **settings: Any) -> Any:
    """Return a `ModelMeta` of MTEB.

    Args:
      width: width of the vectors.
      length: maximum number of tokens of a text.
      name: name of the model, 'ORGANIZATION/MODEL'.
      **settings: further fields of `ModelMeta`.

    Raises:
      UserError: if MTEB is not installed.
    """
    try:
        from mteb.models import ModelMeta
    except ImportError as e:
        raise UserError('The adapter needs MTEB. Install it: pip install "mteb>=2"') from e
    unknown = {name: None for name, field in ModelMeta.model_fields.items() if field.is_required()}
    known = {'name': name, 'embed_dim': width, 'max_tokens': length, 'framework': ['JAX']}
    return ModelMeta(**{**unknown, **known, 'similarity_fn_name': 'cosine', **settings})
