"""Write golden_ids.json: ids and offsets from transformers for unusual texts and published vocabularies.

Usage: python tests/data/make_golden_ids.py FOLDER, where FOLDER holds the files in `NAMES`. Needs transformers.
"""

import json
import pathlib
import shutil
import sys
import tempfile

NAMES = ('bert_base_uncased.txt', 'bert_base_multilingual_cased.txt', 'gpt2_vocab.bpe')
TEXTS = [
    "Don't you'll we've O'Neil's “quoted” – dash… 3.14159 U.S.A. e-mail@x.org",
    'naïve Ångström ŒUVRE İstanbul ǅ ﬁne ﬀ ½ ² ™',
    'e\u0301 a\u0308\u0301 \u0301x n\u0303o',
    '中文字符，混合English和数字123。日本語テスト 한국어',
    'هذا اختبار للنص العربي، مع علامات. עברית ไทย हिन्दी',
    '\ttabs\nnew lines\r\nnon-breaking\xa0space\u3000wide\u200bzero\u200dwidth\ufeff',
    '\x00null\x01control\ufffdreplaced\x7f\x85',
    '👩‍👩‍👧‍👦 😀🏽 🇩🇪 𝕳𝖊𝖑𝖑𝖔 \U0010ffff \U00020000',
    'x' * 101 + ' ' + 'y' * 100,
    '',
    '   ',
    '.,;:!?()[]{}<>/\\|@#$%^&*-_=+`~\'"',
    '[MASK [SEPX ##ing [unused1]',
    'Donaudampfschifffahrtsgesellschaft pneumonoultramicroscopicsilicovolcanoconiosis',
]


def main(folder: pathlib.Path) -> None:
    from transformers import BertTokenizer, GPT2Tokenizer

    golden = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as temporary:
            if name.endswith('.txt'):
                shutil.copy(folder / name, f'{temporary}/vocab.txt')
                tokenizer = BertTokenizer.from_pretrained(temporary, do_lower_case='uncased' in name)
            else:
                shutil.copy(folder / name, f'{temporary}/merges.txt')
                shutil.copy(folder / name.replace('vocab.bpe', 'encoder.json'), f'{temporary}/vocab.json')
                tokenizer = GPT2Tokenizer.from_pretrained(temporary)
            encoded = tokenizer(TEXTS, add_special_tokens=False, return_offsets_mapping=True)
            golden[name] = [
                {'text': text, 'ids': ids, 'offsets': [[*o] for o in offsets]}
                for text, ids, offsets in zip(
                    TEXTS, encoded['input_ids'], encoded['offset_mapping'], strict=True
                )
            ]
    text = json.dumps(golden, ensure_ascii=True)
    (pathlib.Path(__file__).parent / 'golden_ids.json').write_text(text + '\n')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
