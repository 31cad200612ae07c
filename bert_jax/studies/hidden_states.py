"""Encode sentences of one or several languages with a pretrained masked language model, layer by layer.

Ordinary tokens are those that are neither special tokens nor padding.
"""

import functools
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import did_you_mean
from bert_jax.core.errors import UserError
from bert_jax.data import fake_language, pipeline, prepare, records, sources
from bert_jax.data import rows as rows_lib
from bert_jax.modeling import decoding, module
from bert_jax.studies.mean_shift import last_bias, shift_layer
from bert_jax.tasks import bilingual, mlm, rtd
from bert_jax.train import load
from bert_jax.train.load import TrainedModel

Batch = dict[str, Any]


class SentenceEncoder:
    """A pretrained masked language model together with sentences in the languages to study.

    Attributes:
      tokenizer: tokenizer of the model.
      pretraining: experiment config of the pretraining run.
      fake_language: mapping from real to fake token ids of a `tasks.bilingual` model; None for other models.
      languages: names of the languages; 'real' and 'fake', with the same sentences, for a `tasks.bilingual` model.
      is_parallel: whether sentence i of each language is a translation of sentence i of the others.
      sentences: number of sentences per language, not counting duplicates or sentences without a known word.
      layers: number of hidden states per token, L + 1; layer 0 is the embeddings.
    """

    def __init__(
        self, trained: TrainedModel, sentences: Mapping[str, Sequence[str]], is_parallel: bool = False
    ):
        """Tokenize the sentences of each language.

        Args:
          trained: a pretrained masked language model.
          sentences: sentences by language. A `tasks.bilingual` model takes a single entry, under any name, and encodes
            its sentences in both the real and the fake language.
          is_parallel: whether sentence i of each language is a translation of sentence i of the others.

        Raises:
          UserError: if the model is not a masked language model, or no sentence of a language has a known word.
        """
        check_masked_lm(trained, 'The checkpoint')
        self.tokenizer = trained.tokenizer
        self._graph, self._params, self.pretraining = trained.graph, trained.params, trained.experiment
        self._task = trained.experiment.make_task(trained.tokenizer)
        self._encode, self._predict = jax.jit(self._hidden_states), jax.jit(self._predicted_tokens)
        self.layers = trained.experiment.model.layers + 1
        self._length = min(trained.experiment.data.length, trained.experiment.model.max_positions)
        self.fake_language = getattr(self._task, 'fake_language', None)
        if self.fake_language is not None:
            if len(sentences) > 1:
                raise UserError(
                    'A bilingual model encodes one text in both the real and the fake language, but '
                    f'{len(sentences)} texts ({", ".join(sentences)}) were passed. Pass a single --text=NAME=SOURCE.'
                )
            (only,) = sentences.values()
            sentences, is_parallel = dict.fromkeys(bilingual.LANGUAGES, only), True
        self.is_parallel = is_parallel
        self.languages = tuple(sentences)
        self._rows = self._filter({name: self._pack(name, texts) for name, texts in sentences.items()})
        self.sentences = len(self._rows[self.languages[0]])

    def _filter(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Drop duplicates and rows without known words, then cut all languages to the same size.

        Equal sizes give every language the same chance level. In parallel text, a row is dropped from all languages.
        """
        if self.is_parallel and len({*map(len, rows.values())}) > 1:
            sizes = ', '.join(f'{name} has {len(packed)}' for name, packed in rows.items())
            raise UserError(
                f'Parallel languages need equally many sentences, but {sizes}. Align the sentences.'
            )
        keep: dict[str, Any] = {}
        for language, packed in rows.items():
            has_words = np.isin(packed[:, rows_lib.HEADER :], self.tokenizer.ordinary_ids).any(1)
            if not has_words.any():
                raise no_known_words_error(f'The text of {language!r}')
            first = np.unique(packed, axis=0, return_index=True)[1]
            keep[language] = has_words & np.isin(np.arange(len(packed)), first)
        if self.is_parallel:
            keep = dict.fromkeys(keep, np.logical_and.reduce([*keep.values()]))
        counts = {language: int(mask.sum()) for language, mask in keep.items()}
        for language, count in counts.items():
            if count < len(rows[language]):
                logging.info(
                    '%s: dropped %d of %d sentences%s (duplicate, or without a known word)',
                    language, len(rows[language]) - count, len(rows[language]),
                    ' with their translations' if self.is_parallel else '',
                )  # fmt: skip
        shortest = min(counts, key=counts.__getitem__)
        if not counts[shortest]:
            raise UserError(
                'No sentence has a known word in every language. Check the data set passed to --parallel.'
            )
        if {*counts.values()} != {counts[shortest]}:
            logging.info(
                'using %d sentences per language, the number of sentences of %r, which has the fewest',
                counts[shortest],
                shortest,
            )
        return {language: packed[keep[language]][: counts[shortest]] for language, packed in rows.items()}

    def _pack(self, language: str, sentences: Sequence[str]) -> np.ndarray:
        """Tokenize sentences into rows, cut to the length of the model."""
        t, length = self.tokenizer, self._length
        if not sentences:
            raise UserError(f'Language {language!r} has no text. Pass a non-empty file or data set for it.')
        max_tokens = rows_lib.max_text_tokens(length, t, 1)
        encoded = t.encode(sentences)
        if cut := sum(len(ids) > max_tokens for ids in encoded):
            logging.info(
                '%s: truncated %d of %d sentences to %d tokens, the maximum of the model',
                language, cut, len(encoded), max_tokens,
            )  # fmt: skip
        return np.stack([rows_lib.pack(ids[:max_tokens], None, 0, length, t) for ids in encoded])

    def _example(self, packed: np.ndarray, rng: np.random.Generator, is_fake: bool) -> Batch:
        """Make the model inputs of one row without masking; `ordinary` [T] marks its ordinary tokens.

        With `is_fake`, the row is converted to the fake language.
        """
        row = rows_lib.unpack(packed)
        index = self.fake_language.source_positions(row) if is_fake else np.arange(len(row.tokens))  # type: ignore[union-attr]
        tokens = row.tokens[index]
        ordinary = np.isin(tokens, self.tokenizer.ordinary_ids) & (index < row.length)
        if is_fake:
            tokens = self.fake_language.map_ids(tokens).astype(np.int32)  # type: ignore[union-attr]
        return {**row.inputs(), 'tokens': tokens, 'ordinary': ordinary, 'corpus': np.int32(is_fake)}

    def batches(
        self, language: str, size: int = 64, sentences: Sequence[str] = ()
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Iterate over a language in batches of similar length.

        Args:
          language: one of `languages`.
          size: rows per batch.
          sentences: sentences to encode instead of those of the constructor.

        Yields:
          The indices of the sentences in the batch, and the batch; `ordinary` [B, T] marks the ordinary
          tokens.
        """
        check_language(language, self.languages)
        is_fake = self.fake_language is not None and language == bilingual.LANGUAGES[1]
        make = functools.partial(self._example, is_fake=is_fake)
        rows: Any = self._pack(language, sentences) if sentences else self._rows[language]
        for indices, batch in pipeline.evaluation_batches(rows, make, size, length_buckets=8):
            batch['ordinary'] &= batch.pop('row_weight')[:, None] > 0
            yield indices, batch

    def single_batch(self, language: str, sentence: str) -> Batch:
        """Tokenize one sentence into a batch of one row, in the format of `batches`.

        Raises:
          UserError: if no word of the sentence is in the vocabulary.
        """
        ((_, batch),) = self.batches(language, 1, [sentence])
        if not batch['ordinary'].any():
            raise no_known_words_error(f'The sentence {quote(sentence)}')
        return batch

    def token_text(self, token: int) -> str:
        """Text of a token; tokens of the fake language are prefixed with ~."""
        return fake_language.token_text(self.tokenizer, token)

    def _hidden_states(self, params: module.Params, batch: Batch) -> jax.Array:
        return jnp.stack(self._task.encode(module.merge(self._graph, params), batch).hidden_states)

    def hidden_states(self, batch: Batch) -> np.ndarray:
        """Encode a batch; returns the hidden states of all layers, [L+1, B, T, D] float32."""
        return np.asarray(self._encode(self._params, batch), np.float32)

    def _predicted_tokens(self, params: module.Params, batch: Batch) -> jax.Array:
        model = module.merge(self._graph, params)
        logits = model.masked_lm_logits(self._task.encode(model, batch).hidden_states[-1])
        return decoding.argmax(logits.reshape(-1, logits.shape[-1])).reshape(batch['tokens'].shape)

    def check_shiftable(self) -> None:
        """Raise UserError if any layer lacks the bias to which `predict_shifted` adds its vector."""
        for layer in range(self.layers):
            last_bias(self._params, self.pretraining.model, layer)

    def predict_shifted(self, batch: Batch, layer: int, vector: np.ndarray) -> np.ndarray:
        """Predict the most likely token at each position after adding a vector to the hidden states of one layer.

        Args:
          batch: a batch from `batches`.
          layer: layer to shift, 0 (embeddings) to L.
          vector: [D], added to every hidden state of the layer.

        Returns:
          [B, T] token ids, from the masked-LM head.
        """
        shifted = shift_layer(self._params, self.pretraining.model, layer, vector)
        return np.asarray(self._predict(shifted, batch))


def load_encoder(
    checkpoint: str,
    texts: Mapping[str, str],
    parallel: str = '',
    split: str = 'test',
    limit: int = 1000,
    languages: Sequence[str] = (),
    layer: int = 0,
) -> SentenceEncoder:
    """Load a pretrained checkpoint, and up to `limit` sentences of each language.

    Args:
      checkpoint: working directory of a pretraining run.
      texts: text source of each language, of which the first sentences are used; with `parallel`, the record
        field of each language. If empty, all text fields of the records are used with `parallel`, and the
        held-out part of the pretraining corpora without it.
      parallel: labeled data set with a sentence and its translations in each record, see `records.read`; '' for none.
      split: split of `parallel`.
      limit: maximum number of sentences per language; those of `parallel` are a random sample.
      languages: languages that the caller needs; checked before any text source is read.
      layer: layer that the caller needs; checked before any text is read.

    Raises:
      UserError: if a language or layer does not exist, or as `SentenceEncoder` raises.
    """
    if limit < 1:
        raise UserError(f'--limit={limit} leaves no sentences. Set it to 1 or more.')
    trained = load.read(checkpoint)
    check_masked_lm(trained, repr(checkpoint))
    if not 0 <= layer <= (top := trained.experiment.model.layers):
        raise UserError(f'--layer={layer} does not exist. The layers of this model are 0 to {top}.')
    data = trained.experiment.data
    found = records.read(parallel, split, limit) if parallel else []
    if found and not texts:
        texts = {k: k for k, v in found[0].fields.items() if isinstance(v, str)}
    is_bilingual = trained.experiment.task.name == 'bilingual'
    for language in languages:
        known = bilingual.LANGUAGES if is_bilingual else tuple(texts) or data.corpus_names or ('text',)
        check_language(language, known)
    if parallel:
        sentences = {name: [r.text(field) for r in found] for name, field in texts.items()}
    elif texts:
        sentences = {}
        for name, source in texts.items():
            documents = sources.read_documents(source, 'train', 'text')
            sentences[name] = _first_sentences((d.paragraphs for d in documents), limit)
    else:
        sentences = _held_out_sentences(data, limit)
        if is_bilingual:  # one text: an equal share of each corpus
            share = -(-limit // len(sentences))
            sentences = {'text': [s for corpus in sentences.values() for s in corpus[:share]]}
    return SentenceEncoder(trained, sentences, bool(parallel))


def check_masked_lm(trained: TrainedModel, name: str) -> None:
    """Raise UserError if a model is not a masked language model; the message starts with `name`."""
    trained_task = trained.experiment.make_task(trained.tokenizer)
    if not isinstance(trained_task, mlm.Task) or isinstance(trained_task, rtd.Task):
        model, task = trained.experiment.model.name, trained.experiment.task.name
        raise UserError(
            f'{name} is a {model} trained on the task {task}. Pass the --workdir of a BERT pretraining run (task mlm or '
            'bilingual).'
        )


def check_language(language: str, known: Sequence[str]) -> None:
    """Raise UserError if a language is not one of the known ones."""
    if language not in known:
        raise UserError(f'There is no language {language!r}: {did_you_mean(language, known)}')


def no_known_words_error(text: str) -> UserError:
    """Return the error for a text without known words; the message starts with `text`."""
    return UserError(
        f'{text} has no word that the vocabulary knows (it is empty, or all its tokens are [UNK]). Pass text in a language '
        'that the model was pretrained on.'
    )


def quote(text: str, max_length: int = 80) -> str:
    """Quote a text for a message, truncated to `max_length` characters."""
    return repr(text if len(text) <= max_length else f'{text[: max_length - 1]}…')


def _held_out_sentences(data: prepare.TextConfig, limit: int) -> dict[str, list[str]]:
    """Read up to `limit` sentences of each pretraining corpus from its validation split, which was not trained on."""
    names = data.corpus_names or ('text',)
    found: dict[str, list[str]] = {name: [] for name in names}
    for shard in prepare.make_shards(data):
        if shard.split == 'validation':
            sentences = found[names[shard.corpus]]
            sentences += _first_sentences(shard.documents, limit - len(sentences))
        if all(len(sentences) == limit for sentences in found.values()):
            break
    return found


def _first_sentences(documents: Iterable[list[str]], limit: int) -> list[str]:
    """Return the first `limit` sentences that match `_SENTENCE`, counted across all documents."""
    found = (s for document in documents for s in rows_lib.split_sentences(document) if _SENTENCE.search(s))
    return [*itertools.islice(found, limit)]


# Matches a text with at least three words, or with four consecutive kana or Chinese characters.
_SENTENCE = re.compile(r'\S\s+\S+\s+\S|[\u3040-\u30ff\u3400-\u9fff]{4}')
