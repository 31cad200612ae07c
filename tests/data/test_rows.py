"""Rows: packing text into fixed-length examples, tested on documents in which every token is unique."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import rows as rows_lib
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.data import tokenizer_training
from bert_jax.data.rows import HEADER, SegmentRows, truncate_pair

FIRST_WORD = 5  # lower ids are special tokens


def numbered(sizes):
    """Make documents with sentences of the given sizes; the token ids are consecutive and occur once."""
    documents, start = [], FIRST_WORD
    for sentence_sizes in sizes:
        document = []
        for size in sentence_sizes:
            document.append(np.arange(start, start + size, dtype=np.int32))
            start += size
        documents.append(document)
        start += 1  # the ids of two documents are not consecutive
    return documents


def corpus(seed=0, documents=25, sentences=12, longest=9):
    rng = np.random.default_rng(seed)
    return numbered([rng.integers(1, longest + 1, sentences) for _ in range(documents)])


def make_rows(maker, documents, tokenizer, seed=0):
    return [rows_lib.unpack(r) for r in maker(documents, tokenizer, np.random.default_rng(seed))]


def parts(row):
    """Return the ids of the two segments without special tokens."""
    return row.tokens[1 : row.first_length - 1], row.tokens[row.first_length : row.length - 1]


def document_of_token(documents):
    """Map every token to the index of its document."""
    return {int(t): i for i, d in enumerate(documents) for s in d for t in s}


def is_run(ids):
    return bool((np.diff(ids) == 1).all())


def check_layout(row, length, tokenizer):
    assert row.tokens.shape == (length,)
    assert row.length <= length
    assert row.tokens[0] == tokenizer.cls
    assert row.tokens[row.length - 1] == tokenizer.sep
    assert row.tokens[row.first_length - 1] == tokenizer.sep
    assert (row.tokens[row.length :] == tokenizer.pad).all()
    a, b = parts(row)
    assert (a >= FIRST_WORD).all()
    assert (b >= FIRST_WORD).all()


def test_pack_two_texts(word_tokenizer):
    row = rows_lib.pack(np.array([7, 8]), np.array([9]), 1, 9, word_tokenizer)
    assert row.tolist() == [
        6,
        4,
        1,
        0,
        word_tokenizer.cls,
        7,
        8,
        word_tokenizer.sep,
        9,
        word_tokenizer.sep,
        *[word_tokenizer.pad] * 3,
    ]
    tokens, length, first_length, label, corpus_index = rows_lib.unpack(row)
    assert (tokens.tolist(), length, first_length, label, corpus_index) == (row[HEADER:].tolist(), 6, 4, 1, 0)
    assert tokens.dtype == np.int32


def test_pack_one_text(word_tokenizer):
    row = rows_lib.pack(np.array([7, 8]), None, 3, 5, word_tokenizer)
    assert row.tolist() == [4, 4, 3, 0, word_tokenizer.cls, 7, 8, word_tokenizer.sep, word_tokenizer.pad]


def test_pack_rejects_text_that_does_not_fit(word_tokenizer):
    with pytest.raises(ValueError, match='shape'):
        rows_lib.pack(np.arange(5, 9), None, 0, 5, word_tokenizer)


@pytest.mark.parametrize('objective', ['random', 'swap', 'none'])
@pytest.mark.parametrize('length', [8, 31, 64])
def test_row_layout(word_tokenizer, objective, length):
    found = make_rows(SegmentRows(length, objective), corpus(), word_tokenizer)
    assert len(found) > 10
    for row in found:
        check_layout(row, length, word_tokenizer)
        a, b = parts(row)
        assert len(a) > 0
        assert (len(b) > 0) == (objective != 'none')
        assert row.label in (0, 1)


@pytest.mark.parametrize('objective', ['random', 'swap', 'none'])
def test_same_seed_makes_the_same_rows(word_tokenizer, objective):
    maker = SegmentRows(32, objective)
    first, repeated, other = (
        list(maker(corpus(), word_tokenizer, np.random.default_rng(s))) for s in (3, 3, 4)
    )
    assert np.array_equal(first, repeated)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_positive_pairs_are_consecutive_text_of_one_document(word_tokenizer):
    documents = corpus()
    owner = document_of_token(documents)
    # Rows of 64 tokens hold most pairs without truncation.
    positive = [
        parts(r)
        for r in make_rows(SegmentRows(64, short_sequence_rate=0.5), documents, word_tokenizer)
        if r.label == 0
    ]
    assert len(positive) > 10
    gaps = 0
    for a, b in positive:
        assert is_run(a)
        assert is_run(b)
        assert len({owner[t] for t in [*a.tolist(), *b.tolist()]}) == 1
        assert b[0] > a[-1]
        gaps += b[0] != a[-1] + 1
    assert gaps < len(positive) / 4, 'only truncated pairs have a gap'


def test_short_positive_pairs_have_no_gap(word_tokenizer):
    documents = numbered([[2, 3, 2]] * 50)
    positive = [
        parts(r)
        for r in make_rows(SegmentRows(32, negative_rate=0, short_sequence_rate=0), documents, word_tokenizer)
    ]
    assert len(positive) == 50
    assert all(is_run(np.concatenate(pair)) and len(np.concatenate(pair)) == 7 for pair in positive)


def test_segments_are_split_at_every_sentence_boundary(word_tokenizer):
    documents = numbered([[1, 1, 1, 1]] * 300)
    found = make_rows(SegmentRows(16, negative_rate=0, short_sequence_rate=0), documents, word_tokenizer)
    first_lengths = collections.Counter(len(parts(r)[0]) for r in found)
    assert set(first_lengths) == {1, 2, 3}
    assert min(first_lengths.values()) > 70


def test_random_segments_are_consecutive_text_of_another_document(word_tokenizer):
    documents = corpus()
    owner = document_of_token(documents)
    other = [parts(r) for r in make_rows(SegmentRows(32), documents, word_tokenizer) if r.label == 1]
    assert len(other) > 10
    for a, b in other:
        assert is_run(a)
        assert is_run(b)
        assert {owner[t] for t in a.tolist()}.isdisjoint({owner[t] for t in b.tolist()})


def test_random_segments_come_from_every_document_and_position(word_tokenizer):
    documents = numbered([[3] * 8] * 6)
    owner = document_of_token(documents)
    found = make_rows(
        SegmentRows(24, negative_rate=1, short_sequence_rate=0), documents * 100, word_tokenizer
    )
    pairs = {(owner[int(a[0])], owner[int(b[0])]) for a, b in map(parts, found)}
    assert {(i, j) for i in range(6) for j in range(6) if i != j} <= pairs
    sentences = {t for d in documents for s in d for t in s.tolist()}
    assert {t for _, b in map(parts, found) for t in b.tolist()} == sentences


def labels(found):
    return np.array([r.label for r in found])


@pytest.mark.parametrize('rate', [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize('objective', ['random', 'swap'])
def test_negative_rate_is_the_fraction_of_label_1(word_tokenizer, objective, rate):
    documents = numbered([[2] * 200] * 6)  # long enough that the ends of documents hardly matter
    documents = documents * 5
    maker = SegmentRows(16, objective, negative_rate=rate, short_sequence_rate=0)
    found = labels(make_rows(maker, documents, word_tokenizer))
    # A single last sentence can only be paired with another document: at most one row per document.
    extra = len(documents) / len(found) if objective == 'random' else 0
    assert len(found) > 800
    assert rate - 0.06 < found.mean() < rate + 0.06 + extra
    if rate in (0, 1):
        assert rate <= found.mean() <= rate + extra


def test_short_sequence_rate_is_the_fraction_of_short_documents(word_tokenizer):
    documents = numbered([[1] * 100]) * 1000
    for rate in (0.0, 0.1, 0.5):
        maker = SegmentRows(28, 'none', short_sequence_rate=rate)
        targets = []
        for i in range(len(documents)):
            rows = maker._segments(documents, i, 26, np.random.default_rng(i))
            *sizes, _ = (len(a) for a, _, _ in rows)  # the last row of a document is a remainder
            targets += {*sizes}
        # A document has one target length. Of the lengths 2 to 26, all but the last are shorter.
        assert len(targets) == len(documents)
        short = [n for n in targets if n < 26]
        assert len(short) / len(targets) == pytest.approx(rate * 24 / 25, abs=0.03)
        if rate:
            assert np.mean(short) == pytest.approx((2 + 25) / 2, abs=1.5)
            assert {*short} == {*range(2, 26)}


def test_without_short_rows_every_row_is_full(word_tokenizer):
    documents = numbered([[1] * 260])
    found = make_rows(SegmentRows(28, 'none', short_sequence_rate=0), documents, word_tokenizer)
    assert [r.length for r in found] == [28] * 10


def test_one_segment_rows_contain_every_token_once(word_tokenizer):
    rng = np.random.default_rng(1)
    documents = numbered([rng.integers(1, 60, rng.integers(1, 9)) for _ in range(12)])
    for length in (8, 17, 40):
        found = make_rows(SegmentRows(length, 'none', short_sequence_rate=0.3), documents, word_tokenizer)
        seen = np.concatenate([r.tokens[1 : r.first_length - 1] for r in found])
        assert np.array_equal(seen, np.concatenate([s for d in documents for s in d]))
        assert all(r.label == 0 and r.first_length == r.length for r in found)


@given(st.data())
def test_one_segment_rows_lose_nothing_for_any_sizes(word_tokenizer, data):
    sizes = data.draw(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=4))
    maker = SegmentRows(
        data.draw(st.integers(5, 40)), 'none', short_sequence_rate=data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    )
    documents = numbered(sizes)
    found = make_rows(maker, documents, word_tokenizer)
    seen = np.concatenate([r.tokens[1 : r.first_length - 1] for r in found])
    assert np.array_equal(seen, np.concatenate([s for d in documents for s in d]))


@pytest.mark.parametrize('objective', ['random', 'swap'])
def test_pairs_that_fit_contain_every_token(word_tokenizer, objective):
    documents = numbered([[2, 3, 2], [1, 1], [4, 5]] * 5)
    found = make_rows(SegmentRows(40, objective, short_sequence_rate=0), documents, word_tokenizer)
    seen = {t for r in found for part in parts(r) for t in part.tolist()}
    assert seen == {int(t) for d in documents for s in d for t in s}


def test_text_replaced_by_a_random_segment_is_used_in_the_next_row(word_tokenizer):
    documents = numbered([[1] * 50] * 4)  # sentences so short that no pair is truncated
    first = [
        parts(r)[0]
        for r in make_rows(SegmentRows(16, negative_rate=1, short_sequence_rate=0), documents, word_tokenizer)
    ]
    assert np.array_equal(np.concatenate(first), np.concatenate([s for d in documents for s in d]))


def test_swapped_rows_contain_two_consecutive_segments(word_tokenizer):
    documents = corpus()
    found = make_rows(SegmentRows(64, 'swap', short_sequence_rate=0), documents, word_tokenizer)
    owner = document_of_token(documents)
    assert {r.label for r in found} == {0, 1}
    for row in found:
        a, b = parts(row)
        assert is_run(a)
        assert is_run(b)
        assert owner[int(a[0])] == owner[int(b[0])]
        assert (a[0] > b[0]) == bool(row.label)


@pytest.mark.parametrize('objective', ['random', 'swap', 'none'])
def test_corpus_of_one_document(word_tokenizer, objective):
    documents = corpus(documents=1, sentences=40)
    found = make_rows(SegmentRows(24, objective), documents, word_tokenizer)
    assert len(found) > 2
    for row in found:
        check_layout(row, 24, word_tokenizer)
    if objective == 'random':  # no segment can come from another document
        assert not labels(found).any()
        assert all(a[-1] < b[0] for a, b in map(parts, found))


def test_documents_of_one_sentence_are_paired_with_others(word_tokenizer):
    documents = numbered([[5]] * 20)
    found = make_rows(SegmentRows(24), documents, word_tokenizer)
    assert labels(found).tolist() == [1] * 20
    for row, document in zip(found, documents, strict=True):
        a, b = parts(row)
        assert np.array_equal(a, document[0])
        assert not np.array_equal(b, document[0])


def test_single_sentence_is_split_in_half_for_sentence_order(word_tokenizer):
    documents = numbered([[5]] * 20)
    found = make_rows(SegmentRows(24, 'swap'), documents, word_tokenizer)
    assert set(labels(found)) == {0, 1}
    for row, document in zip(found, documents, strict=True):
        halves = parts(row)[:: -1 if row.label else 1]
        assert np.array_equal(np.concatenate(halves), document[0])
        assert all(map(len, halves))
    assert (
        make_rows(SegmentRows(24, 'swap'), numbered([[1]]), word_tokenizer) == []
    )  # a single token cannot be split
    assert len(make_rows(SegmentRows(24, 'none'), numbered([[5]] * 20), word_tokenizer)) == 20


def test_empty_documents_make_no_rows(word_tokenizer):
    for objective in ('random', 'swap', 'none'):
        assert make_rows(SegmentRows(24, objective), [], word_tokenizer) == []
        assert make_rows(SegmentRows(24, objective), [[]], word_tokenizer) == []


def test_sentence_longer_than_a_row_is_split(word_tokenizer):
    documents = numbered([[500], [3, 4]])
    for objective in ('random', 'swap', 'none'):
        found = make_rows(
            SegmentRows(21, objective, negative_rate=0, short_sequence_rate=0), documents, word_tokenizer
        )
        seen = {t for r in found for part in parts(r) for t in part.tolist()}
        assert seen >= {int(t) for t in documents[0][0][:480]}
        for row in found:
            check_layout(row, 21, word_tokenizer)


@pytest.mark.parametrize('objective', ['random', 'swap', 'none'])
@pytest.mark.parametrize('length', [3, 4, 5, 6])
def test_shortest_rows_work_or_are_rejected(word_tokenizer, objective, length):
    try:
        found = make_rows(SegmentRows(length, objective, short_sequence_rate=0.5), corpus(), word_tokenizer)
    except UserError:
        return
    assert found
    for row in found:
        check_layout(row, length, word_tokenizer)


def bert_lengths(a, b, room):
    """Return the lengths after BERT's original `truncate_seq_pair`."""
    while a + b > room:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


def is_slice(part, whole):
    return any(np.array_equal(part, whole[i : i + len(part)]) for i in range(len(whole) - len(part) + 1))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 80), st.none() | st.integers(0, 9))
def test_truncation_matches_the_original_bert_code(n, m, room, seed):
    a, b = np.arange(n), np.arange(100, 100 + m)
    rng = None if seed is None else np.random.default_rng(seed)
    kept_a, kept_b = truncate_pair(a, b, room, rng)
    assert (len(kept_a), len(kept_b)) == bert_lengths(n, m, room)
    assert is_slice(kept_a, a)
    assert is_slice(kept_b, b)
    if rng is None:
        assert np.array_equal(kept_a, a[: len(kept_a)])
        assert np.array_equal(kept_b, b[: len(kept_b)])


def test_random_truncation_removes_from_both_ends():
    rng = np.random.default_rng(0)
    starts = [truncate_pair(np.arange(20), np.arange(20), 20, rng) for _ in range(300)]
    for side in (0, 1):
        found = np.array([pair[side][0] for pair in starts])
        # Binomial(10, 1/2), as with one coin toss per removed token.
        assert found.mean() == pytest.approx(5, abs=0.4)
        assert found.std() == pytest.approx(1.58, abs=0.25)


def test_split_sentences():
    paragraphs = [
        'He left. She (really) stayed?  "Yes." Pi is 3.14, v1.2.',
        'Good!\tBye',
        '走了。来了！好？吗',
    ]
    assert [s.strip() for s in rows_lib.split_sentences(paragraphs)] == [
        'He left.',
        'She (really) stayed?',
        '"Yes."',
        'Pi is 3.14, v1.2.',
        'Good!',
        'Bye',
        '走了。',
        '来了！',
        '好？',
        '吗',
    ]


def test_white_space_is_not_a_sentence():
    assert rows_lib.split_sentences(['', '  ', 'A. ', '\u2003']) == ['A.']


STOPS = st.text(st.sampled_from(list('ab.!?"\')»” \n\t\u2003。！')), max_size=40)


@given(st.lists(st.text(max_size=30) | STOPS, max_size=4))
def test_splitting_loses_only_white_space(paragraphs):
    found = rows_lib.split_sentences(paragraphs)
    assert ''.join(''.join(found).split()) == ''.join(''.join(paragraphs).split())
    assert all(s and not s.isspace() for s in found)


BPE = tokenizer_training.train(
    ['the wind blows. The kite rises.'], tokenizer_lib.TokenizerConfig(kind='bpe', vocab_size=280)
)


@given(st.lists(st.lists(st.text(max_size=30) | STOPS, max_size=4), max_size=3))
def test_sentences_of_bpe_are_the_tokens_of_the_text_as_written(documents):
    whole = BPE.encode(['\n'.join(paragraphs) for paragraphs in documents])
    cut = rows_lib.encode_sentences(documents, BPE)
    assert [[*map(int, np.concatenate([[], *sentences]))] for sentences in cut] == [*map(list, whole)]
    assert all(len(sentence) for sentences in cut for sentence in sentences)


def test_sentences_of_bpe_begin_with_their_space():
    documents = [['the wind blows. The kite rises.  the wind', 'The kite']]
    (sentences,) = rows_lib.encode_sentences(documents, BPE)
    assert [BPE.decode(s) for s in sentences] == [
        'the wind blows.',
        ' The kite rises.',
        '  the wind',
        '\nThe kite',
    ]
    (row,) = make_rows(SegmentRows(64, 'none'), [sentences], BPE)
    assert BPE.decode(row.tokens[1 : row.length - 1]) == '\n'.join(documents[0])


@given(st.lists(st.text(st.sampled_from('ab.!? \t。'), max_size=30), max_size=3))
def test_sentences_of_wordpiece_are_those_of_the_text(word_tokenizer, paragraphs):
    alone = [ids.tolist() for ids in word_tokenizer.encode(rows_lib.split_sentences(paragraphs)) if len(ids)]
    assert [ids.tolist() for ids in rows_lib.encode_sentences([paragraphs], word_tokenizer)[0]] == alone


def test_roberta_rows_have_two_separators_between_texts():
    entries = {t: i for i, t in enumerate(('<pad>', '<unk>', '<s>', '</s>', '<mask>', 'a', 'b'))}
    tokenizer = tokenizer_lib.from_merges(entries, [])
    a, b = tokenizer.encode(['a', 'b'])
    row = rows_lib.unpack(rows_lib.pack(a, b, 1, 8, tokenizer))
    assert [tokenizer.token(i) for i in row.tokens] == [
        '<s>',
        'a',
        '</s>',
        '</s>',
        'b',
        '</s>',
        '<pad>',
        '<pad>',
    ]
    assert (row.length, row.label) == (6, 1)
    assert rows_lib.max_text_tokens(8, tokenizer, 2) == 4
    assert rows_lib.max_text_tokens(8, tokenizer, 1) == 6
