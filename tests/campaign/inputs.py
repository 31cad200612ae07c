"""Part `input`: odd and damaged files for every reader.

Each case ends in the right result or in one `UserError` that names the file, and the line where the format has lines. A
record that a reader loses without an error is found by its mark: each record of a generated file has one, such as `r12x`.
"""

import bz2
import contextlib
import csv
import functools
import gzip
import io
import itertools
import json
import lzma
import pathlib
import random
import re
from collections.abc import Callable
from typing import Any

from bert_jax.core import config as config_lib
from bert_jax.core import metrics
from bert_jax.core.errors import UserError
from bert_jax.data import (
    labeled,
    multiple_choice,
    question_answering,
    records,
    seq2seq,
    sources,
    tagging,
    text_tuples,
)
from bert_jax.data import tokenizer as tokenizer_lib
from bert_jax.evals import language_model
from bert_jax.train import experiment as experiment_lib
from tests.campaign import folders
from tests.campaign.harness import check_message
from tests.campaign.mutations import ODD_VALUES, damage, damage_json, odd_text
from tests.tiny import __file__ as TINY

LIMIT = 30  # seconds per case
_MARK = re.compile(r'r\d+x')
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    '.gz': gzip.compress,
    '.bz2': bz2.compress,
    '.xz': lzma.compress,
    '': bytes,
}


def prepare(folder: pathlib.Path) -> dict[str, Any]:
    """Make the tokenizer and the model folders that the cases damage."""
    entries = [*tokenizer_lib.SPECIAL, *'abcdefgrx0123456789.,"\'', *(f'##{c}' for c in 'abcrx0123456789')]
    return {'tokenizer': tokenizer_lib.from_vocab(entries), **folders.make(folder)}


def try_case(rng: random.Random, folder: pathlib.Path, shared: dict[str, Any]) -> str:
    """Try one case; return its kind."""
    kind = rng.choice([*_RECORD_FORMATS] * 4 + [*_OTHERS] * 3 + [*_FOLDERS])
    if kind in _RECORD_FORMATS:
        _try_records(kind, rng, folder, shared['tokenizer'])
    elif kind in _FOLDERS:
        _FOLDERS[kind](rng, folder, shared)
    else:
        _OTHERS[kind](rng, folder)
    return kind


# Records: `_make_KIND` returns the text of a file, and the records that a reader must return.


def _make_records(rng: random.Random, forbidden: str = '') -> list[dict[str, Any]]:
    names = rng.sample(('a', 'b', 'c'), rng.randint(2, 3))
    return [
        {
            'text': odd_text(rng, f'r{i}x', forbidden),
            'text2': odd_text(rng, f'r{1000 + i}x', forbidden),
            'label': rng.choice(names),
        }
        for i in range(rng.choice((1, 2, 5, 60, 300)))
    ]


def _make_jsonl(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    made = _make_records(rng)
    is_ascii, end = rng.random() < 0.5, rng.choice(('\n', '\r\n', '\n\n'))
    return end.join(json.dumps(record, ensure_ascii=is_ascii) for record in made) + rng.choice(
        ('', end)
    ), made


def _make_json(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    made = _make_records(rng)
    return json.dumps(rng.choice((made, {'data': made})), indent=rng.choice((None, 2))), made


def _make_csv(rng: random.Random, delimiter: str = '') -> tuple[str, list[dict[str, Any]]]:
    made = _make_records(rng, '\0')
    file = io.StringIO()
    writer = csv.DictWriter(
        file,
        [*made[0]],
        delimiter=rng.choice(',;\t'),
        quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=rng.choice(('\n', '\r\n')),
    )
    writer.writeheader()
    writer.writerows(made)
    return file.getvalue(), made


def _make_tsv(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    made = _make_records(rng, '\0\t\r\n')
    return '\n'.join('\t'.join(row) for row in ([*made[0]], *(r.values() for r in made))) + '\n', made


def _make_sentences(rng: random.Random) -> list[list[tuple[str, str]]]:
    """Return words with tags. A word has no white space, and begins with its mark, so that it is no comment."""
    tags = rng.choice((('O', 'B-PER', 'I-PER'), ('NOUN', 'VERB', 'X')))
    count, sentences = itertools.count(), []
    for _ in range(rng.choice((1, 2, 5, 60))):
        words = [''.join(odd_text(rng, f'r{next(count)}x').split()) for _ in range(rng.randint(1, 9))]
        words = [f'r{next(count)}x{w}' if rng.random() < 0.5 else f'{w}' for w in words]
        words = [w if re.match(r'r\d', w) else f'r{next(count)}x{w}' for w in words]
        sentences.append([(re.sub('[\0\x0b\x1c\x85\u2028\xa0]', '', w), rng.choice(tags)) for w in words])
    return sentences


def _make_conll(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    sentences, space = _make_sentences(rng), rng.choice((' ', '\t', '  '))
    middle = [f'{space}_' * rng.choice((0, 0, 2))][0]
    text = '\n\n'.join('\n'.join(f'{word}{middle}{space}{tag}' for word, tag in s) for s in sentences) + '\n'
    return text, [{'tokens': [w for w, _ in s], 'tags': [t for _, t in s]} for s in sentences]


def _make_conllu(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    sentences = _make_sentences(rng)
    blocks = []
    for s in sentences:
        lines = [f'{i}\t{w}\t_\t{t}\t_\t_\t0\troot\t_\t_' for i, (w, t) in enumerate(s, 1)]
        extra = ['2-3\tab\t_\t_\t_\t_\t_\t_\t_\t_'] if rng.random() < 0.3 else []
        blocks.append('\n'.join([f'# text = {len(s)}', *lines[:1], *extra, *lines[1:]]))
    return '\n\n'.join(blocks) + '\n\n', [
        {'tokens': [w for w, _ in s], 'upos': [t for _, t in s]} for s in sentences
    ]


def _make_squad(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    articles, made = [], []
    for i in range(rng.choice((1, 3, 20))):
        context = f'{odd_text(rng)} r{i}x answer{i} {odd_text(rng)}'
        answers = {'text': [f'answer{i}'], 'answer_start': [context.index(f'answer{i}')]}
        is_impossible = rng.random() < 0.2
        listed = [{'text': t, 'answer_start': s} for t, s in zip(*answers.values(), strict=True)]
        question = {'id': f'r{1000 + i}x', 'question': odd_text(rng, f'r{2000 + i}x') or 'a'}
        extra = {'is_impossible': True, 'answers': []} if is_impossible else {'answers': listed}
        articles.append(
            {'title': f'r{3000 + i}x', 'paragraphs': [{'context': context, 'qas': [question | extra]}]}
        )
        empty: dict[str, list[Any]] = {'text': [], 'answer_start': []}
        made.append({**question, 'context': context, 'answers': empty if is_impossible else answers})
    return json.dumps({'version': '2.0', 'data': articles}), made


_RECORD_FORMATS: dict[str, Any] = {
    'jsonl': (_make_jsonl, '.jsonl'),
    'json': (_make_json, '.json'),
    'csv': (_make_csv, '.csv'),
    'tsv': (_make_tsv, '.tsv'),
    'conll': (_make_conll, '.conll'),
    'conllu': (_make_conllu, '.conllu'),
    'squad': (_make_squad, '.json'),
    'parquet': (_make_jsonl, '.parquet'),
}
_HAS_LINES = ('.jsonl', '.csv', '.tsv', '.conll', '.conllu')
_OF_WHOLE_FILE = re.compile(
    'UTF-8|has no examples|columns with the name|is damaged|no columns ID|needs random access|holds no list|not JSON'
)


def _try_records(kind: str, rng: random.Random, folder: pathlib.Path, tokenizer: Any) -> None:
    make, suffix = _RECORD_FORMATS[kind]
    text, expected = make(rng)
    data = text.encode('utf-8', 'surrogatepass')
    change = rng.choice(('none', 'bytes', 'bytes', 'json', 'compressed'))
    compression = rng.choice([*_COMPRESS]) if suffix != '.parquet' else ''
    if suffix == '.parquet':
        data = _to_parquet(expected)
    if change == 'json':
        data = _damage_records(kind, rng, text).encode('utf-8', 'surrogatepass') if 'json' in suffix else data
    elif change == 'bytes':
        data = damage(rng, data)
    compressed = _COMPRESS[compression](data)
    if change == 'compressed' and compression:
        compressed = damage(rng, compressed)
    path = folder / f'data{suffix}{compression}'
    path.write_bytes(compressed)
    is_unchanged = (
        change == 'none'
        or (change == 'json' and 'json' not in suffix)
        or (change, compression) == ('compressed', '')
    )
    try:
        found = records.read(f'{folder}/data{suffix}{compression}', 'train')
    except UserError as e:
        check_message(e, path.name)
        assert not is_unchanged, f'refused a valid file: {e}'
        assert suffix not in _HAS_LINES or re.search(r'line \d', str(e)) or _OF_WHOLE_FILE.search(str(e)), e
        return
    if is_unchanged:
        _compare(suffix, found, expected)
    elif change != 'compressed' and suffix != '.parquet':
        lost = _lost_marks(kind, suffix, data, found)
        assert not lost, f'lost {sorted(lost)[:5]} without an error'
    for use in (
        _use_as_classes,
        _use_as_tags,
        _use_as_questions,
        _use_as_pairs,
        _use_as_tuples,
        _use_as_endings,
    ):
        try:
            use(path, found[:60], tokenizer)
        except UserError as e:
            if ' of the tokenizer' not in str(e):
                check_message(e)


def _to_parquet(made: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), file)
    return file.getvalue()


def _damage_records(kind: str, rng: random.Random, text: str) -> str:
    if kind != 'jsonl':
        return damage_json(rng, json.loads(text))
    lines = [line for line in text.splitlines(keepends=False) if line.startswith('{') and line.endswith('}')]
    i = rng.randrange(len(lines)) if lines else 0
    with contextlib.suppress(ValueError, IndexError):  # a separator of lines in a text may have cut the line
        lines[i : i + 1] = [damage_json(rng, json.loads(lines[i]))]
    return '\n'.join(lines)


def _compare(suffix: str, found: list[Any], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected), f'{len(found)} records instead of {len(expected)}'
    for record, fields in zip(found, expected, strict=True):
        for name, value in fields.items():
            read = record.fields.get(name)
            if suffix == '.csv' and isinstance(read, str):  # spaces after the delimiters may be ignored
                read, value = read.lstrip(' '), value.lstrip(' ')
            assert read == value, f'{record.location} {name} is {read!r} instead of {value!r}'


def _lost_marks(kind: str, suffix: str, data: bytes, found: list[Any]) -> set[str]:
    """Return the marks in a file that are in no record. Comments, names of fields and repeated objects count as read."""
    text = data.decode('utf-8', 'replace')
    if suffix in ('.conll', '.conllu'):  # lines of other ids, and comments
        text = '\n'.join(line for line in text.split('\n') if not re.match(r'[ \t]*#|\d+[-.]\d+', line))
    if suffix in ('.csv', '.tsv'):
        text = '\n'.join(text.lstrip().split('\n')[1:])
    read = ' '.join(repr([*record.fields.items()]) for record in found)
    if kind == 'squad':  # titles and contexts without questions
        text = ' '.join(re.findall('"(r[12][0-9]{3}x)"', text))
    lost = {*_MARK.findall(text)} - {*_MARK.findall(read)}
    return lost


def _use_as_classes(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    data = labeled.LabeledConfig(source=str(path), text='text', length=16)
    names = labeled.label_names(data)
    labeled.make_rows(found, labeled.class_ids(found, data, names), data, tokenizer)
    labeled.encode_floats(found, data)


def _use_as_tags(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    for label in ('tags', 'upos', 'label'):
        try:
            data = tagging.TaggingConfig(source=str(path), tokens='tokens', label=label, length=16)
            tagging.make_rows(found, data, labeled.label_names(data, per_token=True), tokenizer, True)
        except UserError as e:
            check_message(e)
    tagging.make_rows(found, data, ('O',), tokenizer, False)


def _use_as_questions(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    data = question_answering.QuestionConfig(
        source=str(path), length=32, stride=8, max_question_length=8, paragraphs=0
    )
    question_answering.make_rows(found, data, tokenizer, True)
    question_answering.join_contexts(found, data)


def _use_as_pairs(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    data = seq2seq.Seq2SeqConfig(source=str(path), text='text', target='text2', length=16)
    seq2seq.make_rows(found, data, tokenizer, True)


def _use_as_tuples(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    data = text_tuples.TupleConfig(source=str(path), texts=('text', 'text2'), length=16)
    text_tuples.make_rows(found, [0] * len(found), data, tokenizer)


def _use_as_endings(path: pathlib.Path, found: list[Any], tokenizer: Any) -> None:
    for endings in (('text', 'text2'), ('answers',)):
        data = multiple_choice.ChoiceConfig(source=str(path), text='text', endings=endings, length=16)
        multiple_choice.make_rows(found, data, tokenizer, True)


# Other readers.


def _try_text(rng: random.Random, folder: pathlib.Path) -> None:
    marks = itertools.count()
    documents = [
        [odd_text(rng, f'r{next(marks)}x', '\n\r') for _ in range(rng.choice((1, 3, 40)))]
        for _ in range(rng.choice((1, 3, 20)))
    ]
    data = '\n\n'.join('\n'.join(lines) for lines in documents).encode() + rng.choice((b'', b'\n'))
    compression, is_damaged = rng.choice([*_COMPRESS]), rng.random() < 0.6
    if is_damaged:
        data = damage(rng, data)
    compressed = _COMPRESS[compression](data)
    is_cut = compression and rng.random() < 0.3
    path = folder / f'text.txt{compression}'
    path.write_bytes(damage(rng, compressed) if is_cut else compressed)
    try:
        found = [*sources.read_documents(str(path), 'train', 'text')]
    except UserError as e:
        check_message(e, path.name)
        assert is_damaged or is_cut, f'refused a valid file: {e}'
        return
    if is_cut:
        return
    read = ''.join(''.join(d.paragraphs) for d in found)
    expected = data.decode('utf-8-sig', 'replace').replace('\ufffd', '')
    spaces = re.compile('[\\s\ufffd]')
    assert spaces.sub('', read) == spaces.sub('', expected), 'lost or changed characters'
    if not is_damaged and all(line.strip('\ufeff \n') for lines in documents for line in lines):
        assert sum(not d.is_continuation for d in found) == len(documents)


def _try_vocabulary(rng: random.Random, folder: pathlib.Path) -> None:
    entries = [
        *dict.fromkeys(odd_text(rng, f'r{i}x', '\n\r').split(' ')[0].strip() or f'r{i}x' for i in range(40))
    ]
    entries = [*tokenizer_lib.SPECIAL, *(e for e in entries if e not in tokenizer_lib.SPECIAL)]
    data, is_damaged = '\n'.join(entries).encode() + b'\n', rng.random() < 0.6
    path = folder / 'vocab.txt'
    path.write_bytes(damage(rng, data) if is_damaged else data)
    try:
        tokenizer = tokenizer_lib.load(path)
    except UserError as e:
        check_message(e)
        assert is_damaged, f'refused a valid vocabulary: {e}'
        return
    tokenizer.encode(['abc r1x [MASK]'])
    if not is_damaged:
        assert [tokenizer.token(i) for i in range(len(entries))] == entries


def _try_metrics(rng: random.Random, folder: pathlib.Path) -> None:
    lines = [
        {'step': i, 'loss': rng.choice((1.5, None, i)), 'eval/f1': 0.5}
        for i in range(1, rng.choice((2, 9, 50)))
    ]
    text = [json.dumps(line) for line in lines]
    damaged = rng.randrange(len(text))
    text[damaged] = rng.choice(
        (
            damage_json(rng, lines[damaged]),
            damage(rng, text[damaged].encode()).decode('utf-8', 'surrogateescape'),
        )
    )
    path = folder / metrics.FILE
    path.write_bytes('\n'.join(text).encode('utf-8', 'surrogateescape') + rng.choice((b'', b'\n')))
    whole = [line for i, line in enumerate(lines) if i != damaged]
    found = metrics.read(folder)
    writer = metrics.Writer(folder, folder, len(lines), (), {})
    writer(len(lines) + 1, {'loss': 1.0})
    writer.close()
    for read in (found, metrics.read(folder)[:-1]):
        kept = [
            line
            for line in read
            if any(json.dumps(line).replace('NaN', 'null') == json.dumps(w) for w in whole)
        ]
        assert len(kept) >= len(whole), f'{len(kept)} of {len(whole)} whole lines are kept'


_KEYS = (
    'train.steps',
    'data.length',
    'optim.learning_rate',
    'optim.warmup',
    'model.layers',
    'task.name',
    'mesh.fsdp',
)
_KEYS += (
    'model.name',
    'data.sources',
    'tokenizer.path',
    'train.phases',
    'train.writers',
    'checkpoint.every',
    'train.seed',
)
_KEYS += (
    'model',
    'train',
    'optim.nothing',
    'a.b.c',
    '',
    '.',
    'train.',
    'train.steps.a',
    'checkpoint.best_metric',
    'init.checkpoint',
)
_VALUES = (
    '',
    '0',
    '-1',
    '1e400',
    '9' * 5000,
    '(' * 300,
    '[' * 20000,
    '()',
    '((1,2,3),)',
    '((1,2),)',
    '1,2',
    '{}',
    '{1: 2}',
    'None',
)
_VALUES += (
    'nan',
    '"a',
    "'",
    '\x00',
    '\ud800',
    'True',
    'true',
    '5 epochs',
    '1.5',
    '0.1',
    '-0.0',
    'inf',
    '1_0',
    '0x10',
    'lambda: 0',
)
_VALUES += (
    '((5, 32, 16, "task.mask_rate=2"),)',
    '((5, 32, 16, "a"),)',
    '"5 epochs',
    'b"a"',
    '...',
    '1j',
    '{1, 2}',
    'a\nb',
    '(1, (2,))',
)


def _try_overrides(rng: random.Random, folder: pathlib.Path) -> None:
    assignments = [
        rng.choice((f'{rng.choice(_KEYS)}={rng.choice(_VALUES)}', f'{rng.choice(_KEYS)}', odd_text(rng)))
        for _ in range(rng.choice((1, 1, 2)))
    ]
    try:
        experiment_lib.read(f'{TINY}:{rng.choice(("pretrain", "classify"))}', assignments).check_splits()
    except UserError as e:
        # A value of many digits or brackets is part of the message.
        if max(map(len, assignments)) < 1000:
            check_message(e)


def _try_config_file(rng: random.Random, folder: pathlib.Path) -> None:
    path = folder / 'config.json'
    saved = _config_of_tests()
    data = json.dumps(saved, indent=2).encode()
    if rng.random() < 0.5:
        path.write_bytes(damage(rng, data))
    else:
        path.write_text(damage_json(rng, saved))
    try:
        experiment_lib.read(str(path))
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)


@functools.cache
def _config_of_tests() -> dict[str, Any]:
    return experiment_lib.read(f'{TINY}:pretrain').as_dict()


_TEMPLATE_PARTS = (
    '{text}',
    '{text2}',
    '{label}',
    '{answer}',
    '{',
    '}',
    '{{',
    '}}',
    '{}',
    '{0}',
    '{text.a}',
    '{text[0]}',
)
_TEMPLATE_PARTS += (
    '{text!r}',
    '{text:>3}',
    '{nothing}',
    ' ',
    'Review: ',
    '{answer}',
    '{a{b}}',
    '{text',
    '\n',
    '%s',
)


def _try_template(rng: random.Random, folder: pathlib.Path) -> None:
    template = ''.join(rng.choice(_TEMPLATE_PARTS) for _ in range(rng.randint(0, 5))) + rng.choice(
        ('', '{answer}')
    )
    made = _make_records(rng)
    for i, split in enumerate(('train', 'validation')):
        text = '\n'.join(json.dumps(r) for r in made)
        (folder / f'{split}.jsonl').write_text(
            damage_json(rng, made[0]) + '\n' + text if i and rng.random() < 0.5 else text
        )
    names = sorted({record['label'] for record in made})
    try:
        config = language_model.LmConfig(
            kind='choice',
            source=f'{folder}/{{split}}.jsonl',
            template=template,
            answers=rng.choice(((), (), tuple(names), ('yes', 'no'))),
            endings=rng.choice(((), (), ('text', 'text2'), ('text',))),
            num_shots=rng.choice((0, 0, 1, 3)),
        )
        found = records.read(config.source, config.split)
        language_model._options(config, found)
        prompts = language_model._prompts(config, found)
    except UserError as e:
        check_message(e)
        return
    assert len(prompts) == len(found)
    if '{text}' in template.replace('{{', '') and not config.num_shots:
        texts = [record.text('text').strip() for record in found]
        assert all(text in prompt for text, prompt in zip(texts, prompts, strict=True))


def _try_values(rng: random.Random, folder: pathlib.Path) -> None:
    """Try a section of a config with values of every type."""
    experiment = _config_of_tests()
    section = rng.choice([*experiment])
    key = rng.choice([*experiment[section], 'nothing'])
    changed = {**experiment, section: {**experiment[section], key: rng.choice(ODD_VALUES)}}
    try:
        found = experiment_lib.from_config(changed)
        config_lib.to_json(found)
    except UserError as e:
        if len(str(e)) < 1500:
            check_message(e)


_OTHERS: dict[str, Callable[[random.Random, pathlib.Path], None]] = {
    'text': _try_text,
    'vocabulary': _try_vocabulary,
    'metrics': _try_metrics,
    'overrides': _try_overrides,
    'config file': _try_config_file,
    'config value': _try_values,
    'template': _try_template,
}
_FOLDERS = folders.KINDS
