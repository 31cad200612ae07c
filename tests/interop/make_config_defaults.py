"""Create config_defaults.json: defaults and aliases of the keys in a `config.json`, by model type.

Run it by hand where transformers is installed; the tests that read the file do not need it:

    python -m tests.interop.make_config_defaults
"""

import json
import pathlib

import transformers

FILE = pathlib.Path(__file__).with_name('config_defaults.json')
MODEL_TYPES = (
    'bert',
    'roberta',
    'roberta-prelayernorm',
    'distilbert',
    'modernbert',
    'modernbert-decoder',
    'xlm-roberta',
    'gpt2',
    'bart',
    'electra',
    'mpnet',
    'nomic_bert',
    'albert',
    't5',
    'mt5',
    'eurobert',
    'deberta-v2',
    'llama',
    'qwen3',
    'starcoder2',
)


def main():
    contents = {}
    for model_type in MODEL_TYPES:
        config = transformers.AutoConfig.for_model(model_type)
        defaults = json.loads(config.to_json_string(use_diff=False))
        del defaults['transformers_version']
        contents[model_type] = {'defaults': defaults, 'aliases': config.attribute_map}
    FILE.write_text(json.dumps(contents, indent=1, sort_keys=True) + '\n')
    print(f'{FILE}: transformers {transformers.__version__}')


if __name__ == '__main__':
    main()
