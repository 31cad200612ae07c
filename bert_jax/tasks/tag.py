"""A label for each word: part of speech, named entities (Devlin et al. 2019, section 5.3)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.core.metrics import mean
from bert_jax.data import labeled as labelled_lib
from bert_jax.data import tagging
from bert_jax.data.pipeline import Batch
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, unpack
from bert_jax.data.tagging import Sentence, TaggedConfig
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.modeling.heads import Features, ForTokenClassification
from bert_jax.modeling.losses import cross_entropy
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import Downstream, Examples, Result


@dataclasses.dataclass(frozen=True)
class Config:
    """Labels of the words.

    Attributes:
      labels: their names, in the order of their numbers; empty takes those of the data set.
      entities: whether the labels are B-X, I-X and O, to be scored as entities.
      features: empty fine-tunes the encoder; else it is frozen, and a BiLSTM reads these hidden states of it
        (Devlin et al. 2019, table 7).
      lstm: its width in each direction; 0 takes that of the model.
    """

    name: str = 'tag'
    labels: tuple[str, ...] = ()
    entities: bool = False
    features: Literal[
        '', 'embeddings', 'second_to_last', 'last', 'sum_last_four', 'concat_last_four', 'sum_all'
    ] = ''
    lstm: int = 0


class Task(Downstream):
    Data = TaggedConfig

    def __init__(self, config: Config, data: TaggedConfig, tokenizer: Tokenizer):
        self.config, self.data, self.tokenizer = config, data, tokenizer
        self.frozen = bool(config.features)
        odd = [label for label in config.labels if label != 'O' and label[:2] not in ('B-', 'I-')]
        if config.entities and odd:
            raise UserError(f'The label {odd[0]!r} is not B-X, I-X or O: set task.entities=false.')

    @staticmethod
    def complete(config: Config, data: TaggedConfig) -> Config:
        """Fills in the names of the labels from the data."""
        if config.labels:
            return config
        return dataclasses.replace(config, labels=labelled_lib.label_names(data, of_each=True))

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        return Examples(*tagging.rows(found, self.data, self.config.labels, self.tokenizer, labelled))

    def example(self, packed: np.ndarray, rng: np.random.Generator) -> Batch:
        return {
            **unpack(packed[0]).inputs(),
            'labels': packed[1, HEADER:].astype(np.int32),
            'row_weight': np.float32(1),
        }

    def module(self, model: Any, rngs: Rngs) -> ForTokenClassification | Features:
        classes, c = len(self.config.labels), self.config
        if c.features:
            return Features(model, classes, c.features, c.lstm, rngs)
        return ForTokenClassification(model, classes, rngs)

    def loss(
        self,
        model: ForTokenClassification | Features,
        batch: dict[str, jax.Array],
        key: jax.Array | None,
    ) -> Result:
        logits = model(batch['tokens'], batch['segments'], batch['valid'], key).logits
        labels = batch['labels'] - 1
        weight = jnp.where(labels >= 0, batch['row_weight'][:, None], 0)
        predicted = logits.argmax(-1)
        losses = cross_entropy(logits, jnp.maximum(labels, 0))
        return Result(
            {'cross_entropy': mean(losses, weight)},
            {'accuracy': mean(predicted == labels, weight)},
            {'predicted': predicted, 'labels': labels, 'probability': jax.nn.softmax(logits).max(-1)},
        )

    def flops(self, model: Any, batch: Batch) -> float:
        return model.read_flops(batch['valid'].sum(), batch['valid'].shape[1])

    def predictions(self, outputs: dict[str, np.ndarray], about: Sequence[Sentence]) -> list[dict[str, Any]]:
        """The words of each record, their labels, and the probability of each label."""
        names = np.array(self.config.labels)
        found = []
        for sentence in about:
            places = tuple(sentence.places.T)
            labels, sure = names[outputs['predicted'][places]].tolist(), outputs['probability'][places]
            probabilities = [round(float(p), 6) for p in sure]
            found.append({'tokens': [*sentence.words], 'labels': labels, 'probabilities': probabilities})
        return found

    def scores(self, outputs: dict[str, np.ndarray], about: Sequence[Sentence]) -> dict[str, Any]:
        """Precision, recall and F1 of each label, and of entities (strict BIO) if they are entities.

        Only sentences all of whose rows were evaluated count.
        """
        from sklearn import metrics

        n = len(outputs['predicted'])
        whole = [s.places for s in about if len(s.places) and s.places[-1, 0] < n]
        if not whole:
            raise UserError(f'There is no whole sentence among {n} rows: set train.eval_rows higher.')
        true, predicted = ([outputs[k][tuple(p.T)] for p in whole] for k in ('labels', 'predicted'))
        all_true, all_predicted = np.concatenate(true), np.concatenate(predicted)
        names = self.config.labels
        each = metrics.precision_recall_fscore_support(
            all_true, all_predicted, labels=range(len(names)), zero_division=0
        )
        table = [dict(zip(_COLUMNS, map(float, column), strict=True)) for column in zip(*each, strict=True)]
        scores: dict[str, Any] = {
            'f1_macro': float(np.mean([row['f1'] for row in table if row['support']])),
            'majority': float(np.bincount(all_true).max() / len(all_true)),
            'words': len(all_true),
            'labels': dict(zip(names, table, strict=True)),
        }
        if self.config.entities:
            scores |= _entity_scores(*([[names[i] for i in s] for s in side] for side in (true, predicted)))
        return scores

    def describe(self, scores: dict[str, Any]) -> str:
        """A table of the scores, and one of the labels or entities."""
        table = scores.get('entities') or scores['labels']
        width = max(12, *(len(label) for label in table))
        lines = [super().describe(scores), '', ' ' * width + '  precision  recall      f1  support']
        for label, row in table.items():
            lines.append(
                f'{label:>{width}}  {row["precision"]:9.4f}  {row["recall"]:6.4f}  {row["f1"]:6.4f}  {row["support"]:7,.0f}'
            )
        return '\n'.join(lines)


_COLUMNS = ('precision', 'recall', 'f1', 'support')


def _entity_scores(true: list[list[str]], predicted: list[list[str]]) -> dict[str, Any]:
    """Scores of whole entities: kind and both ends right (strict BIO, by seqeval)."""
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2, Entities

    options: Any = dict(scheme=IOB2, zero_division=0)
    p, r, f, _ = precision_recall_fscore_support(true, predicted, average='micro', **options)
    kinds = sorted(set.union(*(Entities(side, IOB2).unique_tags for side in (true, predicted))))
    each = precision_recall_fscore_support(true, predicted, average=None, **options)
    rows = [dict(zip(_COLUMNS, map(float, column), strict=True)) for column in zip(*each, strict=True)]
    return {
        'entity_precision': float(p),
        'entity_recall': float(r),
        'entity_f1': float(f),
        'entities': dict(zip(kinds, rows, strict=True)),
    }
