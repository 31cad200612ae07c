"""Tuples of texts for embeddings: an anchor, a positive, and perhaps hard negatives, as rows in memory."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bert_jax.core.errors import UserError
from bert_jax.data.labeled import ClassesConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import HEADER, max_text_tokens, pack
from bert_jax.data.text_checks import warn_of_unknown
from bert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class TupleConfig(ClassesConfig):
    """Texts that are embedded separately. Longer ones are truncated to `length` tokens.

    Attributes:
      texts: fields of the texts: one for texts without pairs; the anchor and the positive; then hard negatives.
      prompts: text that precedes each of them, such as 'query: ' and 'passage: '; empty for none.
      label: field of the similarity, or of the class of a pair; empty if the objective needs none.
      label_scale: largest similarity; the labels are divided by it.
    """

    texts: tuple[str, ...] = ('sentence1', 'sentence2')
    prompts: tuple[str, ...] = ()
    label: str = 'label'
    label_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.texts:
            raise UserError('data.texts is empty. Name the fields of the texts.')
        if self.prompts and len(self.prompts) != len(self.texts):
            raise UserError(
                f'data.prompts has {len(self.prompts)} prompts for the {len(self.texts)} fields of data.texts. Set one for each.'
            )
        if not self.label_scale > 0:
            raise UserError(
                f'data.label_scale={self.label_scale} must be above 0. Set it to the largest label.'
            )

    @property
    def text_fields(self) -> Mapping[str, str]:
        """Fields of the texts, by the keys that name them."""
        return {f'texts[{i}]': field for i, field in enumerate(self.texts)}


def make_rows(
    records: Sequence[Record], labels: Sequence[int], data: TupleConfig, tokenizer: Tokenizer
) -> np.ndarray:
    """Tokenize the texts of records.

    Args:
      records: n records.
      labels: label of each record, as an unsigned integer.
      data: config that names the K fields.
      tokenizer: tokenizer of the model.

    Returns:
      [n, K, 4 + T] unsigned integers; see `rows.Row`.

    Raises:
      UserError: if a field is missing.
    """
    rows = np.empty((len(records), len(data.texts), HEADER + data.length), np.uint32)
    room = max_text_tokens(data.length, tokenizer, 1)
    prompts = data.prompts or ('',) * len(data.texts)
    for column, (field, prompt) in enumerate(zip(data.texts, prompts, strict=True)):
        encoded = tokenizer.encode([prompt + record.text(field, 'data.texts') for record in records])
        warn_of_unknown(records, encoded, tokenizer)
        for i, ids in enumerate(encoded):
            rows[i, column] = pack(ids[:room], None, labels[i], data.length, tokenizer)
    return rows
