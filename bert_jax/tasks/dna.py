"""Classification of DNA or other symbol sequences with a model pretrained on text (Kao & Lee 2021, arXiv 2103.07162)."""

import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np

from bert_jax.core.config import check_range
from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabeledConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER
from bert_jax.data.sequences import KmerTokenizer
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.tasks import Examples, classify


@dataclasses.dataclass(frozen=True)
class Config(classify.Config):
    """Settings of sequence classification.

    Attributes:
      alphabet: symbols of the sequences.
      kmer: number of consecutive symbols that form one token.
      stride: number of symbols from the start of one token to the start of the next.
      mapping_seed: seed of the random assignment of k-mers to word pieces.
    """

    name: str = 'dna'
    alphabet: str = 'ACGT'
    kmer: int = 1
    stride: int = 1
    mapping_seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 'task', 1, 16, 'kmer', 'stride')
        check_range(self, 'task', 0, math.inf, 'mapping_seed')


class Task(classify.Task):
    """Classification of symbol sequences, where each k-mer becomes a randomly assigned word piece."""

    tokenizer: KmerTokenizer
    unit = 'sequences'

    def __init__(self, config: Config, data: LabeledConfig, tokenizer: Tokenizer):
        c = config
        if data.fake_language:
            raise UserError(
                f'data.fake_language={data.fake_language} has no effect on task.name=dna, which already maps k-mers to '
                'random word pieces. Set data.fake_language to "".'
            )
        super().__init__(c, data, KmerTokenizer(tokenizer, c.alphabet, c.kmer, c.mapping_seed, c.stride))

    def make_examples(self, records: Sequence[Record], with_labels: bool = True) -> Examples:
        """Convert records to rows, and log the share of unknown k-mers.

        Raises:
          UserError: if a sequence is shorter than one k-mer.
        """
        for record in records:
            for key, field in self.data.text_fields.items():
                if not self.tokenizer.count(record.text(field, f'data.{key}')):
                    raise record.error(
                        f'has a sequence in the field {field!r} that is shorter than task.kmer={self.config.kmer}'
                    )
        examples = super().make_examples(records, with_labels)
        # After a bad record, `predict` retries the others in pairs with the first; those would repeat the log.
        if len(records) > 2:
            self._log_coverage(examples.rows)
        return examples

    def _log_coverage(self, rows: np.ndarray) -> None:
        """Log the share of unknown k-mers."""
        unknown = int((rows[:, HEADER:] == self.tokenizer.unk).sum())
        known = int(np.isin(rows[:, HEADER:], [*self.tokenizer.table.values()]).sum())
        if unknown:
            logging.info(
                '%.2g %% of the k-mers are unknown: they contain symbols outside task.alphabet=%s',
                100 * unknown / (known + unknown), self.config.alphabet,
            )  # fmt: skip
