"""Static word vectors beside contextual ones."""

import json
import sys
import unittest.mock

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.studies import alignment, hidden_states, word2vec
from tests.runs import run_here


@pytest.fixture(scope='module')
def table(bilingual):
    pytest.importorskip('gensim', reason='gensim has no wheels for this Python')
    reader = hidden_states.open_reader(str(bilingual), {}, limit=40)
    return reader, word2vec.word2vec(reader, width=16)


def test_both_languages_have_vectors_of_the_words_of_the_text(table):
    reader, vectors = table
    size = len(reader.tokenizer)
    (river,) = reader.tokenizer.encode(['river'])[0]
    assert vectors.shape == (2 * size, 16)
    assert all(np.linalg.norm(vectors[i]) > 0 for i in (river, river + size))
    assert not vectors[reader.tokenizer.mask].any()


def test_a_static_reader_has_one_layer_of_them(table):
    reader, vectors = table
    view = word2vec.StaticReader(reader, vectors)
    _, batch = next(view.batches('real'))
    assert np.array_equal(view.hidden(batch)[0, 2, 3], vectors[batch['tokens'][2, 3]])
    for token, vector in alignment.word_vectors(view, 'fake').items():
        np.testing.assert_allclose(vector[0], vectors[token], rtol=1e-4)


def test_the_study_holds_them_beside_the_layers(table, bilingual, tmp_path):
    words = ('bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path, '--limit', 40)
    done = run_here(*words, '--alphas', '1', '--static')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('| word2vec')
    scores = json.loads((tmp_path / 'language.json').read_text())['scores']
    assert 0 < scores['static_word_alignment'] <= 1


def test_without_translations_nothing_is_trained(bilingual):
    reader = hidden_states.open_reader(str(bilingual), {}, limit=5)
    reader.parallel = False
    with pytest.raises(UserError, match='give some by --parallel'):
        word2vec.word2vec(reader)


def test_without_gensim_it_says_how_to_get_it(bilingual):
    reader = hidden_states.open_reader(str(bilingual), {}, limit=5)
    with (
        unittest.mock.patch.dict(sys.modules, {'gensim.models': None}),
        pytest.raises(UserError, match='pip install gensim'),
    ):
        word2vec.word2vec(reader)
