"""Text embeddings: train an encoder so that similar texts have similar vectors (Reimers & Gurevych 2019, Gao et al. 2021)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.core.metrics import Mean, mean
from bert_jax.data import labeled, text_tuples
from bert_jax.data.labeled import LabelMap
from bert_jax.data.pipeline import Batch, stack
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack
from bert_jax.data.text_tuples import TupleConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import sentence_vectors
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.modeling.sentence_vectors import Activation, ForEmbedding, Pooling
from bert_jax.tasks import Downstream, Examples, Mistake, TaskOutput, attention_size


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of text embeddings.

    Attributes:
      objective: 'contrastive' finds the positive of each anchor among the texts of the batch, by its cosine similarity; a
        single text is its own positive, with other dropout (SimCSE, Gao et al. 2021). 'cosine' is the squared error of the
        cosine similarity of a pair. 'classes' classifies a pair by (u, v, |u - v|) (SBERT, Reimers & Gurevych 2019).
      pooling: vector of a text; see `sentence_vectors.pool`. 'tokens' compares the tokens of two texts instead (late
        interaction, ColBERT, Khattab & Zaharia 2020; see `sentence_vectors.max_similarity`), only for 'contrastive'.
      output_width: width of the vectors, to which a dense layer maps them; 0 has none, and keeps the width of the model.
      output_activation: activation of this layer.
      temperature: divisor of the similarities of 'contrastive'.
      symmetric: whether 'contrastive' also finds the anchor of each positive, with the mean of both losses.
      widths: widths of vectors that are trained as well, each the first values of the full vector; the losses are added
        (Kusupati et al. 2022, arXiv 2205.13147). Empty trains only the full one.
      chunks: number of parts in which a batch is encoded, so that large batches need less memory. Gradients are the same,
        apart from the random numbers of dropout.
      labels: names of the classes of 'classes', in the order of their ids; empty uses those of the data set.
    """

    name: str = 'embed'
    objective: Literal['contrastive', 'cosine', 'classes'] = 'contrastive'
    pooling: Pooling = 'mean'
    output_width: int = 0
    output_activation: Activation = 'identity'
    temperature: float = 0.05
    symmetric: bool = False
    widths: tuple[int, ...] = ()
    chunks: int = 1
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range(self, 'task', 1e-6, math.inf, 'temperature')
        check_range(self, 'task', 1, math.inf, 'chunks')
        check_range(self, 'task', 0, math.inf, 'output_width')
        if any(width < 1 for width in self.widths):
            raise UserError(f'task.widths={self.widths} has a width below 1. Set widths of vectors.')


class Task(Downstream):
    """Embeddings of texts. Each example holds the rows of its K texts."""

    Data = TupleConfig

    def __init__(self, config: Config, data: TupleConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        if config.pooling == 'tokens' and config.objective != 'contrastive':
            raise UserError(
                f'task.objective={config.objective!r} needs one vector for each text, which task.pooling=tokens does not '
                'compute. Set task.objective to contrastive, or change task.pooling.'
            )
        self.supports_packing = config.pooling in ('mean', 'cls') and config.chunks == 1
        needed = 1 if config.objective == 'contrastive' else 2
        if len(data.texts) < needed or (needed == 2 and len(data.texts) > 2):
            raise UserError(
                f'data.texts={data.texts} has {len(data.texts)} fields, but task.objective={config.objective!r} needs a pair. '
                'Name two fields.'
            )

    @staticmethod
    def complete_config(config: Config, data: TupleConfig) -> Config:
        """Fill in the names of the classes from the data, unless they are set."""
        if config.objective != 'classes' or config.labels:
            return config
        return dataclasses.replace(config, labels=labeled.label_names(data))

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        labels: Sequence[int] = [0] * len(records)
        if with_labels and self.config.objective == 'cosine':
            labels = labeled.encode_floats(records, self.data)
        elif with_labels and self.config.objective == 'classes':
            labels = labeled.class_ids(records, self.data, self.config.labels)
        return Examples(text_tuples.make_rows(records, labels, self.data, self.tokenizer))

    def text_lengths(self, rows: np.ndarray) -> np.ndarray:
        return rows[..., 0].sum(1, dtype=np.int64)

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Unpack the rows of K texts, [K, 4 + T] (see `data.rows`), into arrays [K, T]."""
        rows = [unpack(row) for row in packed]
        inputs = stack([row.inputs() for row in rows])
        label: Any = np.int32(0)
        if self.config.objective == 'cosine':
            label = np.float32(labeled.decode_float(rows[0].label) / self.data.label_scale)
        elif self.config.objective == 'classes':
            label = np.int32(rows[0].label)
        return {
            'tokens': inputs['tokens'],
            'valid': inputs['valid'],
            'label': label,
            'row_weight': np.float32(1),
        }

    def build_model(self, model_config: Any, rngs: Rngs) -> ForEmbedding:
        config = self.config
        output = config.output_width, config.output_activation
        model = ForEmbedding(model_config, rngs, config.pooling, len(config.labels), *output)
        if invalid := [width for width in config.widths if width > model.width]:
            raise UserError(
                f'task.widths has {invalid[0]}, but the vectors are {model.width} wide. Remove it from task.widths.'
            )
        return model

    def loss(self, model: ForEmbedding, batch: Batch, key: jax.Array | None) -> TaskOutput:
        shape = batch['label'].shape
        vectors = (
            self._packed_vectors(model, batch, key) if 'starts' in batch else self._vectors(model, batch, key)
        )
        batch = {name: batch[name].reshape(-1) for name in ('label', 'row_weight')}
        objectives: dict[str, Callable[[jax.Array, Batch], TaskOutput]] = {
            'contrastive': self._contrastive,
            'cosine': self._cosine,
            'classes': functools.partial(self._classes, model),
        }
        objective = objectives[self.config.objective]
        widths = [vectors.shape[-1], *(w for w in self.config.widths if w < vectors.shape[-1])]
        losses: dict[str, Mean] = {}
        metrics: dict[str, Mean] = {}
        for width in widths:
            found = objective(vectors[..., :width], batch)
            suffix = '' if width == widths[0] else f'/{width}'
            losses |= {f'{name}{suffix}': value for name, value in found.losses.items()}
            metrics |= {f'{name}{suffix}': value for name, value in found.metrics.items()}
        similarity = jax.vmap(lambda pair: sentence_vectors.similarities(pair[:1], pair[1:2])[0, 0])(vectors)
        outputs = {'similarity': similarity.reshape(shape), 'label': batch['label'].reshape(shape)}
        return TaskOutput(losses, metrics, outputs)

    def _vectors(self, model: ForEmbedding, batch: Batch, key: jax.Array | None) -> jax.Array:
        """Compute the vectors of the K texts of each example, [B, K, D]; a single text is encoded twice."""
        tokens, valid = batch['tokens'], batch['valid']
        if tokens.shape[1] == 1:  # a text is its own positive
            tokens, valid = (jnp.concatenate([x, x], axis=1) for x in (tokens, valid))
        n, k, length = tokens.shape
        flat = tokens.reshape(-1, length), valid.reshape(-1, length)
        chunks = self.config.chunks if key is not None else 1
        if chunks > 1 and (n * k) % chunks:
            raise UserError(
                f'task.chunks={chunks} does not divide the {n * k} texts of a batch. Set it to a divisor, or change '
                'train.batch_size.'
            )
        vectors = model.vectors(*flat, key) if chunks == 1 else model.vectors_in_chunks(*flat, key, chunks)
        return vectors.reshape(n, k, *vectors.shape[1:])

    def _packed_vectors(self, model: ForEmbedding, batch: Batch, key: jax.Array | None) -> jax.Array:
        """Compute the same from packed rows, for all slots of the rows."""
        rows, _, k = batch['starts'].shape
        copies = 2 if k == 1 else 1
        arrays = batch['tokens'], batch['valid'], batch['starts'].reshape(rows, -1)
        tokens, valid, starts = (jnp.concatenate([x] * copies) for x in arrays)
        vectors = model.vectors(tokens, valid, key, starts).reshape(copies, -1, k, model.width)
        return vectors.swapaxes(0, 1).reshape(-1, copies * k, model.width)

    def _contrastive(self, vectors: jax.Array, batch: Batch) -> TaskOutput:
        weights, others = batch['row_weight'], vectors.shape[1] - 1
        anchors = vectors[:, 0]
        candidates = vectors[:, 1:].swapaxes(0, 1).reshape(-1, *vectors.shape[2:])  # the positives first
        is_real = jnp.tile(weights > 0, others)
        rank = functools.partial(sentence_vectors.ranking_loss, temperature=self.config.temperature)
        losses, correct = rank(anchors, candidates, is_real)
        if self.config.symmetric:
            backward, _ = rank(vectors[:, 1], anchors, weights > 0)
            losses = (losses + backward) / 2
        return TaskOutput(
            {'contrastive_loss': mean(losses, weights)}, {'accuracy': mean(correct, weights)}, {}
        )

    def _cosine(self, vectors: jax.Array, batch: Batch) -> TaskOutput:
        error = jnp.square(sentence_vectors.cosine(vectors[:, 0], vectors[:, 1]) - batch['label'])
        return TaskOutput({'squared_error': mean(error, batch['row_weight'])}, {}, {})

    def _classes(self, model: ForEmbedding, vectors: jax.Array, batch: Batch) -> TaskOutput:
        u, v = vectors[:, 0], vectors[:, 1]
        padding = [(0, 0), (0, model.width - vectors.shape[-1])]
        features = [jnp.pad(x, padding) for x in (u, v, jnp.abs(u - v))]  # the classifier has one width
        classifier: Any = model.classifier
        logits = classifier(jnp.concatenate(features, axis=-1))
        losses: dict[str, Mean] = {
            'cross_entropy': mean(cross_entropy(logits, batch['label']), batch['row_weight'])
        }
        return TaskOutput(
            losses, {'accuracy': mean(logits.argmax(-1) == batch['label'], batch['row_weight'])}, {}
        )

    def flops(self, model_config: Any, batch: Batch) -> float:
        tokens, attended = attention_size(batch['valid'])
        copies = 2 if len(self.data.texts) == 1 else 1
        return model_config.encode_flops(copies * tokens, attended, copies * tokens)

    def scores(self, outputs: dict[str, np.ndarray], metadata: Any) -> dict[str, Any]:
        """Compute the correlations of the cosine similarities with the labels, for 'cosine' alone; 0 if all are equal."""
        if self.config.objective != 'cosine':
            return {}
        return correlations(outputs['similarity'], outputs['label'])

    def predictions(self, outputs: dict[str, np.ndarray], metadata: Any) -> list[dict[str, Any]]:
        """Return the similarity of the first two texts of each record."""
        return [{'prediction': round(float(value), 6)} for value in outputs['similarity']]

    def gold(self, record: Record) -> Any:
        if self.config.objective == 'classes':
            map_ = LabelMap(self.data, self.config.labels)
            return self.config.labels[
                map_.class_id(record.get(self.data.label, 'data.label'), record.location)
            ]
        (bits,) = labeled.encode_floats([record], self.data)
        return float(labeled.decode_float(bits) / self.data.label_scale)

    def mistake(self, gold: Any, prediction: dict[str, Any]) -> Mistake | None:
        if not isinstance(gold, float):
            return None
        error = abs(prediction['prediction'] - gold)
        return Mistake(error, f'{prediction["prediction"]:.4g} instead of {gold:.4g}') if error else None


def correlations(similarity: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Return the Pearson and Spearman correlations of similarities [n] with labels [n]; 0 if all of either are equal."""
    from scipy import stats

    similarity, label = similarity.astype(np.float64), label.astype(np.float64)
    if np.ptp(similarity) == 0 or np.ptp(label) == 0:
        return {'pearson': 0.0, 'spearman': 0.0}
    return {
        'pearson': float(stats.pearsonr(similarity, label).statistic),
        'spearman': float(stats.spearmanr(similarity, label).statistic),
    }
