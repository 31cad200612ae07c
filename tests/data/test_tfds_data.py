"""Data sets of TFDS: found in several folders, read without their builders, never downloaded unless asked."""

import shutil
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from bert_jax.core.errors import UserError
from bert_jax.data import prepare, records, sources, tfds_data
from bert_jax.data.rows import SegmentRows
from tests.runs import run_in_process


def write(path, data):
    path.write_bytes(data)


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
    found = tfds_data.load_examples(kites, 'train')
    assert len(found) == 7
    assert by_number(found) == KITES
    assert [found[i]['n'] for i in range(7)] == [e['n'] for e in found]
    assert len(tfds_data.load_examples(kites, 'test')) == 2


def test_examples_support_negative_indices(kites):
    found = tfds_data.load_examples(kites, 'train')
    assert found[-1] == found[6]
    with pytest.raises(IndexError):
        found[7]


def test_data_set_records_are_documents(kites):
    found = list(sources.read_documents(kites, 'train', 'text'))
    assert sorted(d.paragraphs for d in found) == [[f'Kite {i} é.', 'It flies.'] for i in range(7)]
    assert [d.progress for d in found] == pytest.approx(np.arange(1, 8) / 7)


def test_slice_of_a_split(kites):
    assert len(tfds_data.load_examples(kites, 'train[:3]')) == 3


def test_splits_can_be_combined(kites):
    assert len(tfds_data.load_examples(kites, 'train+test')) == 9


def test_features_contain_class_names(kites):
    assert tfds_data.load_features(kites)['label'].names == ['down', 'up']


def test_wrong_text_key_of_a_data_set_suggests_the_nearest(kites):
    with pytest.raises(
        UserError, match=r"kite_texts has no text field 'texts'\. Set data\.text_key: did you mean 'text'\?"
    ):
        list(sources.read_documents(kites, 'train', 'texts'))


@pytest.mark.parametrize('split', ['trian', 'trian[:3]'])
def test_unknown_split_suggests_the_nearest(kites, split):
    with pytest.raises(
        UserError, match=r"kite_texts has no split 'trian': did you mean 'train'\? Others: test\. Set one"
    ):
        tfds_data.load_examples(kites, split)


@pytest.mark.parametrize('use', [tfds_data.load_examples, tfds_data.describe])
@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ('train[', "Cannot read split 'train\\['"),
        ('train[:x]', r"Cannot read split 'train\[:x\]'"),
        ('train[5:2]', r"Split 'train\[5:2\]' of .* is empty"),
        ('train[:0]', r"Split 'train\[:0\]' of .* is empty"),
    ],
)
def test_invalid_or_empty_slice_is_named(kites, use, split, message):
    with pytest.raises(UserError, match=message):
        use(kites, split)


def test_unknown_data_set_suggests_the_nearest_and_tfds_data_dir(kites, prepared):
    with pytest.raises(UserError) as error:
        tfds_data.load_examples('kite_text', 'train')
    text = str(error.value)
    assert "Data set 'kite_text' is neither in" in text
    assert "did you mean 'kite_texts'?" in text
    assert f'TFDS_DATA_DIR={prepared}' in text
    assert 'Set TFDS_DATA_DIR to' in text
    assert text.endswith('Prepared there: kite_texts.')


def test_unknown_config_of_a_data_set_suggests_the_nearest(sst2):
    with pytest.raises(UserError, match=r"glue has no config or version 'sst3' in .* did you mean 'sst2'"):
        tfds_data.load_examples('glue/sst3', 'train')


def test_missing_data_set_of_the_catalog_says_how_to_download_it_without_asking_the_network(
    kites, prepared, monkeypatch
):
    monkeypatch.setattr(tfds, 'builder', lambda *_, **__: pytest.fail('a builder asks the network'))
    monkeypatch.setenv('TFDS_DATA_DIR', f'/no/folder:{prepared}')
    with pytest.raises(UserError) as error:
        tfds_data.load_examples('glue/cola', 'train')
    text = str(error.value)
    assert f"'glue/cola' is not in TFDS_DATA_DIR=/no/folder:{prepared} (/no/folder does not exist)" in text
    assert '`python -m bert_jax.bin.download glue/cola`' in text


def test_home_and_several_folders_are_searched(kites, prepared, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(prepared.parent))
    monkeypatch.setenv('TFDS_DATA_DIR', f'{tmp_path}:~/{prepared.name}')
    assert tfds_data.folders() == [str(tmp_path), str(prepared)]
    assert len(tfds_data.load_examples(kites, 'test')) == 2
    monkeypatch.setenv('TFDS_DATA_DIR', 'gs://bucket/a:/b')
    assert tfds_data.folders() == ['gs://bucket/a', '/b']
    assert not (tmp_path / '~').exists()


@pytest.fixture
def configs(prepared, tmp_path, monkeypatch):
    """A data set with two configs."""
    for config in ('en', 'de'):
        shutil.copytree(prepared / 'kite_texts', tmp_path / 'flights' / config)
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))


def test_config_must_be_named(configs):
    with pytest.raises(
        UserError, match=r"'flights' has several configs\. Name one of flights/de, flights/en\."
    ):
        tfds_data.load_features('flights')
    with pytest.raises(UserError, match=r"no config or version 'fr' in .* known: de, en"):
        tfds_data.load_features('flights/fr')
    with pytest.raises(UserError, match=r"'de' is neither .*did you mean 'flights/de'"):
        tfds_data.load_features('de')


def test_download_prepares_the_data_set_in_the_first_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TFDS_DATA_DIR', f'{tmp_path}/new:/other')
    made = []

    def builder(name, **options):
        made.append((name, options))
        return types.SimpleNamespace(
            is_prepared=lambda: False, download_and_prepare=lambda: made.append('done')
        )

    monkeypatch.setattr(tfds, 'builder', builder)
    done = run_in_process('bert_jax.bin.download', 'glue/cola')
    assert done.stdout == f'glue/cola: {tmp_path}/new\n'
    assert made == [('glue/cola', {'data_dir': f'{tmp_path}/new', 'file_format': 'array_record'}), 'done']


def test_failed_download_is_explained(tmp_path, monkeypatch):
    def offline(self, **_):
        raise ConnectionError('Network is unreachable\nand more')

    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', offline)
    with pytest.raises(UserError, match=r'cannot be downloaded to .* \(Network is unreachable\)'):
        tfds_data.download('kitti')
    with pytest.raises(UserError, match=r"has no data set 'kittti': did you mean 'kitti'"):
        tfds_data.download('kittti')


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
        list(tfds_data.load_examples('kite_texts', 'train'))


def test_unknown_pydocs_config_is_rejected_before_building():
    with pytest.raises(UserError, match=r"pydocs has no config 'txt': did you mean 'text'\?"):
        tfds_data.load_examples('pydocs/txt', 'train')


def test_real_data_set(sst2):
    found = tfds_data.load_examples(sst2, 'validation')
    assert len(found) == 872
    assert set(found[0]) == {'sentence', 'label', 'idx'}
    assert all(isinstance(e['sentence'], str) and e['label'] in (0, 1) for e in found)
    assert tfds_data.load_features(sst2)['label'].num_classes == 2
    assert len(list(sources.read_documents(sst2, 'validation', 'sentence'))) == 872


@pytest.mark.parametrize(
    ('a', 'b', 'overlap'),
    [
        ('train', 'train', True),
        ('train', 'train[:100]', True),
        ('test + train', 'validation+train[:10%]', True),
        ('validation[:800]', 'validation[:800]', True),
        ('validation[:800]', 'validation[800:]', False),
        ('train', 'train_small', False),
        ('train+test', 'validation', False),
    ],
)
def test_splits_overlap_if_they_have_a_part_in_common(a, b, overlap):
    assert tfds_data.splits_overlap(a, b) == tfds_data.splits_overlap(b, a) == overlap


@pytest.mark.parametrize(
    ('a', 'b', 'overlap'),
    [
        ('train[:95%]', 'train[60%:]', True),
        ('train[:4]', 'test+train[3:]', True),
        ('train[-4:]', 'train[:50%]', True),
        ('train[:60%]', 'train[60%:]', False),
        ('train[:3]+test', 'train[3:]', False),
        ('train[:9]', 'train[9:]', False),
    ],
)
def test_slices_of_a_prepared_split_are_compared(kites, a, b, overlap):
    assert tfds_data.splits_overlap(a, b, kites) == tfds_data.splits_overlap(b, a, kites) == overlap
    assert records.splits_overlap(kites, a, b) == overlap
    assert not tfds_data.splits_overlap(a, b, 'not_prepared')


def test_overlapping_slices_are_not_prepared(kites, word_tokenizer, tmp_path):
    text = prepare.TextConfig((kites,), 'train[:95%]', 'train[60%:]', workers=1)
    with pytest.raises(UserError, match=r"data.split='train\[:95%\]' .* the same examples"):
        prepare.prepare(text, SegmentRows(32), word_tokenizer, tmp_path / 'rows')
