"""What a pretrained model makes of sentences in several languages: hidden states, layer by layer."""

import functools
import itertools
import logging
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
from bert_jax.studies.mean_shift import bias, moved
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
      sentences: how many there are of each language: none twice, and none without a word that the vocabulary knows.
      layers: L + 1: the embeddings are layer 0.
    """

    def __init__(self, trained: Trained, sentences: Mapping[str, Sequence[str]], parallel: bool = False):
        """Takes `sentences` by language; for a model of `tasks.bilingual`, real ones under any name.

        Raises:
          UserError: if the model predicts no words, or a language has no sentences that it knows a word of.
        """
        check_masked(trained, 'The checkpoint')
        self.tokenizer = trained.tokenizer
        self._graph, self._params, self.pretraining = trained.graph, trained.params, trained.experiment
        self._task = trained.experiment.make_task(trained.tokenizer)
        self.layers = trained.experiment.model.layers + 1
        self._length = min(trained.experiment.data.length, trained.experiment.model.positions)
        self.disguise = getattr(self._task, 'disguise', None)
        if self.disguise is not None:
            if len(sentences) > 1:
                raise UserError(
                    f'The model is of a language and its double, which read one text, not {len(sentences)} '
                    f'({", ".join(sentences)}): give one by --text=NAME=SOURCE.'
                )
            (only,) = sentences.values()
            sentences, parallel = dict.fromkeys(bilingual.LANGUAGES, only), True
        self.parallel = parallel
        self.languages = tuple(sentences)
        self._rows = self._alike({name: self._packed(name, found) for name, found in sentences.items()})
        self.sentences = len(self._rows[self.languages[0]])

    def _alike(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows with words, each once, and as many in all languages, so that chance is the same for each."""
        if self.parallel and len({*map(len, rows.values())}) > 1:
            raise UserError('Parallel languages need the same number of sentences each.')
        kept: dict[str, Any] = {}
        for language, found in rows.items():
            known = np.isin(found[:, rows_lib.HEADER :], self.tokenizer.ordinary).any(1)
            if not known.any():
                raise no_words(f'The text of {language!r}')
            first = np.unique(found, axis=0, return_index=True)[1]
            kept[language] = known & np.isin(np.arange(len(found)), first)
        if self.parallel:
            kept = dict.fromkeys(kept, np.logical_and.reduce([*kept.values()]))
        counts = {language: int(good.sum()) for language, good in kept.items()}
        for language, count in counts.items():
            if count < len(rows[language]):
                logging.info(
                    '%s: %d of %d sentences are left out%s: without a known word, or there before',
                    language, len(rows[language]) - count, len(rows[language]),
                    ', in it or in translation' if self.parallel else '',
                )  # fmt: skip
        least = min(counts, key=counts.__getitem__)
        if not counts[least]:
            raise UserError('No sentence has a known word in every language: look at the data of --parallel.')
        if {*counts.values()} != {counts[least]}:
            logging.info(
                'each language is cut to the %d sentences of %r, which has the fewest', counts[least], least
            )
        return {language: found[kept[language]][: counts[least]] for language, found in rows.items()}

    def _packed(self, language: str, sentences: Sequence[str]) -> np.ndarray:
        t, length = self.tokenizer, self._length
        if not sentences:
            raise UserError(f'There is no text of {language!r} to read: name a file for it.')
        most = rows_lib.room(length, t, 1)
        encoded = t.encode(sentences)
        if cut := sum(len(ids) > most for ids in encoded):
            logging.info(
                '%s: %d of %d sentences are cut to the %d tokens that the model reads',
                language, cut, len(encoded), most,
            )  # fmt: skip
        return np.stack([rows_lib.pack(ids[:most], None, 0, length, t) for ids in encoded])

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
        check_language(language, self.languages)
        make = functools.partial(
            self._example, fake=self.disguise is not None and language == bilingual.LANGUAGES[1]
        )
        rows: Any = self._packed(language, sentences) if sentences else self._rows[language]
        for indices, batch in pipeline.once(rows, make, size, bins=8):
            batch['ordinary'] &= batch.pop('row_weight')[:, None] > 0
            yield indices, batch

    def one(self, language: str, sentence: str) -> Batch:
        """A batch of one sentence, see `_example`.

        Raises:
          UserError: if it has no word that the vocabulary knows.
        """
        ((_, batch),) = self.batches(language, 1, [sentence])
        if not batch['ordinary'].any():
            raise no_words(f'The sentence {quoted(sentence)}')
        return batch

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
    checkpoint: str,
    texts: Mapping[str, str],
    parallel: str = '',
    split: str = 'test',
    limit: int = 1000,
    languages: Sequence[str] = (),
    layer: int = 0,
) -> Reader:
    """A reader of a checkpoint, with `limit` sentences of each language.

    Args:
      checkpoint: of a pretraining.
      texts: a source of running text for each language, whose first sentences are read, or with `parallel` the field that
        it has there; if there are none, the corpora of the pretraining, of which what was held out is read.
      parallel: labelled data, see `records.read`, with a sentence and its translations in each record.
      split: of it.
      limit: at most so many sentences; of `parallel` in random order.
      languages, layer: what is wanted of the reader.

    Raises:
      UserError: before running text is read, if there is no such language or layer; else as `Reader`.
    """
    if limit < 1:
        raise UserError(f'--limit={limit} leaves nothing to read: give 1 or more.')
    trained = load.read(checkpoint)
    check_masked(trained, repr(checkpoint))
    if not 0 <= layer <= (top := trained.experiment.model.layers):
        raise UserError(f'--layer={layer} is none of the layers of the model: 0 to {top}.')
    data = trained.experiment.data
    found = records.read(parallel, split, limit) if parallel else []
    if found and not texts:
        texts = {k: k for k, v in found[0].fields.items() if isinstance(v, str)}
    doubled = trained.experiment.task.name == 'bilingual'
    for language in languages:
        check_language(language, bilingual.LANGUAGES if doubled else tuple(texts) or data.names or ('text',))
    if parallel:
        sentences = {name: [r.text(field) for r in found] for name, field in texts.items()}
    elif texts:
        sentences = {name: _first(_documents(source), limit) for name, source in texts.items()}
    else:
        sentences = _held_out(data, limit)
        if doubled:  # an equal share of each corpus is the one text
            share = -(-limit // len(sentences))
            sentences = {'text': [s for kept in sentences.values() for s in kept[:share]]}
    return Reader(trained, sentences, bool(parallel))


def check_masked(trained: Trained, name: str) -> None:
    """Raises UserError, which calls the checkpoint by this name, if it is no masked language model."""
    if not isinstance(trained.experiment.make_task(trained.tokenizer), mlm.Task):
        model, task = trained.experiment.model.name, trained.experiment.task.name
        raise UserError(
            f'{name} is a {model} of the task {task}: give the --workdir of a BERT pretraining (task mlm or bilingual).'
        )


def check_language(language: str, known: Sequence[str]) -> None:
    """Raises UserError if a language is not among those known."""
    if language not in known:
        raise UserError(f'There is no language {language!r}: {nearest(language, known)}')


def no_words(what: str) -> UserError:
    """The error that a text has none."""
    return UserError(
        f'{what} has no word that the vocabulary knows (it is empty, or all its tokens are [UNK]): give text in a language that the '
        'model was pretrained on.'
    )


def quoted(text: str, most: int = 80) -> str:
    """A text for a message, cut to `most` characters."""
    return repr(text if len(text) <= most else f'{text[: most - 1]}…')


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
