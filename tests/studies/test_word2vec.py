"""Tests of the word2vec baseline."""

import json
import sys
import unittest.mock

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.studies import alignment, hidden_states, word2vec
from tests.runs import run_in_process


@pytest.fixture(scope='module')
def encoder_and_vectors(bilingual):
    pytest.importorskip('gensim', reason='gensim has no wheels for this Python')
    encoder = hidden_states.load_encoder(str(bilingual), {}, limit=40)
    return encoder, word2vec.train_word2vec(encoder, width=16)


def test_both_languages_have_vectors_of_their_words(encoder_and_vectors):
    encoder, vectors = encoder_and_vectors
    size = len(encoder.tokenizer)
    (river,) = encoder.tokenizer.encode(['river'])[0]
    assert vectors.shape == (2 * size, 16)
    assert all(np.linalg.norm(vectors[i]) > 0 for i in (river, river + size))
    assert not vectors[encoder.tokenizer.mask].any()


def test_mean_of_static_vectors_is_the_vector(encoder_and_vectors):
    encoder, vectors = encoder_and_vectors
    encode = lambda batch: vectors[batch['tokens']][None]  # noqa: E731
    for token, vector in alignment.word_vectors(encoder, 'fake', encode=encode).items():
        np.testing.assert_allclose(vector[0], vectors[token], rtol=1e-4)


def test_study_reports_word2vec(encoder_and_vectors, bilingual, tmp_path):
    words = ('bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path, '--limit', 40)
    done = run_in_process(*words, '--alphas', '1', '--word2vec')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('| word2vec')
    scores = json.loads((tmp_path / 'language.json').read_text())['scores']
    assert 0 < scores['word2vec_word_alignment'] <= 1


def test_word2vec_needs_translations(bilingual):
    encoder = hidden_states.load_encoder(str(bilingual), {}, limit=5)
    encoder.is_parallel = False
    with pytest.raises(UserError, match='Pass a data set with --parallel'):
        word2vec.train_word2vec(encoder)


def test_message_without_gensim_says_how_to_install_it(bilingual):
    encoder = hidden_states.load_encoder(str(bilingual), {}, limit=5)
    with (
        unittest.mock.patch.dict(sys.modules, {'gensim.models': None}),
        pytest.raises(UserError, match='pip install gensim'),
    ):
        word2vec.train_word2vec(encoder)
