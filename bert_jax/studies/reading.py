"""What a pretrained model makes of sentences in several languages: hidden states, layer by layer."""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.core.config import nearest
from bert_jax.core.errors import UserError
from bert_jax.data import pipeline, prepare, records, sources
from bert_jax.data import rows as rows_lib
from bert_jax.modeling import decoding, module
from bert_jax.studies.moving import bias, moved
from bert_jax.tasks import bilingual, mlm
from bert_jax.train import load
from bert_jax.train.load import Trained

Batch = dict[str, Any]


class Reader:
    """A pretrained masked language model and sentences in the languages that it knows.

    Attributes:
      tokenizer: of the model.
      pretraining: the config by which it was trained.
      languages: their names. Those of a model of `tasks.bilingual` are real and fake, of the same sentences.
      parallel: whether sentence i of one language is a translation of sentence i of each other.
      sentences: how many there are of each language, at least.
      layers: L + 1: the embeddings are layer 0.
    """

    def __init__(self, trained: Trained, sentences: Mapping[str, Sequence[str]], parallel: bool = False):
        """Takes `sentences` by language; for a model of `tasks.bilingual`, real ones under any name.

        Raises:
          UserError: if the model predicts no words, or a language has no sentences.
        """
        self.tokenizer = trained.tokenizer
        self._graph, self._params, self.pretraining = trained.graph, trained.params, trained.experiment
        self._task = trained.experiment.make_task(trained.tokenizer)
        if not isinstance(self._task, mlm.Task):
            raise UserError(
                'The checkpoint is no masked language model: give the --workdir of a pretraining.'
            )
        self.layers = trained.experiment.model.layers + 1
        self._length = min(trained.experiment.data.length, trained.experiment.model.positions)
        self.disguise = getattr(self._task, 'disguise', None)
        if self.disguise is not None:
            only = next(iter(sentences.values()))
            sentences, parallel = dict.fromkeys(bilingual.LANGUAGES, only), True
        self.parallel = parallel
        self.languages = tuple(sentences)
        self._rows = {name: self._packed(name, found) for name, found in sentences.items()}
        self.sentences = min(map(len, self._rows.values()))
        if parallel and len({len(rows) for rows in self._rows.values()}) > 1:
            raise UserError('Parallel languages need the same number of sentences each.')

    def _packed(self, language: str, sentences: Sequence[str]) -> np.ndarray:
        t, length = self.tokenizer, self._length
        if not sentences:
            raise UserError(f'There is no text of {language!r} to read: name a file for it.')
        most = rows_lib.room(length, t, 1)
        return np.stack([rows_lib.pack(ids[:most], None, 0, length, t) for ids in t.encode(sentences)])

    def _example(self, row: np.ndarray, rng: np.random.Generator, fake: bool) -> Batch:
        """Clean tokens; `ordinary` says which are neither special nor padding."""
        found = rows_lib.unpack(row)
        index = np.arange(len(found.tokens))
        if fake:
            index = self.disguise.order(found)  # type: ignore[union-attr]
        tokens = found.tokens[index]
        ordinary = np.isin(tokens, self.tokenizer.ordinary) & (index < found.length)
        if fake:
            tokens = self.disguise.ids(tokens).astype(np.int32)  # type: ignore[union-attr]
        return {
            **found.inputs(),
            'tokens': tokens,
            'ordinary': ordinary,
            'source': np.int32(fake),
        }

    def batches(
        self, language: str, size: int = 64, sentences: Sequence[str] = ()
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """The sentences of a language, or others in it, cut to like lengths: which they are, and a batch, see `_example`."""
        if language not in self.languages:
            raise UserError(f'There is no language {language!r}: {nearest(language, self.languages)}')
        make = functools.partial(
            self._example, fake=self.disguise is not None and language == bilingual.LANGUAGES[1]
        )
        rows: Any = self._packed(language, sentences) if sentences else self._rows[language]
        for indices, batch in pipeline.once(rows, make, size, bins=8):
            batch['ordinary'] &= batch.pop('row_weight')[:, None] > 0
            yield indices, batch

    def word(self, token: int) -> str:
        """A token as it is written; those of the fake language with ~ before them."""
        real = len(self.tokenizer)
        return self.tokenizer.token(token) if token < real else f'~{self.tokenizer.token(token - real)}'

    @functools.cached_property
    def _hidden(self) -> Any:
        @jax.jit
        def hidden(params: module.Params, batch: Batch) -> jax.Array:
            return jnp.stack(self._task.encoded(module.merge(self._graph, params), batch).hidden_states)

        return hidden

    def hidden(self, batch: Batch) -> np.ndarray:
        """[L+1, B, T, D] float32."""
        return np.asarray(self._hidden(self._params, batch), np.float32)

    @functools.cached_property
    def _words(self) -> Any:
        @jax.jit
        def likeliest(params: module.Params, batch: Batch) -> jax.Array:
            model = module.merge(self._graph, params)
            scores = model.word_scores(self._task.encoded(model, batch).hidden_states[-1])
            return decoding.likeliest(scores.reshape(-1, scores.shape[-1])).reshape(batch['tokens'].shape)

        return likeliest

    def check_shifts(self) -> None:
        """Raises UserError if a layer cannot be shifted."""
        for layer in range(self.layers):
            bias(self._params, self.pretraining.model, layer)

    def shifted(self, batch: Batch, layer: int, vector: np.ndarray) -> np.ndarray:
        """The likeliest word [B, T] at each position if `vector` [D] were added to every hidden state of `layer`."""
        return np.asarray(self._words(moved(self._params, self.pretraining.model, layer, vector), batch))


def open_reader(
    checkpoint: str, texts: Mapping[str, str], parallel: str = '', split: str = 'test', limit: int = 1000
) -> Reader:
    """A reader of a checkpoint, with `limit` sentences of each language.

    Args:
      checkpoint: of a pretraining.
      texts: a source of running text for each language, whose first sentences are read, or with `parallel` the field that
        it has there; if there are none, the corpora of the pretraining, of which what was held out is read.
      parallel: labelled data, see `records.read`, with a sentence and its translations in each record.
      split: of it.
      limit: at most so many sentences; of `parallel` in random order.
    """
    if limit < 1:
        raise UserError(f'--limit={limit} leaves nothing to read: give 1 or more.')
    trained = load.read(checkpoint)
    if parallel:
        found = records.read(parallel, split, limit)
        fields = texts or {k: k for k, v in found[0].fields.items() if isinstance(v, str)}
        return Reader(trained, {k: [r.text(field) for r in found] for k, field in fields.items()}, True)
    if texts:
        sentences = {name: _first(_documents(source), limit) for name, source in texts.items()}
    elif isinstance(trained.experiment.data, prepare.TextConfig):
        sentences = _held_out(trained.experiment.data, limit)
    else:
        raise UserError(
            f'{checkpoint!r} was not pretrained on running text: give the --workdir of a pretraining.'
        )
    return Reader(trained, sentences)


def _documents(source: str) -> Iterable[list[str]]:
    return (document.paragraphs for document in sources.documents(source, 'train', 'text'))


def _held_out(text: prepare.TextConfig, limit: int) -> dict[str, list[str]]:
    """Sentences of each corpus that a model was pretrained on, without having seen these."""
    names = text.names or ('text',)
    found: dict[str, list[str]] = {name: [] for name in names}
    for shard in prepare.shards(text):
        if shard.split == 'validation':
            kept = found[names[shard.source]]
            kept += _first(shard.documents, limit - len(kept))
        if all(len(kept) == limit for kept in found.values()):
            break
    return found


def _first(documents: Iterable[list[str]], limit: int) -> list[str]:
    """The first sentences of documents, without those of a word or two."""
    found = (s for document in documents for s in rows_lib.sentences(document) if _SENTENCE.search(s))
    return [*itertools.islice(found, limit)]


# Three words, or in a script without spaces a few characters.
_SENTENCE = re.compile(r'\S\s+\S+\s+\S|[\u3040-\u30ff\u3400-\u9fff]{4}')
