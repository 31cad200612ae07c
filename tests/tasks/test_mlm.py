"""The masked language modeling task: examples, settings and losses."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import PackedRows
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.modeling.bert import BertForPretraining
from bert_jax.tasks import mlm
from tests.modeling import tiny

LENGTH = 32


@pytest.fixture(scope='module')
def vocabulary():
    return tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(200)), '##s'])


def make_task(vocabulary, **settings):
    return mlm.Task(mlm.Config(**settings), TextConfig(), vocabulary)


def pack_row(vocabulary, n=12, m=9, label=1, length=LENGTH):
    second = np.arange(100, 100 + m) if m else None
    return rows_lib.pack(np.arange(10, 10 + n), second, label, length, vocabulary)


def make_example(vocabulary, row, seed=0, **settings):
    return make_task(vocabulary, **settings).example(row, np.random.default_rng(seed))


@given(st.integers(1, 15), st.integers(0, 14), st.integers(0, 1000), st.booleans(), st.floats(0.05, 1))
def test_labels_are_the_original_tokens_at_the_positions(vocabulary, n, m, seed, whole_words, rate):
    row = pack_row(vocabulary, n, m)
    batch = make_example(vocabulary, row, seed, whole_word_masking=whole_words, mask_rate=rate)
    original = row[rows_lib.HEADER :]
    real = batch['weights'] == 1
    positions = batch['positions'][real]
    assert real.any()
    assert set(batch['weights'].tolist()) <= {0.0, 1.0}
    assert (np.diff(real.astype(int)) <= 0).all(), 'real predictions come first'
    assert np.array_equal(batch['labels'][real], original[positions])
    assert (batch['labels'][real] > vocabulary.mask).all()
    assert len(set(positions.tolist())) == len(positions)
    kept = np.setdiff1d(np.arange(LENGTH), positions)
    assert np.array_equal(batch['tokens'][kept], original[kept])


def test_segments_and_valid_follow_the_row(vocabulary):
    batch = make_example(vocabulary, pack_row(vocabulary, 4, 3))
    #                                   [CLS] a a a a [SEP] b b b [SEP]
    assert batch['segments'].tolist() == [0] * 6 + [1] * 4 + [0] * (LENGTH - 10)
    assert batch['valid'].tolist() == [True] * 10 + [False] * (LENGTH - 10)


def test_single_text_is_all_first_segment(vocabulary):
    batch = make_example(vocabulary, pack_row(vocabulary, 4, 0, 0))
    assert not batch['segments'].any()
    assert batch['valid'].sum() == 6


@pytest.mark.parametrize('label', [0, 1])
def test_row_label_is_the_next_sentence_label(vocabulary, label):
    assert make_example(vocabulary, pack_row(vocabulary, label=label))['next_sentence_label'] == label


def test_shuffling_moves_only_ordinary_tokens(vocabulary):
    row = pack_row(vocabulary)
    shuffled = make_task(vocabulary, shuffle_tokens=True, mask_fraction=0.0, random_fraction=0.0).example(
        row, np.random.default_rng(0)
    )
    tokens, before = shuffled['tokens'], row[rows_lib.HEADER :]
    assert sorted(tokens) == sorted(before)
    assert tokens.tolist() != before.tolist()
    special = np.isin(before, [vocabulary.cls, vocabulary.sep, vocabulary.pad])
    np.testing.assert_array_equal(tokens[special], before[special])
    np.testing.assert_array_equal(shuffled['labels'], tokens[shuffled['positions']])


def test_examples_have_equal_shapes_and_dtypes(vocabulary):
    build = make_task(vocabulary).example
    examples = [build(pack_row(vocabulary, n), np.random.default_rng(0)) for n in (1, 5, 15)]
    batch = stack(examples)
    assert {k: (v.shape[1:], v.dtype.name) for k, v in batch.items()} == {
        'tokens': ((32,), 'int32'),
        'segments': ((32,), 'int32'),
        'valid': ((32,), 'bool'),
        'positions': ((5,), 'int32'),
        'labels': ((5,), 'int32'),
        'weights': ((5,), 'float32'),
        'corpus': ((), 'int32'),
        'next_sentence_label': ((), 'int32'),
        'row_weight': ((), 'float32'),
    }
    assert batch['weights'].sum(1).tolist() == [2, 2, 4]
    assert batch['row_weight'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ('length', 'rate', 'n'), [(128, 0.15, 20), (512, 0.15, 77), (128, 0.4, 52), (20, 0.15, 3), (8, 1.0, 8)]
)
def test_number_of_predicted_positions(vocabulary, length, rate, n):
    task = make_task(vocabulary, mask_rate=rate)
    assert task.max_predictions(length) == n
    full = rows_lib.pack(np.full(length - 2, 10), None, 0, length, vocabulary)
    batch = task.example(full, np.random.default_rng(0))
    assert batch['positions'].shape == (n,)
    assert batch['weights'].sum() == min(n, round(rate * (length - 2)))


@pytest.mark.parametrize(
    ('settings', 'share'),
    [
        (dict(mask_fraction=1.0, random_fraction=0.0), 1),
        (dict(mask_fraction=0.0, random_fraction=0.0), 0),
        (dict(), 0.8),
    ],
)
def test_mask_fraction_is_applied(vocabulary, settings, share):
    masked = total = 0
    for seed in range(100):
        batch = make_example(vocabulary, pack_row(vocabulary), seed, **settings)
        chosen = batch['positions'][batch['weights'] == 1]
        masked += (batch['tokens'][chosen] == vocabulary.mask).sum()
        total += len(chosen)
    assert masked / total == pytest.approx(share, abs=0.07)


def test_whole_words_are_masked(vocabulary):
    piece = vocabulary.backend.token_to_id('##s')
    row = rows_lib.pack(np.array([10, piece] * 8), None, 0, LENGTH, vocabulary)
    for seed in range(20):
        batch = make_example(vocabulary, row, seed, whole_word_masking=True)
        chosen = batch['positions'][batch['weights'] == 1]
        assert chosen.tolist() == [chosen[0], chosen[0] + 1]
        assert chosen[0] % 2 == 1


def test_words_of_a_segmenter_are_masked_whole(vocabulary):
    is_marked = np.array([False, True] * 8)
    row = rows_lib.pack(np.arange(10, 26) + len(vocabulary) * is_marked, None, 0, LENGTH, vocabulary)
    for seed in range(20):
        batch = make_example(vocabulary, row, seed, whole_word_masking=True, segmenter='words.txt')
        chosen = batch['positions'][batch['weights'] == 1]
        assert chosen.tolist() == [chosen[0], chosen[0] + 1]
        assert chosen[0] % 2 == 1
        assert batch['labels'][:2].tolist() == [9 + chosen[0], 10 + chosen[0]]
        kept = np.delete(np.arange(1, 17), chosen - 1)
        assert batch['tokens'][kept].tolist() == (9 + kept).tolist()


def test_segmenter_needs_whole_word_masking():
    with pytest.raises(UserError, match=r"task\.segmenter='jieba' has no effect"):
        mlm.Config(segmenter='jieba')


@pytest.fixture
def texts(tmp_path):
    (tmp_path / 'zh.txt').write_text('他生于1990年。\n\nIn English.\n')
    (tmp_path / 'en.txt').write_text('He was born in 1990.\n')
    return tmp_path


def test_whole_word_masking_needs_words(texts):
    config = mlm.Config(whole_word_masking=True)
    with pytest.raises(
        UserError, match=r'needs words.* no spaces.* Set task\.segmenter to jieba .* or to a file'
    ):
        mlm.Task.check_text(config, TextConfig((f'{texts}/zh.txt',)))
    mlm.Task.check_text(config, TextConfig((f'{texts}/en.txt',)))
    mlm.Task.check_text(config, TextConfig((f'{texts}/missing.txt',)))  # of rows without their text
    mlm.Task.check_text(mlm.Config(), TextConfig((f'{texts}/zh.txt',)))


def test_corpus_without_words_among_others_is_named(texts, caplog):
    data = TextConfig((f'en={texts}/en.txt', f'zh={texts}/zh.txt'))
    mlm.Task.check_text(mlm.Config(whole_word_masking=True), data)
    assert [r.getMessage().split(' has ')[0] for r in caplog.records] == ['zh']


def test_examples_depend_only_on_the_generator(vocabulary):
    first, again, other = (make_example(vocabulary, pack_row(vocabulary), seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert any(not np.array_equal(first[k], other[k]) for k in first)


def test_invalid_rates_are_rejected(vocabulary):
    with pytest.raises(UserError, match=r'Invalid task\.mask_rate'):
        make_task(vocabulary, mask_fraction=0.9, random_fraction=0.2)


def test_row_maker_has_the_settings(vocabulary):
    maker = make_task(
        vocabulary, sentence_objective='swap', negative_rate=0.3, short_sequence_rate=0.2
    ).row_maker(64)
    assert maker == rows_lib.SegmentRows(64, 'swap', 0.3, 0.2)


class Model:
    """Stub of a model: losses 1, 2, 3, ... at the predicted positions, and logits that favor class 0."""

    def bert(self, tokens, segments, valid, key, output_positions, positions):
        return types.SimpleNamespace(
            hidden_states=(tokens, jnp.pad(output_positions, ((0, 0), (1, 0)))), pooled='pooled'
        )

    def masked_loss(self, hidden, labels):
        np.testing.assert_array_equal(hidden, 5)  # the predicted positions, without that of the pooler
        losses = jnp.arange(1.0, labels.size + 1).reshape(labels.shape)
        return losses, jnp.ones(labels.shape, bool).at[0, 0].set(False)

    def next_sentence_logits(self, pooled):
        assert pooled == 'pooled'
        return jnp.log(jnp.array([[0.75, 0.25]] * 3))


def fake_batch():
    return {
        'tokens': jnp.zeros((3, 8), jnp.int32),
        'segments': jnp.zeros((3, 8), jnp.int32),
        'valid': jnp.ones((3, 8), bool),
        'positions': jnp.full((3, 2), 5, jnp.int32),
        'labels': jnp.zeros((3, 2), jnp.int32),
        'weights': jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
        'next_sentence_label': jnp.array([0, 1, 0]),
        'row_weight': jnp.array([1.0, 1.0, 0.0]),
    }


def test_loss_counts_only_real_predictions_of_real_rows(vocabulary):
    result = make_task(vocabulary).loss(Model(), fake_batch(), None)
    loss, accuracy = result.losses['mlm_loss'], result.metrics['mlm_accuracy']
    assert (float(loss.total), float(loss.weight)) == (1 + 2 + 3, 3)
    assert (float(accuracy.total), float(accuracy.weight)) == (2, 3)


def test_named_corpora_have_separate_losses(vocabulary):
    data = TextConfig(('en=a.txt', 'de=b.txt', 'fr=c.txt'))
    batch = {**fake_batch(), 'corpus': jnp.array([1, 0, 0])}
    metrics = mlm.Task(mlm.Config(), data, vocabulary).loss(Model(), batch, None).metrics
    by_corpus = {k: (float(m.total), float(m.weight)) for k, m in metrics.items() if '/' in k}
    assert by_corpus == {'mlm_loss/en': (3, 1), 'mlm_loss/de': (1 + 2, 2), 'mlm_loss/fr': (0, 0)}


def test_next_sentence_loss(vocabulary):
    result = make_task(vocabulary).loss(Model(), fake_batch(), None)
    loss, accuracy = result.losses['next_loss'], result.metrics['next_accuracy']
    assert float(loss.total) == pytest.approx(-np.log(0.75) - np.log(0.25), rel=1e-6)
    assert float(loss.weight) == 2
    assert (float(accuracy.total), float(accuracy.weight)) == (1, 2)


def test_next_sentence_loss_can_be_turned_off(vocabulary):
    result = make_task(vocabulary, sentence_objective='none').loss(Model(), fake_batch(), None)
    assert set(result.losses) == {'mlm_loss'}
    assert set(result.metrics) == {'mlm_accuracy'}


def test_packed_documents_have_the_losses_of_single_rows(vocabulary):
    documents = [[np.arange(10, 10 + n)] for n in (5, 12, 3)]
    (row,) = PackedRows(LENGTH)(documents, vocabulary, np.random.default_rng(0))
    task = make_task(vocabulary, sentence_objective='none', pack_documents=True, mask_rate=0.5)
    packed = task.example(row, np.random.default_rng(0))
    assert packed['valid'].tolist() == [1] * 14 + [2] * 7 + [3] * 5 + [0] * 6
    alone = []
    for number in (1, 2, 3):
        inside = packed['valid'] == number
        start = int(inside.argmax())
        tokens = np.zeros(LENGTH, np.int32)
        tokens[: inside.sum()] = packed['tokens'][inside]
        predicted = inside[packed['positions']] & (packed['weights'] > 0)
        assert predicted.any()
        alone.append(
            packed
            | {
                'tokens': tokens,
                'valid': np.arange(LENGTH) < inside.sum(),
                'positions': np.where(predicted, packed['positions'] - start, 0),
                'weights': predicted.astype(np.float32),
            }
        )
    graph, params = tiny.graph_and_params(
        functools.partial(BertForPretraining, next_sentence=False), vocab_size=len(vocabulary)
    )
    batches = [jax.tree.map(jnp.asarray, stack(examples)) for examples in ([packed], alone)]
    losses = [
        tiny.compute(graph, params, lambda m, b=b: task.loss(m, b, None).losses['mlm_loss']) for b in batches
    ]
    assert float(losses[0].weight) == float(losses[1].weight)
    assert float(losses[0].total) == pytest.approx(float(losses[1].total), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize('setting', [{'sentence_objective': 'random'}, {'shuffle_tokens': True}])
def test_packing_needs_documents_without_a_second_segment_or_shuffling(setting):
    with pytest.raises(UserError, match=r'task\.pack_documents=true needs'):
        mlm.Config(**{'sentence_objective': 'none', 'pack_documents': True, **setting})
