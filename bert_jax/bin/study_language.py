"""Where does a model keep the language? --checkpoint=DIR --out=DIR [--text=en=FILE --text=de=FILE] [--parallel=multi30k]."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.study_language', description=__doc__)
    parser.add_argument(
        '--checkpoint', required=True, help='a --workdir that was pretrained on several languages'
    )
    parser.add_argument('--out', required=True, type=pathlib.Path, help='a folder for table and figure')
    cli.add_texts(parser)
    parser.add_argument(
        '--alphas',
        default='0,1,2,3',
        help='by how many differences of the means to shift; 0 is what comes out unmoved',
    )
    parser.add_argument(
        '--static',
        action='store_true',
        help='hold word2vec beside it, made by gensim from the text of the pretraining',
    )
    flags = parser.parse_args()
    alphas = cli.numbers(flags.alphas, '--alphas')
    cli.check_writable(flags.out / 'language.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.reports import export
    from bert_jax.studies import hidden_states, language
    from bert_jax.studies import word2vec as static_lib

    runtime.prepare_process()
    reader = hidden_states.open_reader(
        flags.checkpoint, cli.texts(flags.text), flags.parallel, flags.split, flags.limit
    )
    source = flags.parallel or ', '.join(flags.text) or 'held out in pretraining'
    about = {'checkpoint': flags.checkpoint, 'source': source, 'split': flags.split if flags.parallel else ''}
    static = static_lib.StaticReader(reader, static_lib.word2vec(reader)) if flags.static else None
    found = {**about, **language.study(reader, alphas, static)}
    lines = language.lines(found)
    text = (
        f'# Where is the language? {flags.checkpoint}\n\n{language.about(found)}\n\n{export.markdown(lines)}'
    )
    export.write(flags.out, 'language', text, lines, language.figure(found), found)
    print(text, end='')
    return 0


if __name__ == '__main__':
    cli.run(main)
