"""The same word in different sentences."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.modeling import module
from bert_jax.studies import context, hidden_states
from bert_jax.studies.context import Occurrences
from bert_jax.train import load
from tests.runs import run_here

EXAMPLES = [
    ('a', 'The river finds a bird.'),
    ('b', 'Every bird carries the river.'),
    ('a', 'A bird, a bird.'),
]


@pytest.fixture(scope='module')
def reader(pretrained):
    return hidden_states.open_reader(str(pretrained), {}, limit=60)


def test_the_vector_of_a_word_is_the_mean_of_its_pieces(reader, pretrained):
    trained = load.read(pretrained)
    model, t = module.merge(trained.graph, trained.params), trained.tokenizer
    for word in ('river', 'bird'):
        examples = [e for e in EXAMPLES if word in e[1]]
        found = context.occurrences(reader, word, examples)
        assert found.senses == [sense for sense, _ in examples]
        for i, (_, text) in enumerate(examples):
            before, pieces = (t.encode([part])[0] for part in (text[: text.index(word)], word))
            row = np.concatenate([[t.cls], t.encode([text])[0], [t.sep]])[None].astype(np.int32)
            start = 1 + len(before)
            assert row[0, start : start + len(pieces)].tolist() == pieces.tolist()
            hidden = np.stack(model.bert(row).hidden_states)[:, 0, start : start + len(pieces)]
            np.testing.assert_allclose(found.vectors[:, i], hidden.mean(1), atol=1e-4)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('The birds sing.', "does not have the word 'bird'"),
        ('the river ' * 40 + 'bird', 'beyond the length'),
    ],
)
def test_a_sentence_without_the_word_is_refused(reader, text, said):
    with pytest.raises(UserError, match=said):
        context.occurrences(reader, 'bird', [('a', text)] * 2)


def test_a_word_of_a_script_without_spaces_has_no_borders():
    chinese = SimpleNamespace(
        tokenizer=tokenizer_lib.from_vocab([*tokenizer_lib.SPECIAL, *'他去银行取钱。ab'])
    )
    assert context._pieces(chinese, '银行', '他去银行取钱。').tolist() == [2, 3]
    assert context._pieces(chinese, '银行', 'a银行b').tolist() == [1, 2]
    assert context._pieces(chinese, 'a', '他a去').tolist() == [1]
    with pytest.raises(UserError, match='does not have the word'):
        context._pieces(chinese, 'a', 'ab')


def test_a_long_sentence_is_quoted_in_part(reader):
    with pytest.raises(UserError) as e:
        context.occurrences(reader, 'bird', [('a', 'the river ' * 400)] * 2)
    assert len(str(e.value)) < 200


@pytest.mark.parametrize(
    ('name', 'text', 'said'),
    [
        ('none.jsonl', None, 'none.jsonl is no .jsonl'),
        ('a.txt', 'a', 'a.txt is no .jsonl'),
        ('a.jsonl', '', 'a.jsonl has no examples'),
        ('a.jsonl', '{"text": "a bird"}', "a.jsonl, line 1, has no field 'sense'"),
    ],
)
def test_what_is_wrong_with_the_input_is_said_of_it(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = run_here(
        'bert_jax.bin.study_context', '--checkpoint', 'x', '--out', tmp_path / 'x', '--word', 'bird',
        '--input', tmp_path / name,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert 'data.source' not in done.stderr


def test_senses_lie_apart_as_their_vectors_do():
    near, far = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[0, 1, 0, 1]]
    found = Occurrences('w', ['a', 'a', 'b', 'b'], [''] * 4, np.stack([near, far]))
    first, second = context.senses_apart(found)
    assert first == pytest.approx(1)
    assert second < 0


def test_without_context_a_word_is_always_itself(reader, monkeypatch):
    """If hidden states were a function of the token, occurrences of a word would be the same and words would not."""
    table = np.random.default_rng(0).normal(size=(len(reader.tokenizer), 16))
    monkeypatch.setattr(reader, 'hidden', lambda batch: np.stack([table[batch['tokens']]] * 2))
    own, baseline, n = context.self_similarity(reader)
    assert n > 5
    assert own == pytest.approx([1, 1])
    assert max(baseline) < 0.5


def test_the_door_compares_with_a_control(pretrained, tmp_path):
    lines = [json.dumps({'sense': sense, 'text': text}) for sense, text in (*EXAMPLES, ('b', 'No bird.'))]
    (tmp_path / 'in.jsonl').write_text('\n'.join(lines))
    done = run_here(
        'bert_jax.bin.study_context', '--checkpoint', pretrained, '--out', tmp_path / 'x', '--limit', 60,
        '--word', 'bird', '--input', tmp_path / 'in.jsonl', '--control', pretrained,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'x/context.json').read_text())
    control = found.pop('control')
    assert control == found
    assert np.shape(found['similarities']) == (3, 4, 4)
    assert (tmp_path / 'x/context.png').stat().st_size > 10_000
