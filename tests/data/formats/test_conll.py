"""Words and tags of CoNLL files and their relatives; comments, counters and the scheme are recognized."""

import io

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data.formats import common, conll

CONLLU = (
    '# text = vámonos al\n'
    '1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n'
    '1\tvamos\tir\tVERB\tVB\t_\t0\troot\t_\t_\n'
    '2\tnos\tnosotros\tPRON\tPR\t_\t1\tobj\t_\t_\n'
    '2.1\tgone\t_\tVERB\t_\t_\t_\t_\t_\t_\n'
    '\n'
)


def read(text, path='a.conll'):
    common.log_once.cache_clear()
    return list(conll.read(io.StringIO(text, newline=''), path))


def read_words(text, path='a.conll'):
    """Return the words and tags of each sentence, as text."""
    found = [fields for _, fields in read(text, path)]
    return [' '.join(f'{w}/{t}' for w, t in zip(f['tokens'], f['tags'], strict=True)) for f in found]


@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_tags_are_in_the_last_column(ending):
    text = '-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\nPeter NNP I-NP B-PER\n'
    assert read_words(text.replace('\n', ending)) == ['EU/B-ORG rejects/O', 'Peter/B-PER']


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('New York\tB-LOC\nis\tO\n', 'New York/B-LOC is/O'),
        ('a\u00a0b O\nc\u3000d  O\n', 'a\u00a0b/O c\u3000d/O'),
        ('# id 1\tdomain=en\nx _ _ O\n# _ _ O\n', 'x/O #/O'),
        ('# sent_id = 1\n# text = #fun with Tom\n#fun O\nwith O\nTom B-PER\n', '#fun/O with/O Tom/B-PER'),
        ('# sent_id = 3\n# text = # Mia sang\n# O\nMia B-PER\nsang O\n', '#/O Mia/B-PER sang/O'),
        ('# text =\n# A line of five words\na NN I-NP O\n# NN I-NP O\n', 'a/O #/O'),
        ('###MEDLINE:11111111\n\nIL-2\tB-DNA\ngene\tI-DNA\n', 'IL-2/B-DNA gene/I-DNA'),
        ('#begin document (a); part 000\na b O\n#end document\n', 'a/O'),
    ],
)
def test_columns_and_comments(text, expected):
    assert read_words(text) == [expected]


def test_all_columns_are_fields():
    ((_, fields),) = read('EU NNP B-ORG\nrejects VBZ O\n')
    assert fields == {
        'tokens': ['EU', 'rejects'],
        'tags': ['B-ORG', 'O'],
        'column1': ['EU', 'rejects'],
        'column2': ['NNP', 'VBZ'],
        'column3': ['B-ORG', 'O'],
    }


def test_sentences_without_tags():
    assert [(f['tokens'], f.get('tags')) for _, f in read('New\nYork\n\na O\n')] == [
        (['New', 'York'], None),
        (['a'], ['O']),
    ]


@pytest.mark.parametrize(
    ('text', 'columns'),
    [
        # Annotators follow some of the tags.
        ('# text = Anna ran\n1\tAnna\tB-PER\t-\tmaria\n2\tran\tO\n\n1\tOh\tO\n', (2, 3)),
        ('1\tAnna\tB-PER\n2\tran\tO\n\n1\tOh\tO\n', (2, 3)),
        ('1 Anna NNP B-PER\n2 ran VBD O\n\n1 Oh UH O\n', (2, 4)),
        ('0\tAnna\tB-PER\tO\n1\tran\tO\tO\n\n0\tOh\tO\tO\n', (2, 3)),
        ('1-2\tAnnaran\t_\n1\tAnna\tB-PER\n2\tran\tO\n\n1\tOh\tO\n', (2, 3)),
    ],
)
def test_column_that_counts_words_is_skipped(text, columns, caplog):
    caplog.set_level('INFO')
    assert read_words(text) == ['Anna/B-PER ran/O', 'Oh/O']
    assert f'words are read from column {columns[0]} and tags from column {columns[1]}' in caplog.text


def test_tags_before_words(caplog):
    caplog.set_level('INFO')
    assert read_words('O\twhat\nO\tdid\nB-ACTOR\tAnna\n\nO\tO\n') == ['what/O did/O Anna/B-ACTOR', 'O/O']
    assert 'words are read from column 2 and tags from column 1' in caplog.text
    assert read_words('O B-PER\nI-5 O\n') == ['O/B-PER I-5/O']


def test_tags_of_words_after_a_counter_need_not_be_entities():
    assert read_words('1 Anna NNP x\n2 ran VBD y\n') == ['Anna/x ran/y']


def test_counter_without_tags():
    ((_, fields),) = read('1\tAnna\n2\tran\n')
    assert (fields['tokens'], fields.get('tags')) == (['Anna', 'ran'], None)


def test_numbers_as_words_are_not_a_counter():
    assert read_words('1 O\n\n1 O\n2 O\n\na O\nb O\n\nc O\nd O\n') == ['1/O', '1/O 2/O', 'a/O b/O', 'c/O d/O']


def test_sentence_that_does_not_count_like_the_others_is_invalid():
    found = read('1\ta\tO\n2\tb\tO\n\n1\tc\tO\n2\td\tO\n\n1\te\tO\n3\tf\tO\n')
    assert 'does not count' in found[2][1].problem
    assert found[2][0] == 'line 7'


@pytest.mark.parametrize(
    ('text', 'line', 'problem'),
    [
        ('a O\nb\n', 2, 'has one column, but other lines have 2'),
        ('a O\nb O\n\nNew York B-LOC\n', 4, 'has 3 columns, but other lines have 2'),
        ('EU NNP I-NP B-ORG\nGerman JJ I-NP O\nrejects I-VP O\n', 3, 'has 3 columns, but other lines have 4'),
        ('New York\tB-LOC\nis\tO\nfar O\n', 3, 'has one column'),
    ],
)
def test_lines_of_another_width_are_invalid(text, line, problem):
    place, invalid = read(text)[-1]
    assert place == f'line {line}'
    assert problem in invalid.problem


@pytest.mark.parametrize('path', ['a.conllu', 'a.conll', 'a.iob2', 'a.CONLLU'])
def test_conllu_has_named_columns_under_any_suffix(path):
    ((_, fields),) = read(CONLLU, path)
    assert fields['tokens'] == ['vamos', 'nos']
    assert fields['upos'] == ['VERB', 'PRON']
    assert fields['xpos'] == ['VB', 'PR']
    assert fields['deprel'] == ['root', 'obj']


def test_conllu_plus_names_its_columns():
    text = '# global.columns = ID FORM UPOS NER:TAG\n# text = Anna\n1\tAnna\tPROPN\tB-PER\n'
    ((place, fields),) = read(text, 'a.conllup')
    assert place == 'line 3'
    assert fields == {'id': ['1'], 'tokens': ['Anna'], 'upos': ['PROPN'], 'ner:tag': ['B-PER']}
    with pytest.raises(UserError, match='no columns ID and FORM'):
        read('# global.columns = ID LEMMA\n1\ta\n')


@pytest.mark.parametrize('number', ['', 'a', '{"a":1', '1-', '²'])
def test_conllu_line_with_another_id_is_invalid(number):
    ((place, invalid),) = read('1\tDogs' + 8 * '\t_' + f'\n{number}\tbark' + 8 * '\t_', 'a.conllu')
    assert place == 'line 2'
    assert invalid.problem.startswith(f'has the ID {number!r}.')


def test_conllu_line_of_another_width_is_invalid():
    ((place, invalid),) = read('1\ta\n', 'a.conllu')
    assert place == 'line 1'
    assert 'has 2 columns instead of 10' in invalid.problem


def test_comment_of_conllu_that_is_not_utf8_is_invalid():
    ((place, invalid),) = read('# \udcff\n', 'a.conllu')
    assert (place, invalid) == ('line 1', common.NOT_UTF8)
