"""The denoising task: inputs, targets and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data.causal_rows import DocumentRows
from bert_jax.data.pipeline import stack
from bert_jax.data.prepare import TextConfig
from bert_jax.data.rows import unpack
from bert_jax.modeling.bart import BartForSeq2Seq
from bert_jax.tasks import denoise
from tests.modeling import tiny

VOCABULARY = tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *(f'w{i}' for i in range(74)), '.'])
LENGTH = 24
COMBINATIONS = [
    ('mask',),
    ('delete',),
    ('infill',),
    ('permute',),
    ('rotate',),
    ('permute', 'infill'),
    ('mass',),
    ('masked_seq2seq',),
    ('spans',),
]
FRAGMENTS = (('mass',), ('masked_seq2seq',))


def make_task(noise, **settings):
    return denoise.Task(denoise.Config(noise=noise, num_sentinels=20, **settings), TextConfig(), VOCABULARY)


def make_row(n, seed=0):
    text = np.random.default_rng(seed).integers(5, len(VOCABULARY), n)
    (packed,) = DocumentRows(LENGTH)([[text]], VOCABULARY, np.random.default_rng(0))
    return text, packed


@pytest.mark.parametrize('noise', COMBINATIONS)
@given(st.integers(1, LENGTH - 2), st.integers(0, 1000), st.floats(0, 1), st.floats(0.5, 5))
def test_target_restores_the_original(noise, n, seed, rate, span):
    assume(rate or noise not in FRAGMENTS)
    text, packed = make_row(n, seed)
    task = make_task(noise, rate=rate, mean_span_length=span)
    batch = task.example(packed, np.random.default_rng(seed))
    source = batch['tokens'][batch['valid']][1:-1]
    labels = batch['labels'][batch['weights'] == 1]
    inputs = batch['targets'][: len(labels)]
    assert len(batch['tokens']) == LENGTH
    assert source.tolist().count(VOCABULARY.sep) == 0
    if noise in FRAGMENTS:
        fragment = batch['positions'][: len(labels)]
        if noise == ('masked_seq2seq',):
            assert np.flatnonzero(source == VOCABULARY.mask).tolist() == fragment.tolist()
        restored = source.copy()
        restored[fragment] = labels
        assert restored.tolist() == text.tolist()
        full = [VOCABULARY.cls, *text]
        assert inputs.tolist() == [full[i] for i in fragment]
        return
    assert inputs.tolist() == [VOCABULARY.sep, *labels[:-1]]
    if noise == ('spans',):
        first = len(VOCABULARY)
        parts = np.split(labels[:-1], np.flatnonzero(labels[:-1] >= first))[1:]
        by_sentinel = {int(p[0]): p[1:].tolist() for p in parts}
        restored = [x for t in source.tolist() for x in (by_sentinel[t] if t >= first else [t])]
        assert restored == text.tolist()
    else:
        assert labels.tolist() == [VOCABULARY.cls, *text, VOCABULARY.sep]


@pytest.mark.parametrize('noise', [('delete',), ('permute', 'rotate'), ('spans',)])
def test_one_token_for_start_and_end_is_no_label_before_the_last(noise):
    entries = dict.fromkeys([*tokenizer_lib._FAMILIES['gpt2'], *'abcdefghĠ.'])
    tokenizer = tokenizer_lib.from_merges({t: i for i, t in enumerate(entries)}, [])
    task = denoise.Task(denoise.Config(noise=noise), TextConfig(), tokenizer)
    (text,) = tokenizer.encode(['abc. defgh'])
    _, inputs, labels, _ = task.make_pair(text, np.random.default_rng(0))
    assert labels.tolist().index(tokenizer.sep) == len(labels) - 1
    assert inputs.tolist() == [tokenizer.sep, *labels[:-1]]
    if noise != ('spans',):
        assert labels[:-1].tolist() == text.tolist()


@pytest.mark.parametrize('noise', COMBINATIONS)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.floats(0.5, 5),
)
def test_packed_documents_are_corrupted_separately(noise, sizes, seed, rate, span):
    assume(rate or noise not in FRAGMENTS)
    task = make_task(noise, rate=rate, mean_span_length=span, pack_documents=True)
    documents = [[np.arange(5, 5 + n)] for n in sizes]
    for row in task.row_maker(LENGTH)(documents, VOCABULARY, np.random.default_rng(seed)):
        batch = task.example(row, np.random.default_rng(seed))
        rng, tokens = np.random.default_rng(seed), unpack(row).tokens
        texts = np.split(tokens, 1 + np.flatnonzero(tokens == VOCABULARY.sep))[:-1]
        for number, text in enumerate(texts, 1):
            source, inputs, labels, first = task.make_pair(text[1:-1], rng)
            is_target = batch['target_valid'] == number
            assert batch['tokens'][batch['valid'] == number].tolist() == source.tolist()
            assert batch['targets'][is_target].tolist() == inputs.tolist()
            assert batch['labels'][is_target].tolist() == labels.tolist()
            if noise in FRAGMENTS:
                positions = batch['positions'][is_target]
                assert positions.tolist() == [*range(first, first + len(labels))]
        assert batch['weights'].tolist() == (batch['target_valid'] > 0).tolist()
        assert batch['valid'].max() == len(texts)


@pytest.mark.parametrize('noise', [('permute', 'infill'), ('mass',), ('spans',)])
def test_packed_documents_have_the_loss_of_single_rows(noise):
    task = make_task(noise, rate=0.5, pack_documents=True)
    alone = make_task(noise, rate=0.5)
    documents = [[np.random.default_rng(n).integers(5, 79, n)] for n in (6, 11)]
    (row,) = task.row_maker(LENGTH)(documents, VOCABULARY, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    rows = [
        *DocumentRows(LENGTH)(documents[::-1], VOCABULARY, rng)
    ]  # the longest comes first in the packed row
    batches = [
        stack([task.example(row, np.random.default_rng(1))]),
        stack([alone.example(row, rng) for row in rows]),
    ]
    graph, params = tiny.graph_and_params(BartForSeq2Seq)
    packed, single = (
        tiny.compute(graph, params, lambda m, t=t, b=b: t.loss(m, b, None).losses['restore_loss'])
        for t, b in zip((task, alone), jax.tree.map(jnp.asarray, batches), strict=True)
    )
    assert float(packed.weight) == float(single.weight) > 0
    assert float(packed.total) == pytest.approx(float(single.total), abs=1e-5, rel=1e-5)


def test_packed_texts_end_where_one_token_is_start_and_end():
    entries = dict.fromkeys([*tokenizer_lib._FAMILIES['gpt2'], *'abcdefghĠ.'])
    tokenizer = tokenizer_lib.from_merges({t: i for i, t in enumerate(entries)}, [])
    task = denoise.Task(denoise.Config(noise=('rotate',), pack_documents=True), TextConfig(), tokenizer)
    documents = [[ids] for ids in tokenizer.encode(['abc. defgh', 'hag'])]
    (row,) = task.row_maker(LENGTH)(documents, tokenizer, np.random.default_rng(0))
    batch = task.example(row, np.random.default_rng(0))
    assert [tokenizer.decode(batch['labels'][batch['target_valid'] == i]) for i in (1, 2)] == [
        'abc. defgh',
        'hag',
    ]


def test_documents_do_not_share_rows():
    documents = [[np.arange(10, 40)], [np.arange(50, 53)]]
    rows = [unpack(r) for r in DocumentRows(LENGTH)(documents, VOCABULARY, np.random.default_rng(0))]
    assert [r.tokens[1 : r.length - 1].tolist() for r in rows] == [
        [*range(10, 32)],
        [*range(32, 40)],
        [50, 51, 52],
    ]


@pytest.mark.parametrize('noise', [('permute', 'infill'), ('mass',), ('masked_seq2seq',)])
@pytest.mark.parametrize('loss_chunk', [0, 5])
def test_loss_matches_the_logits(noise, loss_chunk):
    task = make_task(noise, loss_chunk=loss_chunk, rate=0.5)
    rows = [make_row(n, n)[1] for n in (20, 9)]
    batch = stack([task.example(r, np.random.default_rng(i)) for i, r in enumerate(rows)])
    parts = tiny.graph_and_params(BartForSeq2Seq)
    arrays = {k: jnp.asarray(v) for k, v in batch.items()}
    logits = tiny.runner(*parts)(
        arrays['tokens'], arrays['targets'], arrays['valid'], positions=arrays.get('positions')
    ).logits
    scores = np.asarray(jax.nn.log_softmax(logits))
    term = tiny.compute(*parts, lambda model: task.loss(model, arrays, None).losses['restore_loss'])
    chosen = np.take_along_axis(scores, batch['labels'][..., None], -1)[..., 0]
    assert float(term.value()) == pytest.approx(
        -(chosen * batch['weights']).sum() / batch['weights'].sum(), rel=1e-5
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'noise': ('infil',)}, "Unknown noise 'infil': did you mean 'infill'"),
        ({'noise': ('mass', 'mask')}, 'mass cannot be combined with other noise'),
        ({'rate': 1.5}, 'task.rate=1.5'),
        ({'noise': ('mass',), 'rate': 0.0}, 'task.rate=0 leaves mass nothing to predict'),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    with pytest.raises(UserError, match=message):
        denoise.Config(**settings)


def test_sentence_ends_are_punctuation():
    ends = {VOCABULARY.token(i) for i in np.flatnonzero(VOCABULARY.ends_sentence)}
    assert ends == {'.'}
