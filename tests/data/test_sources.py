"""Sources lose no text, need bounded memory and name what is wrong with their input."""

import gzip
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.core.errors import UserError
from bert_jax.data import sources

LIMIT = sources.MAX_DOCUMENT_CHARS


def read(path, text_key='text'):
    return [d.paragraphs for d in sources.read_documents(str(path), 'train', text_key)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_blank_lines_separate_documents_of_a_text_file(tmp_path):
    file = write(tmp_path / 'a.txt', '\n\nOne.\n Two. \n\n  \t\nThree.\n\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_last_line_needs_no_line_end(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_windows_line_ends(tmp_path):
    file = write(tmp_path / 'a.txt', 'One.\r\nTwo.\r\n\r\nThree.\r\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_gzip_contains_the_same_documents(tmp_path):
    text = 'One.\nTwo.\n\nThree é.\n' * 100
    plain, packed = (
        write(tmp_path / 'a.txt', text),
        write(tmp_path / 'b.txt.gz', gzip.compress(text.encode())),
    )
    assert read(packed) == read(plain)
    assert len(read(packed)) == 101


def test_jsonl_record_is_a_document(tmp_path):
    records = [{'text': 'One.\nTwo.\n\nStill one.'}, {'text': ''}, {'text': 'Three é.', 'more': 3}]
    file = write(tmp_path / 'a.jsonl', '\n\n'.join(json.dumps(r) for r in records) + '\n')
    assert read(file) == [['One.', 'Two.', 'Still one.'], ['Three é.']]


def test_long_jsonl_line_is_read_completely(tmp_path):
    text = 'kite ' * LIMIT
    file = write(tmp_path / 'a.jsonl', json.dumps({'text': text}) + '\n' + json.dumps({'text': 'end'}))
    found = read(file)
    assert found[-1] == ['end']
    assert ''.join(p for d in found[:-1] for p in d).count('k') == LIMIT


def test_glob_reads_files_in_order_as_separate_documents(tmp_path):
    for name in ('b.txt', 'a.txt', 'c.md'):
        write(tmp_path / name, f'From {name}')
    (tmp_path / 'in').mkdir()
    write(tmp_path / 'in' / 'd.txt', 'From d.txt')
    assert read(tmp_path / '*.txt') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/**/*.txt') == [['From a.txt'], ['From b.txt'], ['From d.txt']]
    assert read(f'{tmp_path}/*') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/*.md') == [['From c.md']]


def test_file_without_a_suffix_is_text(tmp_path):
    assert read(write(tmp_path / 'README', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_file_name_that_looks_like_a_glob(tmp_path):
    assert read(write(tmp_path / 'book[1].txt', 'One.')) == [['One.']]


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_empty_file_has_no_documents(tmp_path, name):
    assert read(write(tmp_path / name, '')) == []


def test_empty_gzip_has_no_documents(tmp_path):
    assert read(write(tmp_path / 'a.txt.gz', gzip.compress(b''))) == []


def test_invalid_utf8_is_replaced_and_logged(tmp_path, caplog):
    file = write(tmp_path / 'a.txt', 'Ein Caf\xe9 hier.\nUnd mehr.'.encode('latin-1'))
    assert read(file) == [['Ein Caf\ufffd hier.', 'Und mehr.']]
    assert 'contains invalid UTF-8' in caplog.text


def test_nul_byte_is_an_error(tmp_path):
    with pytest.raises(UserError, match='contains a NUL byte'):
        read(write(tmp_path / 'a.txt', 'One.\n\nTw\0o.'))


def test_byte_order_mark_is_dropped(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.'.encode('utf-8-sig'))) == [['One.'], ['Two.']]
    assert read(write(tmp_path / 'a.jsonl', '{"text": "One."}'.encode('utf-8-sig'))) == [['One.']]


def texts(found):
    return [''.join(d) for d in found]


def long_line(characters):
    rng = np.random.default_rng(0)
    return ''.join(rng.choice(list(characters), 5 * LIMIT + 77))


def test_huge_line_is_split_into_documents_under_the_limit(tmp_path):
    line = long_line('abcdefgh')
    found = texts(read(write(tmp_path / 'a.txt', line)))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line
    assert len(found) < 12


@pytest.mark.parametrize('packed', [False, True])
def test_huge_line_is_cut_between_multibyte_characters(tmp_path, packed):
    line = 'a' + long_line('é語🪁')
    data = line.encode()
    file = write(tmp_path / 'a.txt.gz', gzip.compress(data, 1)) if packed else write(tmp_path / 'a.txt', data)
    found = texts(read(file))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line


@pytest.mark.parametrize('separator', ['\n', ' '])
def test_huge_document_is_streamed(tmp_path, separator):
    file = write(tmp_path / 'a.txt', separator.join(['x' * 1000] * 3000))
    assert next(sources.read_documents(str(file), 'train', 'text')).progress < 0.2


def test_long_document_is_cut_between_lines(tmp_path):
    lines = [f'line {i} ' + 'x' * 1000 for i in range(300)]
    found = read(write(tmp_path / 'a.txt', '\n'.join(lines)))
    assert len(found) > 300_000 // LIMIT
    assert max(map(len, texts(found))) <= LIMIT
    assert min(map(len, texts(found[:-1]))) > LIMIT - 2 * len(lines[-1]), 'a part is too short'
    assert [p for d in found for p in d] == lines


@given(st.lists(st.integers(0, 3 * LIMIT), max_size=6), st.integers(0, 3))
def test_cutting_loses_nothing(sizes, seed):
    letters = np.random.default_rng(seed).integers(97, 123, sum(sizes)).astype(np.uint8).tobytes().decode()
    lines, start = [], 0
    for size in sizes:
        lines.append(letters[start : start + size])
        start += size
    found = list(sources._make_documents(lines, 0.5, False))
    assert [d.is_continuation for d in found] == [i > 0 for i in range(len(found))]
    assert ''.join(p for d in found for p in d.paragraphs) == letters
    assert all(0 < sum(map(len, d.paragraphs)) <= LIMIT for d in found)
    assert all(d.paragraphs and all(d.paragraphs) for d in found)


@pytest.mark.parametrize('suffix', ['.txt', '.txt.gz', '.jsonl'])
def test_progress_increases_to_1_over_all_files(tmp_path, suffix):
    for name, n in (('a', 30), ('b', 90)):
        lines = [f'Line {i} ' + 'x' * 100 for i in range(n)]
        data = '\n\n'.join(json.dumps({'text': x}) if suffix == '.jsonl' else x for x in lines).encode()
        write(tmp_path / f'{name}{suffix}', gzip.compress(data) if suffix.endswith('gz') else data)
    progress = [d.progress for d in sources.read_documents(f'{tmp_path}/*{suffix}', 'train', 'text')]
    assert len(progress) == 120
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert 0 < progress[29] < 0.4


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'not gzip'])
def test_damaged_gzip_is_named(tmp_path, damage):
    data = gzip.compress(b''.join(b'Line %d.\n' % i for i in range(20_000)))
    data = {'cut': data[:-300], 'flipped': data[:500] + b'\xff\xff\xff' + data[503:], 'not gzip': b'plain'}[
        damage
    ]
    with pytest.raises(
        UserError, match=r"b\.txt\.gz' is damaged or not a gzip file \(.+\)\. Download it again"
    ):
        read(write(tmp_path / 'b.txt.gz', data))


@pytest.mark.parametrize('line', ['{"text": "a"', 'kite', '{"text": "a"} {}'])
def test_invalid_json_line_is_named_with_its_number(tmp_path, line):
    file = write(tmp_path / 'a.jsonl', '{"text": "a"}\n\n' + line + '\n')
    with pytest.raises(
        UserError, match=r'a\.jsonl, line 3 is not valid JSON \(.+\)\. .* one object per line'
    ):
        read(file)


@pytest.mark.parametrize('record', ['[1]', '"text"', '3', 'null'])
def test_json_line_that_is_not_an_object_is_named(tmp_path, record):
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 has no text field 'text'"):
        read(write(tmp_path / 'a.jsonl', record))


def test_missing_text_key_suggests_the_nearest(tmp_path):
    file = write(tmp_path / 'a.jsonl', json.dumps({'content': 'a', 'title': 'b', 'contents': 3}))
    message = r"line 1 has no text field 'contentx'\. Set data\.text_key: did you mean 'content'\?"
    with pytest.raises(UserError, match=message):
        read(file, 'contentx')
    with pytest.raises(UserError, match=r"no text field 'contents'.*did you mean 'content'\?"):
        read(file, 'contents')


def test_jsonl_text_can_always_be_encoded(tmp_path, word_tokenizer):
    file = write(tmp_path / 'a.jsonl', '{"text": "half a pair \\ud800 here"}')
    (text,) = texts(read(file))
    assert text.encode().startswith(b'half a pair ')
    word_tokenizer.encode([text])


@pytest.mark.parametrize('source', ['nothing.txt', 'nothing*.md', 'nothing.txt.gz', 'nothing.jsonl'])
def test_missing_files_are_named(tmp_path, source):
    with pytest.raises(UserError, match=r'No file matches .*nothing.*\. Set a path or glob of'):
        read(tmp_path / source)


def test_folder_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r'is a folder\. Name the files in it, such as .*/\*\.txt'):
        read(tmp_path)


def test_compressed_jsonl_is_not_read_as_text(tmp_path):
    write(tmp_path / 'a.jsonl.gz', gzip.compress(b'{"text": "One."}\n'))
    try:
        assert read(tmp_path / 'a*') == [['One.']]
    except UserError as e:
        assert 'a.jsonl.gz' in str(e)


def test_folder_matched_by_a_glob_is_skipped_or_named(tmp_path):
    (tmp_path / 'folder').mkdir()
    write(tmp_path / 'g.txt', 'One.')
    try:
        assert read(tmp_path / '*') == [['One.']]
    except UserError as e:
        assert 'folder' in str(e)


KITES = [
    {'text': f'Kite {i} é.\nIt flies.', 'label': i % 2, 'tags': [f't{i}', 'x'], 'n': i} for i in range(7)
]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """A folder with a prepared data set whose builder is not registered."""
    with tfds.core.registered.skip_registration():

        class KiteTexts(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version('1.0.0')

            def _info(self):
                features = tfds.features.FeaturesDict(
                    {
                        'text': tfds.features.Text(),
                        'label': tfds.features.ClassLabel(names=['down', 'up']),
                        'tags': tfds.features.Sequence(tfds.features.Text()),
                        'n': np.int32,
                    }
                )
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {'train': self._generate_examples(KITES), 'test': self._generate_examples(KITES[:2])}

            def _generate_examples(self, examples):
                yield from enumerate(examples)

    folder = tmp_path_factory.mktemp('tfds')
    KiteTexts(data_dir=folder, file_format='array_record').download_and_prepare()
    with pytest.raises(tfds.core.registered.DatasetNotFoundError):
        tfds.builder_cls('kite_texts')
    return folder


@pytest.fixture
def kites(prepared, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
    return 'kite_texts'


def by_number(examples):
    return sorted(examples, key=lambda e: e['n'])


def test_prepared_data_set_needs_no_builder(kites):
    found = sources.load_examples(kites, 'train')
    assert len(found) == 7
    assert by_number(found) == KITES
    assert [found[i]['n'] for i in range(7)] == [e['n'] for e in found]
    assert len(sources.load_examples(kites, 'test')) == 2


def test_examples_support_negative_indices(kites):
    found = sources.load_examples(kites, 'train')
    assert found[-1] == found[6]
    with pytest.raises(IndexError):
        found[7]


def test_data_set_records_are_documents(kites):
    found = list(sources.read_documents(kites, 'train', 'text'))
    assert sorted(d.paragraphs for d in found) == [[f'Kite {i} é.', 'It flies.'] for i in range(7)]
    assert [d.progress for d in found] == pytest.approx(np.arange(1, 8) / 7)


def test_slice_of_a_split(kites):
    assert len(sources.load_examples(kites, 'train[:3]')) == 3


def test_splits_can_be_combined(kites):
    assert len(sources.load_examples(kites, 'train+test')) == 9


def test_features_contain_class_names(kites):
    assert sources.load_features(kites)['label'].names == ['down', 'up']


def test_wrong_text_key_of_a_data_set_suggests_the_nearest(kites):
    with pytest.raises(
        UserError, match=r"kite_texts has no text field 'texts'\. Set data\.text_key: did you mean 'text'\?"
    ):
        list(sources.read_documents(kites, 'train', 'texts'))


@pytest.mark.parametrize('split', ['trian', 'trian[:3]'])
def test_unknown_split_suggests_the_nearest(kites, split):
    with pytest.raises(UserError, match=r"kite_texts has no split 'trian': did you mean 'train'\?"):
        sources.load_examples(kites, split)


@pytest.mark.parametrize('split', ['train[', 'train[:x]', 'train[5:2]'])
def test_invalid_slice_is_named(kites, split):
    with pytest.raises(UserError) as error:
        len(sources.load_examples(kites, split))
    assert split in str(error.value)


def test_unknown_data_set_suggests_the_nearest_and_tfds_data_dir(kites, prepared):
    with pytest.raises(UserError) as error:
        sources.load_examples('kite_text', 'train')
    text = str(error.value)
    assert "Data set 'kite_text' is neither in" in text
    assert "did you mean 'kite_texts'?" in text
    assert f'TFDS_DATA_DIR={prepared}' in text
    assert 'Set TFDS_DATA_DIR to' in text


def test_unknown_config_of_a_data_set_suggests_the_nearest(sst2):
    with pytest.raises(UserError, match=r"glue has no config 'sst3' in .* did you mean 'sst2'"):
        sources.load_examples('glue/sst3', 'train')


def test_failed_download_says_how_to_prepare_the_data_set(kites, prepared, monkeypatch):
    def offline(self, **_):
        raise ConnectionError('Network is unreachable\nand more')

    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', offline)
    with pytest.raises(UserError) as error:
        sources.load_examples('glue/cola', 'train')
    text = str(error.value)
    assert f'glue/cola is not in TFDS_DATA_DIR={prepared}' in text
    assert '(Network is unreachable)' in text
    assert 'tfds build glue/cola --file_format=array_record' in text


def test_damaged_data_set_is_named(prepared, tmp_path, monkeypatch):
    folder = tmp_path / 'kite_texts' / '1.0.0'
    folder.mkdir(parents=True)
    for file in (prepared / 'kite_texts' / '1.0.0').iterdir():
        data = file.read_bytes()
        write(folder / file.name, data[:100] if 'array_record' in file.name else data)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    with pytest.raises(
        UserError, match=r"Cannot read split 'train' of kite_texts \(.+\)\. Prepare the data set again"
    ):
        list(sources.load_examples('kite_texts', 'train'))


def test_unknown_pydocs_config_is_rejected_before_building():
    with pytest.raises(UserError, match=r"pydocs has no config 'txt': did you mean 'text'\?"):
        sources.load_examples('pydocs/txt', 'train')


def test_real_data_set(sst2):
    found = sources.load_examples(sst2, 'validation')
    assert len(found) == 872
    assert set(found[0]) == {'sentence', 'label', 'idx'}
    assert all(isinstance(e['sentence'], str) and e['label'] in (0, 1) for e in found)
    assert sources.load_features(sst2)['label'].num_classes == 2
    assert len(list(sources.read_documents(sst2, 'validation', 'sentence'))) == 872
