"""The bilingual task: masked language modeling of a language and its fake copy."""

import jax
import numpy as np
import pytest
from flax import nnx

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling import bert
from bert_jax.modeling.module import Rngs
from bert_jax.tasks import bilingual

LENGTH = 24


def make_task(word_tokenizer, **settings):
    return bilingual.Task(
        bilingual.Config(sentence_objective='none', **settings), TextConfig(length=LENGTH), word_tokenizer
    )


def pack_row(word_tokenizer, n=12, start=10):
    return rows_lib.pack(np.arange(start, start + n), None, 0, LENGTH, word_tokenizer)


def model_config(word_tokenizer, **settings):
    shape = dict(size='tiny', width=16, heads=2, mlp_width=32, dropout=0.0, attention_dropout=0.0)
    return bert.Config(vocab_size=2 * len(word_tokenizer), **shape | settings)


@pytest.mark.parametrize('special_tokens', ['shared', 'separate'])
@pytest.mark.parametrize('word_order', ['same', 'inverted'])
def test_fake_example_is_the_translation_of_the_real_one(word_tokenizer, special_tokens, word_order):
    task = make_task(word_tokenizer, special_tokens=special_tokens, word_order=word_order)
    row = pack_row(word_tokenizer)
    fake = task.example_in_language(row, np.random.default_rng(1), True)
    reordered = row.copy()
    if word_order == 'inverted':
        reordered[rows_lib.HEADER + 1 : rows_lib.HEADER + 13] = row[
            rows_lib.HEADER + 1 : rows_lib.HEADER + 13
        ][::-1]
    real = task.example_in_language(reordered, np.random.default_rng(1), False)
    assert (fake.pop('corpus'), real.pop('corpus')) == (1, 0)
    for key in ('tokens', 'labels'):
        np.testing.assert_array_equal(fake.pop(key), task.fake_language.map_ids(real.pop(key)))
    assert fake.keys() == real.keys()
    assert all(np.array_equal(fake[k], real[k]) for k in fake)


def test_rows_are_in_both_languages_only_if_the_corpus_is_parallel(word_tokenizer):
    rows = [pack_row(word_tokenizer, n, start) for n in (11, 12) for start in (10, 11)]
    for parallel_corpus in (True, False):
        task = make_task(word_tokenizer, parallel_corpus=parallel_corpus)
        languages = [
            {int(task.example(r, np.random.default_rng(i))['corpus']) for i in range(20)} for r in rows
        ]
        assert (
            languages == [{0, 1}] * 4
            if parallel_corpus
            else {frozenset(x) for x in languages}
            == {
                frozenset({0}),
                frozenset({1}),
            }
        )


def test_losses_are_reported_for_each_language(word_tokenizer):
    task = make_task(word_tokenizer)
    rng = np.random.default_rng(0)
    batch = stack(
        [task.example_in_language(pack_row(word_tokenizer), rng, fake) for fake in (True, False, True)]
    )
    model = task.build_model(model_config(word_tokenizer), Rngs(0))
    result = nnx.jit(lambda model: task.loss(model, batch, None))(model)
    real, fake = (result.metrics[f'mlm_loss/{name}'] for name in bilingual.LANGUAGES)
    assert (float(real.weight), float(fake.weight)) == (2, 4)
    total = result.losses['mlm_loss']
    assert float(real.total + fake.total) == pytest.approx(float(total.total), rel=1e-5)


def test_separate_position_embeddings_are_the_second_half_of_the_table(word_tokenizer):
    task = make_task(word_tokenizer, position_embeddings='separate')
    model = task.build_model(model_config(word_tokenizer, max_positions=2 * LENGTH), Rngs(0))
    row = pack_row(word_tokenizer)
    real, fake = (stack([task.example_in_language(row, np.random.default_rng(0), f)]) for f in (False, True))
    moved = {**real, 'corpus': fake['corpus']}
    encode = nnx.jit(lambda model, batch: task.encode(model, batch).hidden_states[0])
    as_real, as_fake = (encode(model, batch) for batch in (real, moved))
    table = model.bert.position_embedding[...]
    normalize = jax.vmap(model.bert.embedding_norm)
    words_and_segments = (
        model.bert.token_embedding[...][real['tokens'][0]] + model.bert.segment_embedding[...][0]
    )
    np.testing.assert_allclose(as_real[0], normalize(words_and_segments + table[:LENGTH]), atol=1e-5)
    np.testing.assert_allclose(as_fake[0], normalize(words_and_segments + table[LENGTH:]), atol=1e-5)


def test_separate_position_embeddings_need_a_large_enough_table(word_tokenizer):
    task = make_task(word_tokenizer, position_embeddings='separate')
    with pytest.raises(UserError, match=r'model\.rope_base=0'):
        task.build_model(model_config(word_tokenizer, rope_base=1e4), Rngs(0))
    model = task.build_model(model_config(word_tokenizer, max_positions=2 * LENGTH - 1), Rngs(0))
    batch = stack([task.example_in_language(pack_row(word_tokenizer), np.random.default_rng(0), True)])
    with pytest.raises(UserError, match=r'model\.max_positions=48'):
        task.encode(model, batch)
