"""Tests of the contextual word vectors study."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.studies import context, hidden_states
from bert_jax.train import load
from tests.runs import hidden_states as hidden_states_of
from tests.runs import run_in_process

EXAMPLES = [
    ('a', 'The river finds a bird.'),
    ('b', 'Every bird carries the river.'),
    ('a', 'A bird, a bird.'),
]


@pytest.fixture(scope='module')
def encoder(pretrained):
    return hidden_states.load_encoder(str(pretrained), {}, limit=60)


def test_word_vector_is_the_mean_of_its_pieces(encoder, pretrained):
    trained = load.read(pretrained)
    t = trained.tokenizer
    for word in ('river', 'bird'):
        examples = [e for e in EXAMPLES if word in e[1]]
        vectors = context.encode_occurrences(encoder, word, [text for _, text in examples])
        for i, (_, text) in enumerate(examples):
            before, pieces = (t.encode([part])[0] for part in (text[: text.index(word)], word))
            row = np.concatenate([[t.cls], t.encode([text])[0], [t.sep]])[None].astype(np.int32)
            start = 1 + len(before)
            assert row[0, start : start + len(pieces)].tolist() == pieces.tolist()
            hidden = hidden_states_of(trained, row)[:, 0, start : start + len(pieces)]
            np.testing.assert_allclose(vectors[:, i], hidden.mean(1), atol=1e-4)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('The birds sing.', "does not contain the word 'bird'"),
        ('the river ' * 40 + 'bird', 'beyond the maximum length'),
    ],
)
def test_sentence_without_the_word_raises(encoder, text, message):
    with pytest.raises(UserError, match=message):
        context.encode_occurrences(encoder, 'bird', [text] * 2)


def test_word_boundaries_depend_on_the_script():
    chinese = SimpleNamespace(
        tokenizer=tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *'他去银行取钱。ab'])
    )
    assert context._piece_positions(chinese, '银行', '他去银行取钱。').tolist() == [2, 3]
    assert context._piece_positions(chinese, '银行', 'a银行b').tolist() == [1, 2]
    assert context._piece_positions(chinese, 'a', '他a去').tolist() == [1]
    with pytest.raises(UserError, match='does not contain the word'):
        context._piece_positions(chinese, 'a', 'ab')


def test_pieces_of_bpe_are_those_in_the_sentence():
    config = tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=270)
    bpe = SimpleNamespace(tokenizer=tokenizer_training.train(['a kind word is kind'], config))
    text = 'Be kind, kindly.'
    (ids,) = bpe.tokenizer.encode([text])
    assert bpe.tokenizer.decode(ids[context._piece_positions(bpe, 'kind', text)]) == ' kind'


def test_message_truncates_a_long_sentence(encoder):
    with pytest.raises(UserError) as e:
        context.encode_occurrences(encoder, 'bird', ['the river ' * 400] * 2)
    assert len(str(e.value)) < 200


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('none.jsonl', None, 'none.jsonl does not exist'),
        ('a.text', 'a', "a.text' has an unknown format"),
        ('a.jsonl', '', 'a.jsonl has no examples'),
        ('a.jsonl', '{"text": "a bird"}', "a.jsonl, line 1, has no field 'sense'"),
    ],
)
def test_bad_input_file_is_named(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = run_in_process(
        'bert_jax.bin.study_context', '--checkpoint', 'x', '--out', tmp_path / 'x', '--word', 'bird',
        '--input', tmp_path / name,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert 'data.source' not in done.stderr


def test_sense_silhouettes_follow_the_vectors():
    separate, mixed = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[0, 1, 0, 1]]
    first, second = context.sense_silhouettes(np.stack([separate, mixed]), ['a', 'a', 'b', 'b'])
    assert first == pytest.approx(1)
    assert second < 0


def test_context_free_vectors_have_self_similarity_one(encoder, monkeypatch):
    """If hidden states depend on the token alone, all occurrences of a word are equal and different words are not."""
    table = np.random.default_rng(0).normal(size=(len(encoder.tokenizer), 16))
    monkeypatch.setattr(encoder, 'hidden_states', lambda batch: np.stack([table[batch['tokens']]] * 2))
    similarity, anisotropy, n = context.self_similarity(encoder)
    assert n > 5
    assert similarity == pytest.approx([1, 1])
    assert max(anisotropy) < 0.5


def test_command_compares_with_a_control(pretrained, tmp_path):
    lines = [json.dumps({'sense': sense, 'text': text}) for sense, text in (*EXAMPLES, ('b', 'No bird.'))]
    (tmp_path / 'in.jsonl').write_text('\n'.join(lines))
    done = run_in_process(
        'bert_jax.bin.study_context', '--checkpoint', pretrained, '--out', tmp_path / 'x', '--limit', 60,
        '--word', 'bird', '--input', tmp_path / 'in.jsonl', '--control', pretrained,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'x/context.json').read_text())
    control = results.pop('control')
    assert control == results
    assert np.shape(results['similarities']) == (3, 4, 4)
    assert (tmp_path / 'x/context.png').stat().st_size > 10_000
