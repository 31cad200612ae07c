"""Multiple choice: one row per ending, labeled with the number of the correct one."""

import pytest

from bert_jax.core.errors import UserError
from bert_jax.data import multiple_choice
from bert_jax.data.multiple_choice import ChoiceConfig
from bert_jax.data.records import Record
from bert_jax.data.rows import unpack


def decode(out, word_tokenizer):
    rows = [[unpack(row) for row in group] for group in out]
    return [
        [' '.join(word_tokenizer.token(t) for t in r.tokens[: r.length]) for r in group] for group in rows
    ]


def test_endings_in_one_list(word_tokenizer):
    found = [Record('a', {'text': 'w1', 'endings': ['w2 w3', 'w4'], 'label': 1})]
    out = multiple_choice.make_rows(found, ChoiceConfig('x.jsonl', length=8), word_tokenizer, True)
    assert out.shape == (1, 2, 12)
    assert decode(out, word_tokenizer) == [['[CLS] w1 [SEP] w2 w3 [SEP]', '[CLS] w1 [SEP] w4 [SEP]']]
    assert out[0, :, 2].tolist() == [1, 1]


def test_endings_in_several_fields_with_a_shared_prefix(word_tokenizer):
    fields = {'sent1': 'w1', 'sent2': 'w9', 'ending0': 'w2', 'ending1': 'w3', 'ending2': 'w4', 'label': '2'}
    data = ChoiceConfig(
        'x.csv', length=8, text='sent1', ending_prefix='sent2', endings=('ending0', 'ending1', 'ending2')
    )
    out = multiple_choice.make_rows([Record('a', fields)], data, word_tokenizer, True)
    assert decode(out, word_tokenizer) == [[f'[CLS] w1 [SEP] w9 w{i} [SEP]' for i in (2, 3, 4)]]
    assert out[0, 0, 2] == 2


@pytest.mark.parametrize(
    ('second', 'message'),
    [
        ({'text': 'w1', 'endings': ['w2'] * 3, 'label': 0}, 'b has 3 endings, but the first record has 2'),
        ({'text': 'w1', 'endings': ['w2', 'w3'], 'label': 2}, 'b has the unknown label 2: known: 0, 1'),
    ],
)
def test_invalid_record_is_named(word_tokenizer, second, message):
    found = [Record('a', {'text': 'w1', 'endings': ['w2', 'w3'], 'label': 0}), Record('b', second)]
    with pytest.raises(UserError, match=message):
        multiple_choice.make_rows(found, ChoiceConfig('x.jsonl', length=8), word_tokenizer, True)


@pytest.mark.parametrize(
    ('endings', 'problem'),
    [
        ([], 'does not have two or more endings'),
        (['a'], 'does not have two or more endings'),
        (None, "has null in the field 'endings', where a list of endings belongs"),
        (
            'a b',
            "has the text 'a b' in the field 'endings', where a list of endings belongs. Set data.endings to one field for "
            'each ending, such as data.endings=a,b',
        ),
        (['a', None], "has null in the list 'endings', where text belongs"),
        (['a', 3], "has the number 3 in the list 'endings', where text belongs"),
    ],
)
def test_endings_that_are_not_two_texts_raise(word_tokenizer, endings, problem):
    found = [Record('line 3,', {'text': 'w1', 'endings': endings, 'label': 0})]
    with pytest.raises(UserError, match=f'line 3, {problem}'):
        multiple_choice.make_rows(found, ChoiceConfig('x.jsonl'), word_tokenizer, True)
