"""What a model makes of several languages: alignment, where the language sits, and moving it."""

import itertools
import json
import logging

import numpy as np
import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import prepare
from bert_jax.modeling import module
from bert_jax.studies import alignment, hidden_states, language_location
from bert_jax.train import load
from tests.runs import SAVED, TINY, finetune, run_here


@pytest.fixture(scope='module')
def trained(bilingual):
    return load.read(bilingual)


PARTS = ('The river finds the yellow boat.', 'My neighbour carries a long letter again.', 'A bird.')
SENTENCES = [f'{a} {b}' for a in PARTS for b in PARTS]


@pytest.fixture(scope='module')
def reader(trained):
    return hidden_states.Reader(trained, {'any': SENTENCES})


def test_a_model_of_two_languages_reads_the_same_sentences_in_both(reader):
    assert reader.languages == ('real', 'fake')
    assert reader.parallel
    for (i, real), (j, fake) in zip(reader.batches('real'), reader.batches('fake'), strict=True):
        assert i.tolist() == j.tolist()
        np.testing.assert_array_equal(fake['tokens'], reader.disguise.ids(real['tokens']))


def test_ordinary_tokens_are_those_of_the_text(reader):
    found = sum(batch['ordinary'].sum() for _, batch in reader.batches('real', size=4))
    assert found == sum(map(len, reader.tokenizer.encode(SENTENCES)))


def test_vectors_are_means_of_hidden_states(reader, trained):
    model = module.merge(trained.graph, trained.params)
    vectors = alignment.sentence_vectors(reader, 'real')
    mean = language_location.means(reader, 'real')
    words = alignment.word_vectors(reader, 'real', least=1)
    t = reader.tokenizer
    tokens, states = [], []
    for i, ids in enumerate(t.encode(SENTENCES)):
        row = np.concatenate([[t.cls], ids, [t.sep]])[None].astype(np.int32)
        hidden = np.stack(model.bert(row).hidden_states)[:, 0, 1:-1]
        np.testing.assert_allclose(vectors[:, i], hidden.mean(1), atol=1e-4)
        tokens.append(ids)
        states.append(hidden)
    tokens, states = np.concatenate(tokens), np.concatenate(states, 1)
    np.testing.assert_allclose(mean, states.mean(1), atol=1e-4)
    assert {*words} == {*tokens.tolist()}
    for token, vector in words.items():
        np.testing.assert_allclose(vector, states[:, tokens == token].mean(1), atol=1e-4)


def test_at_the_last_layer_the_mean_of_one_word_is_that_word(trained):
    """With one word of text the difference of the means leads exactly from the word to its double."""
    t = trained.tokenizer
    word = next(w for w in ('the', 'a', 'my', 'at') if len(t.encode([w])[0]) == 1)
    reader = hidden_states.Reader(trained, {'any': [word]})
    ((_, real),) = reader.batches('real', size=1)
    ((_, fake),) = reader.batches('fake', size=1)
    difference = language_location.means(reader, 'fake') - language_location.means(reader, 'real')
    nothing = np.zeros_like(difference[0], np.float32)
    last = reader.layers - 1
    ordinary = real['ordinary']
    assert ordinary.sum() == 1
    moved = reader.shifted(real, last, difference[last].astype(np.float32))[ordinary]
    np.testing.assert_array_equal(moved, reader.shifted(fake, last, nothing)[ordinary])
    unmoved = [reader.shifted(real, layer, nothing) for layer in range(reader.layers)]
    assert all(np.array_equal(unmoved[0], other) for other in unmoved)


def test_all_languages_are_read_at_the_length_of_the_shortest(trained, caplog):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    with caplog.at_level(logging.INFO):
        reader = hidden_states.Reader(trained, {'a': SENTENCES, 'b': SENTENCES[:2]})
    assert reader.sentences == 2
    assert [sum(len(i) for i, _ in reader.batches(name)) for name in 'ab'] == [2, 2]
    assert "cut to the 2 sentences of 'b'" in caplog.text
    assert language_location.probe([alignment.sentence_vectors(reader, name) for name in 'ab'])


def test_what_is_empty_or_there_before_is_left_out(trained, caplog):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    first = ['the river', 'the bird', 'the river', '', 'a boat', 'a bird']
    second = ['some letter', 'some window', 'a house', 'a letter', 'Some window', 'a window']
    with caplog.at_level(logging.INFO):
        reader = hidden_states.Reader(trained, {'a': first, 'b': second}, parallel=True)
    assert 'a: 3 of 6 sentences are left out' in caplog.text
    vectors = [alignment.sentence_vectors(reader, name) for name in 'ab']
    kept = hidden_states.Reader(
        trained, {'a': [first[i] for i in (0, 1, 5)], 'b': [second[i] for i in (0, 1, 5)]}, True
    )
    for name, found in zip('ab', vectors, strict=True):
        np.testing.assert_allclose(found, alignment.sentence_vectors(kept, name), atol=1e-5)
    assert alignment.sentence_retrieval(vectors[0], vectors[0]) == [1] * reader.layers


@pytest.mark.parametrize('text', ['', '我 我 我'])
def test_a_language_that_the_vocabulary_does_not_know_is_named(trained, text):
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    with pytest.raises(UserError, match="The text of 'zh' has no word that the vocabulary knows"):
        hidden_states.Reader(trained, {'en': SENTENCES, 'zh': [text]})


def test_a_model_of_two_languages_reads_one_text(trained):
    with pytest.raises(UserError, match=r'one text, not 2 \(a, b\): give one by --text'):
        hidden_states.Reader(trained, {'a': SENTENCES, 'b': SENTENCES})


def test_a_model_of_two_languages_reads_all_corpora_of_its_pretraining(bilingual, monkeypatch):
    monkeypatch.setattr(hidden_states, '_held_out', lambda *_: {'a': SENTENCES[:3], 'b': SENTENCES[3:]})
    reader = hidden_states.open_reader(str(bilingual), {}, limit=4)
    kept = hidden_states.Reader(load.read(bilingual), {'any': SENTENCES[:2] + SENTENCES[3:5]})
    vectors = [alignment.sentence_vectors(r, 'real') for r in (reader, kept)]
    np.testing.assert_array_equal(*vectors)


def test_only_a_masked_language_model_is_read(gpt):
    with pytest.raises(UserError, match='is a gpt of the task clm: give the --workdir of a BERT pretraining'):
        hidden_states.open_reader(str(gpt), {})


def test_what_was_held_out_of_each_corpus_is_read(tmp_path):
    for name, words in (('x', 'one two three'), ('y', 'four five six')):
        lines = [f'{words} number {i} of all.' for i in range(200)]
        (tmp_path / f'{name}.txt').write_text('\n\n'.join(lines))
    text = prepare.TextConfig((f'x={tmp_path}/x.txt', f'y={tmp_path}/y.txt'), validation_fraction=0.1)
    found = hidden_states._held_out(text, limit=5)
    assert {k: len(v) for k, v in found.items()} == {'x': 5, 'y': 5}
    assert all('one two' in s for s in found['x'])
    assert all('four five' in s for s in found['y'])


def test_sentences_of_a_word_or_two_are_left_out_in_any_script():
    documents = [['One two. Yes. Now there are three.', '他看着海。海。海很平静。']]
    assert hidden_states._first(documents, 9) == ['Now there are three.', '他看着海。', '海很平静。']


def test_half_precision_reads_as_float32(bilingual):
    trained = load.read(bilingual, overrides=['model.dtype=bfloat16'])
    reader = hidden_states.Reader(trained, {'any': SENTENCES})
    assert reader.hidden(next(reader.batches('real'))[1]).dtype == np.float32


def test_a_sentence_is_printed_token_by_token(bilingual):
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
    done = run_here(*words, '--source', 'real', 'The river.')
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ['layer', '1', 'α=0', 'α=1']
    assert ''.join(line.split()[0].removeprefix('##') for line in lines) == 'theriver.'
    for source, more, said in (
        ('rea', (), 'no language'),
        ('fake', (), 'are one language'),
        ('real', ('--layer', 9), '0 to 2'),
        ('real', (' ',), "The sentence ' ' has no word that the vocabulary knows"),
    ):
        assert said in run_here(*words, '--source', source, 'The river.', *more).stderr
    assert 'real: 1 of 1 sentences are cut' in run_here(*words, '--source', 'real', 'The river. ' * 40).stderr


@pytest.mark.parametrize(('limit', 'said'), [(0, 'give 1 or more'), (1, 'too few to tell it by')])
def test_too_few_sentences(bilingual, tmp_path, limit, said):
    done = run_here(
        'bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', '--limit', limit
    )
    assert said in done.stderr


def test_ranks_count_what_lies_nearer():
    a = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert alignment.ranks(a, a).tolist() == [1, 1, 1]
    assert alignment.ranks(a, a[[1, 0, 2]]).tolist() == [3, 3, 1]
    assert alignment.ranks(np.ones((3, 2)), np.ones((3, 2))).tolist() == [2, 2, 2]


def test_chance_is_the_mean_reciprocal_rank_of_a_random_order():
    rng = np.random.default_rng(0)
    drawn = [1 / alignment.ranks(*rng.normal(size=(2, 20, 50))) for _ in range(200)]
    assert alignment.chance(20) == pytest.approx(np.mean(drawn), rel=0.05)


def test_a_dictionary_comes_from_parallel_sentences(trained):
    swapped = {'river': 'letter', 'bird': 'window', 'boat': 'house', 'the': 'some'}
    left = [' '.join(pair) for pair in itertools.permutations(swapped, 2)]
    right = [' '.join(swapped[w] for w in s.split()) for s in left]
    trained = trained._replace(experiment=_monolingual(trained.experiment))
    reader = hidden_states.Reader(trained, {'a': left, 'b': right}, parallel=True)
    encoded = {w: reader.tokenizer.encode([w])[0].tolist() for w in (*swapped, *swapped.values())}
    found = alignment.dictionary(reader, 'a', 'b')
    single = [(a, b) for a, b in swapped.items() if len(encoded[a]) == len(encoded[b]) == 1]
    assert len(single) >= 2
    for a, b in single:
        assert found[encoded[a][0]] == encoded[b][0]
    assert {*found} == {encoded[a][0] for a, _ in single}  # no pieces of the other words


def _monolingual(experiment):
    import dataclasses

    from bert_jax.tasks import mlm

    return dataclasses.replace(experiment, task=mlm.Config(next='none'))


def test_the_door_writes_table_numbers_and_figure(bilingual, tmp_path):
    done = run_here(
        'bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', '--alphas', '1,2',
        '--limit', 40,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'x/language.json').read_text())
    assert found['sentences'] == 39  # one is there twice
    (pair,) = found['pairs']
    chance = f'word alignment {np.mean(1 / np.arange(1, 1 + pair["words"])):.2%} (of {pair["words"]} words)'
    assert f'By chance: tells the language 50.00%; {chance}; sentence retrieval 2.56%.' in done.stdout
    assert len(pair['shifts']) == 2 * 2 * found['layers']
    assert sum(line.startswith('|') for line in done.stdout.splitlines()) == 2 + found['layers']
    assert (tmp_path / 'x/language.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (('--alphas', '1,x'), 'numbers with commas'),
        (('--alphas', '1,inf'), 'give finite numbers'),
        (('--alphas', '1,nan'), 'give finite numbers'),
        (('--alphas', '1,2,1.0'), 'has 1 twice'),
        (('--text', 'en=a.txt', '--text', 'en=b.txt'), "given twice for 'en'"),
        (('--text', 'a.txt'), 'write --text=de=FILE'),
    ],
)
def test_bad_flags_are_sentences(bilingual, tmp_path, words, said):
    done = run_here('bert_jax.bin.study_language', '--checkpoint', bilingual, '--out', tmp_path / 'x', *words)
    assert done.returncode == 1
    assert said in done.stderr


def test_one_language_is_too_few(pretrained, tmp_path):
    with pytest.raises(UserError, match='one language only'):
        from bert_jax.studies import language

        language.study(hidden_states.open_reader(str(pretrained), {}, limit=20), [1.0])


def test_a_use_learnt_in_one_language_is_scored_in_the_other(bilingual, labelled, pretrained, tmp_path):
    assert finetune(tmp_path / 'run', bilingual, labelled, 'train.steps=4', SAVED) == 0
    words = (
        'bert_jax.bin.eval_classify', f'--config={TINY}:classify', f'--config.data.source={labelled}',
        f'--out={tmp_path}/scores.json',
    )  # fmt: skip
    losses = []
    for flags in ((), ('--config.data.fake=shared',)):
        done = run_here(*words, f'--checkpoint={tmp_path}/run', *flags)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads((tmp_path / 'scores.json').read_text())['scores']['loss'])
    assert losses[0] != losses[1]
    assert finetune(tmp_path / 'other', pretrained, labelled, 'train.steps=4', SAVED) == 0
    done = run_here(*words, f'--checkpoint={tmp_path}/other', '--config.data.fake=shared')
    assert 'pretrained on the task bilingual, which this one was not' in done.stderr
