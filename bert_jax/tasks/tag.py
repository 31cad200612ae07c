"""Tagging: predict a label for each word, such as parts of speech or named entities (Devlin et al. 2019, section 5.3)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import labeled, tagging
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, unpack
from bert_jax.data.tagging import Sentence, TaggingConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling import masks
from bert_jax.modeling.feature_based import FeatureBasedTagger
from bert_jax.modeling.heads import ForTokenClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Mistake, TaskOutput, row_weight

_COLUMNS = ('precision', 'recall', 'f1', 'support')


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of tagging.

    Attributes:
      labels: names of the labels, in the order of their ids; empty uses those of the data set.
      entities: whether the labels are B-X, I-X and O, so that whole entities are scored as well.
      features: hidden states of the frozen encoder that a BiLSTM tagger reads (Devlin et al. 2019, table 7); empty
        fine-tunes the encoder instead.
      lstm_width: width of the BiLSTM in each direction; 0 uses the width of the model.
    """

    name: str = 'tag'
    labels: tuple[str, ...] = ()
    entities: bool = False
    features: Literal[
        '', 'embeddings', 'second_to_last', 'last', 'sum_last_four', 'concat_last_four', 'sum_all'
    ] = ''
    lstm_width: int = 0


class Task(Downstream):
    """Tagging of words at their first subword."""

    Data = TaggingConfig
    supports_packing = True
    only_embeds_tokens = True

    def __init__(self, config: Config, data: TaggingConfig, tokenizer: Tokenizer):
        super().__init__(config, data, tokenizer)
        self.freezes_encoder = bool(config.features)
        invalid = [label for label in config.labels if label != 'O' and label[:2] not in ('B-', 'I-')]
        if config.entities and invalid:
            raise UserError(
                f'The label {invalid[0]!r} is not B-X, I-X or O. Set task.entities=false, or data.label_names to the '
                'names of numbers.'
            )

    @staticmethod
    def complete_config(config: Config, data: TaggingConfig) -> Config:
        """Fill in the names of the labels from the data, unless they are set."""
        if config.labels:
            return config
        return dataclasses.replace(config, labels=labeled.label_names(data, per_token=True))

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        return Examples(
            *tagging.make_rows(records, self.data, self.config.labels, self.tokenizer, with_labels)
        )

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the arrays of a row; `labels` [T] are class ids plus 1 at first subwords, and 0 elsewhere."""
        labels = packed[1, HEADER:].astype(np.int32)
        return {**unpack(packed[0]).inputs(), 'labels': labels, 'row_weight': np.float32(1)}

    def build_model(self, model_config: Any, rngs: Rngs) -> ForTokenClassification | FeatureBasedTagger:
        classes, c = len(self.config.labels), self.config
        if c.features:
            return FeatureBasedTagger(model_config, classes, c.features, c.lstm_width, rngs)
        return ForTokenClassification(model_config, classes, rngs)

    def loss(self, model: Any, batch: Batch, key: jax.Array | None) -> TaskOutput:
        logits = model(batch['tokens'], batch['segments'], batch['valid'], key).logits
        labels = batch['labels'] - 1
        predicted = logits.argmax(-1)
        losses = cross_entropy(logits, jnp.maximum(labels, 0))
        outputs = {'predicted': predicted, 'labels': labels, 'probability': jax.nn.softmax(logits).max(-1)}
        if 'starts' in batch:
            separate = functools.partial(
                masks.separate_texts, documents=batch['valid'], starts=batch['starts']
            )
            outputs = {k: separate(v, length=self.data.length)[0] for k, v in outputs.items()}
        weights = jnp.where(labels >= 0, row_weight(batch)[:, None], 0)
        return TaskOutput(
            {'cross_entropy': mean(losses, weights)},
            {'accuracy': mean(predicted == labels, weights)},
            outputs,
        )

    def predictions(
        self, outputs: dict[str, np.ndarray], metadata: Sequence[Sentence]
    ) -> list[dict[str, Any]]:
        """Return the predicted label of each word of each record, and the probabilities of these labels."""
        names = np.array(self.config.labels)
        predictions = []
        for sentence in metadata:
            positions = tuple(sentence.positions.T)
            labels = names[outputs['predicted'][positions]].tolist()
            probabilities = [round(float(p), 6) for p in outputs['probability'][positions]]
            predictions.append({'prediction': labels, 'probability': probabilities})
        return predictions

    def gold(self, record: Record) -> list[tuple[str, str]]:
        """Return the words of a record, each with its label."""
        words = record.texts(self.data.tokens, 'words')
        ids = tagging.read_class_ids(record, words, self.data, self.config.labels, self._label_map)
        return [(word, self.config.labels[i]) for word, i in zip(words, ids, strict=True)]

    @functools.cached_property
    def _label_map(self) -> labeled.LabelMap:
        return labeled.LabelMap(self.data, self.config.labels)

    def mistake(self, gold: Sequence[tuple[str, str]], prediction: dict[str, Any]) -> Mistake | None:
        """Return the most confident mistake among the words of a record."""
        words = zip(gold, prediction['prediction'], prediction['probability'], strict=True)
        mistakes = [
            Mistake(p, f'{word!r} is {label} instead of {true} ({p:.1%})')
            for (word, true), label, p in words
            if label != true
        ]
        return max(mistakes, default=None)

    def scores(self, outputs: dict[str, np.ndarray], metadata: Sequence[Sentence]) -> dict[str, Any]:
        """Compute precision, recall and F1 of each label and, with `entities`, of whole entities.

        Sentences with rows that were not evaluated are skipped. `f1_macro` is the mean F1 of the labels that
        occur in the data or in the predictions.
        """
        from sklearn import metrics

        num_rows = len(outputs['predicted'])
        complete = [s.positions for s in metadata if len(s.positions) and s.positions[-1, 0] < num_rows]
        if not complete:
            raise UserError(
                f'The first {num_rows} evaluation rows contain no complete sentence. Raise train.eval_rows.'
            )
        true, predicted = ([outputs[k][tuple(p.T)] for p in complete] for k in ('labels', 'predicted'))
        all_true, all_predicted = np.concatenate(true), np.concatenate(predicted)
        names = self.config.labels
        by_label = metrics.precision_recall_fscore_support(
            all_true, all_predicted, labels=range(len(names)), zero_division=0
        )
        table = _table_rows(by_label)
        scores: dict[str, Any] = {
            'f1_macro': float(metrics.f1_score(all_true, all_predicted, average='macro', zero_division=0)),
            'majority': float(np.bincount(all_true).max() / len(all_true)),
            'words': len(all_true),
            'labels': dict(zip(names, table, strict=True)),
        }
        if self.config.entities:
            scores |= _entity_scores(*([[names[i] for i in s] for s in side] for side in (true, predicted)))
        return scores

    def format_scores(self, scores: dict[str, Any]) -> str:
        """Format the scores and a table of entity types, or of labels if there are no entities."""
        table = scores.get('entities') or scores['labels']
        width = max(12, *(len(label) for label in table))
        lines = [super().format_scores(scores), '', ' ' * width + '  precision  recall      f1  support']
        for label, row in table.items():
            lines.append(
                f'{label:>{width}}  {row["precision"]:9.4f}  {row["recall"]:6.4f}  {row["f1"]:6.4f}  {row["support"]:7,}'
            )
        return '\n'.join(lines)


def _table_rows(columns: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Convert arrays of precision, recall, F1 and support, a count, to one dict per label or entity type."""
    rows = zip(*columns, strict=True)
    return [
        dict(zip(_COLUMNS, (*map(float, scores), int(support)), strict=True)) for *scores, support in rows
    ]


def _entity_scores(true: list[list[str]], predicted: list[list[str]]) -> dict[str, Any]:
    """Score whole entities as conlleval, the script of CoNLL-2003, does: the type and both boundaries must match.

    An I-X without a B-X or I-X before it begins an entity too. This is the default mode of seqeval.
    """
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    options: Any = dict(zero_division=0)
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average='micro', **options)
    types = sorted({entity[0] for side in (true, predicted) for entity in get_entities(side)})
    by_type = precision_recall_fscore_support(true, predicted, average=None, **options)
    return {
        'entity_precision': float(precision),
        'entity_recall': float(recall),
        'entity_f1': float(f1),
        'entities': dict(zip(types, _table_rows(by_type), strict=True)),
    }
