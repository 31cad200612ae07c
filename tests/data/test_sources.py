"""Text and examples: nothing is lost, nothing is unbounded, and what is wrong is named."""

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
    return [d.paragraphs for d in sources.documents(str(path), 'train', text_key)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_blank_lines_end_documents_of_a_text_file(tmp_path):
    file = write(tmp_path / 'a.txt', '\n\nOne.\n Two. \n\n  \t\nThree.\n\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_the_last_line_needs_no_line_end(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_windows_line_ends(tmp_path):
    file = write(tmp_path / 'a.txt', 'One.\r\nTwo.\r\n\r\nThree.\r\n')
    assert read(file) == [['One.', 'Two.'], ['Three.']]


def test_gzip_reads_as_its_text(tmp_path):
    text = 'One.\nTwo.\n\nThree é.\n' * 100
    plain, packed = (
        write(tmp_path / 'a.txt', text),
        write(tmp_path / 'b.txt.gz', gzip.compress(text.encode())),
    )
    assert read(packed) == read(plain)
    assert len(read(packed)) == 101


def test_a_record_of_jsonl_is_a_document(tmp_path):
    records = [{'text': 'One.\nTwo.\n\nStill one.'}, {'text': ''}, {'text': 'Three é.', 'more': 3}]
    file = write(tmp_path / 'a.jsonl', '\n\n'.join(json.dumps(r) for r in records) + '\n')
    assert read(file) == [['One.', 'Two.', 'Still one.'], ['Three é.']]


def test_a_long_jsonl_line_is_read_whole(tmp_path):
    text = 'kite ' * LIMIT
    file = write(tmp_path / 'a.jsonl', json.dumps({'text': text}) + '\n' + json.dumps({'text': 'end'}))
    found = read(file)
    assert found[-1] == ['end']
    assert ''.join(p for d in found[:-1] for p in d).count('k') == LIMIT


def test_a_glob_reads_files_in_order_and_keeps_them_apart(tmp_path):
    for name in ('b.txt', 'a.txt', 'c.md'):
        write(tmp_path / name, f'From {name}')
    (tmp_path / 'in').mkdir()
    write(tmp_path / 'in' / 'd.txt', 'From d.txt')
    assert read(tmp_path / '*.txt') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/**/*.txt') == [['From a.txt'], ['From b.txt'], ['From d.txt']]
    assert read(f'{tmp_path}/*') == [['From a.txt'], ['From b.txt']]
    assert read(f'{tmp_path}/*.md') == [['From c.md']]


def test_a_file_without_a_suffix_is_text(tmp_path):
    assert read(write(tmp_path / 'README', 'One.\n\nTwo.')) == [['One.'], ['Two.']]


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    assert read(write(tmp_path / 'book[1].txt', 'One.')) == [['One.']]


@pytest.mark.parametrize('name', ['a.txt', 'a.jsonl'])
def test_an_empty_file_has_no_documents(tmp_path, name):
    assert read(write(tmp_path / name, '')) == []


def test_an_empty_gzip_has_no_documents(tmp_path):
    assert read(write(tmp_path / 'a.txt.gz', gzip.compress(b''))) == []


def test_bytes_that_are_not_utf8_cost_only_themselves(tmp_path, caplog):
    file = write(tmp_path / 'a.txt', 'Ein Caf\xe9 hier.\nUnd mehr.'.encode('latin-1'))
    assert read(file) == [['Ein Caf\ufffd hier.', 'Und mehr.']]
    assert 'has what is not UTF-8' in caplog.text


def test_a_nul_byte_is_called_one(tmp_path):
    with pytest.raises(UserError, match='has a NUL byte'):
        read(write(tmp_path / 'a.txt', 'One.\n\nTw\0o.'))


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert read(write(tmp_path / 'a.txt', 'One.\n\nTwo.'.encode('utf-8-sig'))) == [['One.'], ['Two.']]
    assert read(write(tmp_path / 'a.jsonl', '{"text": "One."}'.encode('utf-8-sig'))) == [['One.']]


def texts(found):
    return [''.join(d) for d in found]


def long_line(characters):
    rng = np.random.default_rng(0)
    return ''.join(rng.choice(list(characters), 5 * LIMIT + 77))


def test_a_huge_line_becomes_documents_under_the_limit(tmp_path):
    line = long_line('abcdefgh')
    found = texts(read(write(tmp_path / 'a.txt', line)))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line
    assert len(found) < 12


@pytest.mark.parametrize('packed', [False, True])
def test_a_huge_line_of_wide_characters_is_cut_between_them(tmp_path, packed):
    line = 'a' + long_line('é語🪁')
    data = line.encode()
    file = write(tmp_path / 'a.txt.gz', gzip.compress(data, 1)) if packed else write(tmp_path / 'a.txt', data)
    found = texts(read(file))
    assert max(map(len, found)) <= LIMIT
    assert ''.join(found) == line


@pytest.mark.parametrize('separator', ['\n', ' '])
def test_a_huge_document_is_streamed(tmp_path, separator):
    file = write(tmp_path / 'a.txt', separator.join(['x' * 1000] * 3000))
    assert next(sources.documents(str(file), 'train', 'text')).progress < 0.2


def test_a_document_of_many_lines_is_cut_between_them(tmp_path):
    lines = [f'line {i} ' + 'x' * 1000 for i in range(300)]
    found = read(write(tmp_path / 'a.txt', '\n'.join(lines)))
    assert len(found) > 300_000 // LIMIT
    assert max(map(len, texts(found))) <= LIMIT
    assert min(map(len, texts(found[:-1]))) > LIMIT - 2 * len(lines[-1]), 'no scraps between'
    assert [p for d in found for p in d] == lines


@given(st.lists(st.integers(0, 3 * LIMIT), max_size=6), st.integers(0, 3))
def test_cutting_loses_nothing(sizes, seed):
    letters = np.random.default_rng(seed).integers(97, 123, sum(sizes)).astype(np.uint8).tobytes().decode()
    lines, start = [], 0
    for size in sizes:
        lines.append(letters[start : start + size])
        start += size
    found = list(sources._documents(lines, 0.5))
    assert ''.join(p for d in found for p in d.paragraphs) == letters
    assert all(0 < sum(map(len, d.paragraphs)) <= LIMIT for d in found)
    assert all(d.paragraphs and all(d.paragraphs) for d in found)


@pytest.mark.parametrize('suffix', ['.txt', '.txt.gz', '.jsonl'])
def test_progress_grows_to_one_over_all_files(tmp_path, suffix):
    for name, n in (('a', 30), ('b', 90)):
        lines = [f'Line {i} ' + 'x' * 100 for i in range(n)]
        data = '\n\n'.join(json.dumps({'text': x}) if suffix == '.jsonl' else x for x in lines).encode()
        write(tmp_path / f'{name}{suffix}', gzip.compress(data) if suffix.endswith('gz') else data)
    progress = [d.progress for d in sources.documents(f'{tmp_path}/*{suffix}', 'train', 'text')]
    assert len(progress) == 120
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert 0 < progress[29] < 0.4


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'no gzip'])
def test_a_damaged_gzip_is_named(tmp_path, damage):
    data = gzip.compress(b''.join(b'Line %d.\n' % i for i in range(20_000)))
    data = {'cut': data[:-300], 'flipped': data[:500] + b'\xff\xff\xff' + data[503:], 'no gzip': b'plain'}[
        damage
    ]
    with pytest.raises(UserError, match=r"b\.txt\.gz' is damaged or not gzip \(.+\): fetch it again"):
        read(write(tmp_path / 'b.txt.gz', data))


@pytest.mark.parametrize('line', ['{"text": "a"', 'kite', '{"text": "a"} {}'])
def test_a_line_that_is_no_json_is_named_with_its_number(tmp_path, line):
    file = write(tmp_path / 'a.jsonl', '{"text": "a"}\n\n' + line + '\n')
    with pytest.raises(UserError, match=r'a\.jsonl, line 3 is not JSON \(.+\): .* one object a line'):
        read(file)


@pytest.mark.parametrize('record', ['[1]', '"text"', '3', 'null'])
def test_a_json_line_that_is_no_object_is_named(tmp_path, record):
    with pytest.raises(UserError, match=r"a\.jsonl, line 1 has no text field 'text'"):
        read(write(tmp_path / 'a.jsonl', record))


def test_a_missing_text_key_names_the_nearest(tmp_path):
    file = write(tmp_path / 'a.jsonl', json.dumps({'content': 'a', 'title': 'b', 'contents': 3}))
    message = r"line 1 has no text field 'contentx': set data\.text_key; did you mean 'content'\?"
    with pytest.raises(UserError, match=message):
        read(file, 'contentx')
    with pytest.raises(UserError, match=r"no text field 'contents'.*did you mean 'content'\?"):
        read(file, 'contents')


def test_text_of_jsonl_can_always_be_encoded(tmp_path, words):
    file = write(tmp_path / 'a.jsonl', '{"text": "half a pair \\ud800 here"}')
    (text,) = texts(read(file))
    assert text.encode().startswith(b'half a pair ')
    words.encode([text])


@pytest.mark.parametrize('source', ['nothing.txt', 'nothing*.md', 'nothing.txt.gz', 'nothing.jsonl'])
def test_files_that_are_not_there_are_named(tmp_path, source):
    with pytest.raises(UserError, match=r'No file matches .*nothing.*: give a path or glob of'):
        read(tmp_path / source)


def test_a_folder_is_no_source(tmp_path):
    with pytest.raises(UserError, match=r'is a folder: name the files in it, such as .*/\*\.txt'):
        read(tmp_path)


def test_packed_jsonl_is_not_taken_for_text(tmp_path):
    write(tmp_path / 'a.jsonl.gz', gzip.compress(b'{"text": "One."}\n'))
    try:
        assert read(tmp_path / 'a*') == [['One.']]
    except UserError as e:
        assert 'a.jsonl.gz' in str(e)


def test_a_folder_that_a_glob_finds_is_skipped_or_named(tmp_path):
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
    """A folder with a prepared data set whose builder nobody has."""
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


def test_prepared_data_needs_no_builder(kites):
    found = sources.examples(kites, 'train')
    assert len(found) == 7
    assert by_number(found) == KITES
    assert [found[i]['n'] for i in range(7)] == [e['n'] for e in found]
    assert len(sources.examples(kites, 'test')) == 2


def test_examples_count_from_either_end(kites):
    found = sources.examples(kites, 'train')
    assert found[-1] == found[6]
    with pytest.raises(IndexError):
        found[7]


def test_records_of_a_data_set_are_documents(kites):
    found = list(sources.documents(kites, 'train', 'text'))
    assert sorted(d.paragraphs for d in found) == [[f'Kite {i} é.', 'It flies.'] for i in range(7)]
    assert [d.progress for d in found] == pytest.approx(np.arange(1, 8) / 7)


def test_a_part_of_a_split(kites):
    assert len(sources.examples(kites, 'train[:3]')) == 3


def test_splits_add_up(kites):
    assert len(sources.examples(kites, 'train+test')) == 9


def test_features_name_the_classes(kites):
    assert sources.features(kites)['label'].names == ['down', 'up']


def test_a_wrong_text_key_of_a_data_set_names_the_nearest(kites):
    with pytest.raises(
        UserError, match=r"kite_texts has no text field 'texts': set data\.text_key; did you mean 'text'\?"
    ):
        list(sources.documents(kites, 'train', 'texts'))


@pytest.mark.parametrize('split', ['trian', 'trian[:3]'])
def test_an_unknown_split_names_the_nearest(kites, split):
    with pytest.raises(UserError, match=r"kite_texts has no split 'trian': did you mean 'train'\?"):
        sources.examples(kites, split)


@pytest.mark.parametrize('split', ['train[', 'train[:x]', 'train[5:2]'])
def test_a_part_that_cannot_be_is_an_error_that_names_it(kites, split):
    with pytest.raises(UserError) as error:
        len(sources.examples(kites, split))
    assert split in str(error.value)


def test_an_unknown_data_set_names_the_nearest_and_the_remedy(kites, prepared):
    with pytest.raises(UserError) as error:
        sources.examples('kite_text', 'train')
    text = str(error.value)
    assert "no data set 'kite_text'" in text
    assert "did you mean 'kite_texts'?" in text
    assert f'TFDS_DATA_DIR={prepared}' in text
    assert 'point TFDS_DATA_DIR to' in text


def test_an_unknown_config_of_a_data_set_is_named(sst2):
    with pytest.raises(UserError, match=r"no 'sst3' of glue in .* did you mean 'sst2'"):
        sources.examples('glue/sst3', 'train')


def test_data_that_cannot_be_downloaded_says_how_to_prepare_it(kites, prepared, monkeypatch):
    def offline(self, **_):
        raise ConnectionError('Network is unreachable\nand more')

    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', offline)
    with pytest.raises(UserError) as error:
        sources.examples('glue/cola', 'train')
    text = str(error.value)
    assert f'glue/cola is not in TFDS_DATA_DIR={prepared}' in text
    assert '(Network is unreachable)' in text
    assert 'tfds build glue/cola --file_format=array_record' in text


def test_damaged_data_is_an_error_that_names_it(prepared, tmp_path, monkeypatch):
    folder = tmp_path / 'kite_texts' / '1.0.0'
    folder.mkdir(parents=True)
    for file in (prepared / 'kite_texts' / '1.0.0').iterdir():
        data = file.read_bytes()
        write(folder / file.name, data[:100] if 'array_record' in file.name else data)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    with pytest.raises(
        UserError, match=r"kite_texts, split 'train', cannot be read \(.+\): prepare it again"
    ):
        list(sources.examples('kite_texts', 'train'))


def test_pydocs_configs_are_checked_before_anything_is_built():
    with pytest.raises(UserError, match=r"pydocs has no config 'txt': did you mean 'text'\?"):
        sources.examples('pydocs/txt', 'train')


def test_a_real_data_set(sst2):
    found = sources.examples(sst2, 'validation')
    assert len(found) == 872
    assert set(found[0]) == {'sentence', 'label', 'idx'}
    assert all(isinstance(e['sentence'], str) and e['label'] in (0, 1) for e in found)
    assert sources.features(sst2)['label'].num_classes == 2
    assert len(list(sources.documents(sst2, 'validation', 'sentence'))) == 872
