"""One class for a sequence of DNA, or of other symbols, by a model pretrained on language (Kao & Lee 2021, arXiv 2103.07162)."""

import dataclasses
import logging
import math
from collections.abc import Sequence

import numpy as np

from bert_jax.core.config import within
from bert_jax.core.errors import UserError
from bert_jax.data.labeled import LabelledConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, room
from bert_jax.data.sequences import SymbolTokenizer
from bert_jax.data.tokenizer import Tokenizer
from bert_jax.tasks import Examples, classify


@dataclasses.dataclass(frozen=True)
class Config(classify.Config):
    """Classes, and how a sequence is written in words.

    Attributes:
      alphabet: the symbols.
      kmer: so many neighbours are one token.
      stride: by how many symbols each token begins after the one before.
      table: the seed by which symbols become word pieces.
    """

    name: str = 'dna'
    alphabet: str = 'ACGT'
    kmer: int = 1
    stride: int = 1
    table: int = 0

    def __post_init__(self) -> None:
        within(self, 'task', 1, 16, 'kmer', 'stride')
        within(self, 'task', 0, math.inf, 'table')


class Task(classify.Task):
    config: Config
    tokenizer: SymbolTokenizer

    def __init__(self, config: Config, data: LabelledConfig, tokenizer: Tokenizer):
        words = SymbolTokenizer(tokenizer, config.alphabet, config.kmer, config.table, config.stride)
        super().__init__(config, data, words)

    def examples(self, found: Sequence[Record], labelled: bool = True) -> Examples:
        """Rows; says how much of the sequences is cut or unknown.

        Raises:
          UserError: for a sequence without a k-mer.
        """
        fields = [self.data.text, self.data.second] if self.data.second else [self.data.text]
        most, cut = room(self.data.length, self.tokenizer, len(fields)), 0
        for record in found:
            counts = [self.tokenizer.count(record.text(field)) for field in fields]
            if 0 in counts:
                raise UserError(
                    f'{record.where} has a sequence in the field {fields[counts.index(0)]!r} that is shorter than '
                    f'task.kmer={self.config.kmer}: mend or remove it.'
                )
            cut += sum(counts) > most
        examples = super().examples(found, labelled)
        if len(found) > 2:  # a prediction that meets a bad record tries the others two by two
            self._say(examples.rows, cut)
        return examples

    def _say(self, rows: np.ndarray, cut: int) -> None:
        if cut:
            logging.info(
                '%d of %d sequences are cut to data.length=%d tokens', cut, len(rows), self.data.length
            )
        unknown = int((rows[:, HEADER:] == self.tokenizer.unk).sum())
        known = int(np.isin(rows[:, HEADER:], [*self.tokenizer.table.values()]).sum())
        if unknown:
            logging.info(
                '%.2g %% of the k-mers read are unknown: they have letters that task.alphabet=%s has not',
                100 * unknown / (known + unknown), self.config.alphabet,
            )  # fmt: skip
