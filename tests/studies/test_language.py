"""Tests of the language study: encoding, alignment, language means and shifts."""

import itertools
import json
import logging

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare
from bert_jax.studies import alignment, hidden_states, language_location
from bert_jax.train import load
from tests.runs import TINY, finetune, run_in_process
from tests.runs import hidden_states as hidden_states_of


@pytest.fixture(scope='module')
def trained(bilingual):
    return load.read(bilingual)


PARTS = ('The river finds the yellow boat.', 'My neighbour carries a long letter again.', 'A bird.')
SENTENCES = [f'{a} {b}' for a in PARTS for b in PARTS]


@pytest.fixture(scope='module')
def encoder(trained):
    return hidden_states.SentenceEncoder(trained, {'any': SENTENCES})


def test_bilingual_model_encodes_the_same_sentences_in_both_languages(encoder):
    assert encoder.languages == ('real', 'fake')
    assert encoder.is_parallel
    for (i, real), (j, fake) in zip(encoder.batches('real'), encoder.batches('fake'), strict=True):
        assert i.tolist() == j.tolist()
        np.testing.assert_array_equal(fake['tokens'], encoder.fake_language.map_ids(real['tokens']))


def test_ordinary_tokens_are_those_of_the_text(encoder):
    count = sum(batch['ordinary'].sum() for _, batch in encoder.batches('real', size=4))
    assert count == sum(map(len, encoder.tokenizer.encode(SENTENCES)))


def test_vectors_are_means_of_hidden_states(encoder, trained):
    vectors = alignment.sentence_vectors(encoder, 'real')
    mean = language_location.language_mean(encoder, 'real')
    words = alignment.word_vectors(encoder, 'real', min_count=1)
    t = encoder.tokenizer
    tokens, states = [], []
    for i, ids in enumerate(t.encode(SENTENCES)):
        hidden = hidden_states_of(trained, [[t.cls, *ids, t.sep]])[:, 0, 1:-1]
        np.testing.assert_allclose(vectors[:, i], hidden.mean(1), atol=1e-4)
        tokens.append(ids)
        states.append(hidden)
    tokens, states = np.concatenate(tokens), np.concatenate(states, 1)
    np.testing.assert_allclose(mean, states.mean(1), atol=1e-4)
    assert {*words} == {*tokens.tolist()}
    for token, vector in words.items():
        np.testing.assert_allclose(vector, states[:, tokens == token].mean(1), atol=1e-4)


def test_shift_of_one_word_at_the_last_layer_predicts_its_translation(trained):
    """The means of a one-word text are its hidden states, so their difference maps the word to its fake copy."""
    t = trained.tokenizer
    word = next(w for w in ('the', 'a', 'my', 'at') if len(t.encode([w])[0]) == 1)
    encoder = hidden_states.SentenceEncoder(trained, {'any': [word]})
    ((_, real),) = encoder.batches('real', size=1)
    ((_, fake),) = encoder.batches('fake', size=1)
    difference = language_location.language_mean(encoder, 'fake') - language_location.language_mean(
        encoder, 'real'
    )
    zeros = np.zeros_like(difference[0], np.float32)
    last = encoder.layers - 1
    ordinary = real['ordinary']
    assert ordinary.sum() == 1
    shifted = encoder.predict_shifted(real, last, difference[last].astype(np.float32))[ordinary]
    np.testing.assert_array_equal(shifted, encoder.predict_shifted(fake, last, zeros)[ordinary])
    unshifted = [encoder.predict_shifted(real, layer, zeros) for layer in range(encoder.layers)]
    assert all(np.array_equal(unshifted[0], other) for other in unshifted)


def test_all_languages_use_as_many_sentences_as_the_smallest(trained, caplog):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    with caplog.at_level(logging.INFO):
        encoder = hidden_states.SentenceEncoder(trained, {'a': SENTENCES, 'b': SENTENCES[:2]})
    assert encoder.sentences == 2
    assert [sum(len(i) for i, _ in encoder.batches(name)) for name in 'ab'] == [2, 2]
    assert (
        "using 2 sentences per language, the number of sentences of 'b', which has the fewest" in caplog.text
    )
    assert language_location.probe_language([alignment.sentence_vectors(encoder, name) for name in 'ab'])


def test_empty_and_duplicate_sentences_are_dropped(trained, caplog):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    first = ['the river', 'the bird', 'the river', '', 'a boat', 'a bird']
    second = ['some letter', 'some window', 'a house', 'a letter', 'Some window', 'a window']
    with caplog.at_level(logging.INFO):
        encoder = hidden_states.SentenceEncoder(trained, {'a': first, 'b': second}, is_parallel=True)
    assert 'a: dropped 3 of 6 sentences' in caplog.text
    vectors = [alignment.sentence_vectors(encoder, name) for name in 'ab']
    kept = hidden_states.SentenceEncoder(
        trained, {'a': [first[i] for i in (0, 1, 5)], 'b': [second[i] for i in (0, 1, 5)]}, True
    )
    for name, actual in zip('ab', vectors, strict=True):
        np.testing.assert_allclose(actual, alignment.sentence_vectors(kept, name), atol=1e-5)
    assert alignment.sentence_retrieval(vectors[0], vectors[0]) == [1] * encoder.layers


@pytest.mark.parametrize('text', ['', '我 我 我'])
def test_message_names_a_language_without_known_words(trained, text):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    with pytest.raises(UserError, match="The text of 'zh' has no word that the vocabulary knows"):
        hidden_states.SentenceEncoder(trained, {'en': SENTENCES, 'zh': [text]})


def test_bilingual_model_takes_a_single_text(trained):
    with pytest.raises(UserError, match=r'one text .* but 2 texts \(a, b\) were passed'):
        hidden_states.SentenceEncoder(trained, {'a': SENTENCES, 'b': SENTENCES})


def test_bilingual_model_uses_all_corpora_of_its_pretraining(bilingual, monkeypatch):
    monkeypatch.setattr(
        hidden_states, '_held_out_sentences', lambda *_: {'a': SENTENCES[:3], 'b': SENTENCES[3:]}
    )
    encoder = hidden_states.load_encoder(str(bilingual), {}, limit=4)
    kept = hidden_states.SentenceEncoder(load.read(bilingual), {'any': SENTENCES[:2] + SENTENCES[3:5]})
    vectors = [alignment.sentence_vectors(e, 'real') for e in (encoder, kept)]
    np.testing.assert_array_equal(*vectors)


def test_only_masked_language_models_are_accepted(gpt):
    with pytest.raises(
        UserError, match='is a gpt trained on the task clm. Pass the --workdir of a BERT pretraining'
    ):
        hidden_states.load_encoder(str(gpt), {})


def test_held_out_sentences_come_from_each_corpus(tmp_path):
    for name, words in (('x', 'one two three'), ('y', 'four five six')):
        lines = [f'{words} number {i} of all.' for i in range(200)]
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(lines))
    text = prepare.TextConfig((f'x={tmp_path}/x.txt', f'y={tmp_path}/y.txt'), validation_fraction=0.1)
    sentences = hidden_states._held_out_sentences(text, limit=5)
    assert {k: len(v) for k, v in sentences.items()} == {'x': 5, 'y': 5}
    assert all('one two' in s for s in sentences['x'])
    assert all('four five' in s for s in sentences['y'])


def test_sentences_of_one_or_two_words_are_skipped_in_any_script():
    documents = [['One two. Yes. Now there are three.', '他看着海。海。海很平静。']]
    assert hidden_states._first_sentences(documents, 9) == [
        'Now there are three.',
        '他看着海。',
        '海很平静。',
    ]


def test_hidden_states_of_half_precision_models_are_float32(bilingual):
    trained = load.read(bilingual, overrides=['model.dtype=bfloat16'])
    encoder = hidden_states.SentenceEncoder(trained, {'any': SENTENCES})
    assert encoder.hidden_states(next(encoder.batches('real'))[1]).dtype == np.float32


def test_mean_shift_prints_a_sentence_token_by_token(bilingual):
    words = (
        'bert_jax.bin.mean_shift',
        '--checkpoint',
        bilingual,
        '--limit',
        20,
        '--target',
        'fake',
        '--alphas',
        '0,1',
    )
    done = run_in_process(*words, '--source', 'real', 'The river.')
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == ['layer', '1', 'α=0', 'α=1']
    assert ''.join(line.split()[0].removeprefix('##') for line in lines) == 'theriver.'
    for source, more, message in (
        ('rea', (), 'no language'),
        ('fake', (), "are both 'fake'"),
        ('real', ('--layer', 9), '0 to 2'),
        ('real', (' ',), "The sentence ' ' has no word that the vocabulary knows"),
    ):
        assert message in run_in_process(*words, '--source', source, 'The river.', *more).stderr
    assert (
        'real: truncated 1 of 1 sentences'
        in run_in_process(*words, '--source', 'real', 'The river. ' * 40).stderr
    )


@pytest.mark.parametrize(
    ('limit', 'message'), [(0, 'Set it to 1 or more'), (1, 'needs two or more sentences per language')]
)
def test_too_few_sentences_raise(bilingual, tmp_path, limit, message):
    done = run_in_process(
        'bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', '--limit', limit
    )
    assert message in done.stderr


def test_ranks_count_nearer_vectors():
    a = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert alignment.ranks(a, a).tolist() == [1, 1, 1]
    assert alignment.ranks(a, a[[1, 0, 2]]).tolist() == [3, 3, 1]
    assert alignment.ranks(np.ones((3, 2)), np.ones((3, 2))).tolist() == [2, 2, 2]


def test_chance_mrr_is_that_of_a_random_order():
    rng = np.random.default_rng(0)
    sampled = [1 / alignment.ranks(*rng.normal(size=(2, 20, 50))) for _ in range(200)]
    assert alignment.chance_mrr(20) == pytest.approx(np.mean(sampled), rel=0.05)


def test_dictionary_comes_from_parallel_sentences(trained):
    swapped = {'river': 'letter', 'bird': 'window', 'boat': 'house', 'the': 'some'}
    left = [' '.join(pair) for pair in itertools.permutations(swapped, 2)]
    right = [' '.join(swapped[w] for w in s.split()) for s in left]
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    encoder = hidden_states.SentenceEncoder(trained, {'a': left, 'b': right}, is_parallel=True)
    encoded = {w: encoder.tokenizer.encode([w])[0].tolist() for w in (*swapped, *swapped.values())}
    translations = alignment.build_dictionary(encoder, 'a', 'b')
    single = [(a, b) for a, b in swapped.items() if len(encoded[a]) == len(encoded[b]) == 1]
    assert len(single) >= 2
    for a, b in single:
        assert translations[encoded[a][0]] == encoded[b][0]
    assert {*translations} == {encoded[a][0] for a, _ in single}  # no pieces of the other words


def _monolingual(experiment):
    import dataclasses

    from bert_jax.tasks import mlm

    return dataclasses.replace(experiment, task=mlm.Config(sentence_objective='none'))


def test_command_writes_table_numbers_and_figure(bilingual, tmp_path):
    done = run_in_process(
        'bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', '--alphas', '1,2',
        '--limit', 40,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'x/language.json').read_text())
    assert 30 < results['sentences'] <= 40  # without duplicates
    (pair,) = results['pairs']
    chance = f'word alignment {np.mean(1 / np.arange(1, 1 + pair["dictionary_size"])):.2%} (of {pair["dictionary_size"]} words)'
    assert (
        f'Chance: language probe 50.00%; {chance}; sentence retrieval {1 / results["sentences"]:.2%}.'
        in done.stdout
    )
    assert len(pair['shifts']) == 2 * 2 * results['layers']
    assert sum(line.startswith('|') for line in done.stdout.splitlines()) == 2 + results['layers']
    assert (tmp_path / 'x/language.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (('--alphas', '1,x'), 'numbers with commas'),
        (('--alphas', '1,inf'), 'Use finite numbers'),
        (('--alphas', '1,nan'), 'Use finite numbers'),
        (('--alphas', '1,2,1.0'), 'contains 1 twice'),
        (('--text', 'en=a.txt', '--text', 'en=b.txt'), "set twice for 'en'"),
        (('--text', 'a.txt'), 'is not of the form NAME=SOURCE'),
    ],
)
def test_bad_flags_are_one_line_errors(bilingual, tmp_path, flags, message):
    done = run_in_process(
        'bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', *flags
    )
    assert done.returncode == 1
    assert message in done.stderr


def test_study_needs_two_languages(pretrained, tmp_path):
    with pytest.raises(UserError, match='needs two or more languages'):
        from bert_jax.studies import language

        language.study(hidden_states.load_encoder(str(pretrained), {}, limit=20), [1.0])


def test_task_of_one_language_is_scored_in_the_other(bilingual, labeled, pretrained, tmp_path):
    assert finetune(tmp_path / 'run', bilingual, labeled, 'train.steps=4') == 0
    words = (
        'bert_jax.bin.eval_classify', f'--config={TINY}:classify', f'--config.data.source={labeled}',
        f'--out={tmp_path}/scores.json',
    )  # fmt: skip
    losses = []
    for flags in ((), ('--config.data.fake_language=shared',)):
        done = run_in_process(*words, f'--checkpoint={tmp_path}/run', *flags)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads((tmp_path / 'scores.json').read_text())['scores']['loss'])
    assert losses[0] != losses[1]
    assert finetune(tmp_path / 'other', pretrained, labeled, 'train.steps=4') == 0
    done = run_in_process(*words, f'--checkpoint={tmp_path}/other', '--config.data.fake_language=shared')
    assert 'needs a model that was pretrained with task.name=bilingual' in done.stderr
