"""The TFDS data set `pydocs`: English text and labeled examples on any machine, without a download.

The examples are generated from the docstrings and sources of the standard library and of the installed distributions
that this project depends on. A module (a source file) is in the same split in every config, so pretraining on the text
never sees the validation and test examples of the labeled configs.

    builder = Pydocs(config='text', data_dir=f'{folder}/{source.fingerprint()}')
    builder.download_and_prepare()
    train = builder.as_data_source('train')

The examples depend on the installed versions, which `source.fingerprint` identifies.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from bert_jax.data.pydocs import examples, source
from bert_jax.data.pydocs.examples import KINDS, MATCH, Example, KeyedExample
from bert_jax.data.pydocs.token_roles import TAGS

Roots = Sequence[str | os.PathLike[str]]
_Label, _Sequence, _Text = tfds.features.ClassLabel, tfds.features.Sequence, tfds.features.Text
FEATURES: dict[str, Callable[[], dict[str, Any]]] = {
    'text': lambda: {'title': _Text(), 'text': _Text()},
    'classify': lambda: {'text': _Text(), 'label': _Label(names=KINDS)},
    'pair': lambda: {'signature': _Text(), 'summary': _Text(), 'label': _Label(names=MATCH)},
    'tagging': lambda: {'tokens': _Sequence(_Text()), 'tags': _Sequence(_Label(names=TAGS))},
    'qa': lambda: {
        'id': _Text(),
        'title': _Text(),
        'context': _Text(),
        'question': _Text(),
        'answers': _Sequence({'text': _Text(), 'answer_start': tfds.features.Scalar(dtype=np.int32)}),
    },
}
EXAMPLES = {
    'text': examples.text_examples,
    'classify': examples.classify_examples,
    'pair': examples.pair_examples,
    'tagging': examples.tagging_examples,
    'qa': examples.qa_examples,
}


def make_examples(config: str, roots: Roots | None = None) -> dict[str, dict[str, Example]]:
    """Return the examples of a config by split and key, without empty splits.

    Args:
      config: name of the config, a key of `EXAMPLES`.
      roots: folders of Python files to read instead of the installed sources.
    """
    modules = source.installed_corpus() if roots is None else source.read_corpus(source.source_files(roots))
    splits: dict[str, dict[str, Example]] = {'train': {}, 'validation': {}, 'test': {}}
    for module, (key, example) in EXAMPLES[config](modules):
        splits[module.split].setdefault(key, example)
    if config == 'text':
        del splits['test']
    return {split: keyed for split, keyed in splits.items() if keyed}


class Pydocs(tfds.core.GeneratorBasedBuilder):
    """Docstrings and code of installed Python packages, as five small tasks.

    Args:
      roots: folders of Python files to read instead of the installed sources.
      **kwargs: arguments of every TFDS builder, such as `config` and `data_dir`.
    """

    VERSION = tfds.core.Version(source.VERSION)
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name='text', description='Documentation of one module per example.'),
        tfds.core.BuilderConfig(name='classify', description='The kind of item that a summary describes.'),
        tfds.core.BuilderConfig(name='pair', description='Whether a summary describes a signature.'),
        tfds.core.BuilderConfig(name='tagging', description='The syntactic role of each token of code.'),
        tfds.core.BuilderConfig(name='qa', description='Questions answered by spans of documentation.'),
    ]
    pkg_dir_path = epath.Path(__file__).parent  # TFDS infers it only for regular packages

    def __init__(self, *, roots: Roots | None = None, **kwargs: Any):
        super().__init__(**{'file_format': 'array_record'} | kwargs)
        self._roots = self._original_state['roots'] = roots  # the state is for pickling

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(FEATURES[self.builder_config.name]()),
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterable[KeyedExample]]:
        splits = make_examples(self.builder_config.name, self._roots)
        return {split: self._generate_examples(keyed) for split, keyed in splits.items()}

    def _generate_examples(self, keyed: dict[str, Example]) -> Iterator[KeyedExample]:
        yield from keyed.items()
