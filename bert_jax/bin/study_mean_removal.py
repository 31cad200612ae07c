"""Does it help a fine-tuned model to remove the mean of a foreign language? --checkpoint=DIR --home=CONFIG --away=CONFIG --out=DIR."""

import argparse
import pathlib

from bert_jax.core import cli


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m bert_jax.bin.study_mean_removal', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='a --workdir that was fine-tuned in one language')
    parser.add_argument(
        '--home', required=True, help='a config of the task with data in the language of the fine-tuning'
    )
    parser.add_argument('--away', required=True, help='the same in another language')
    parser.add_argument('--score', default='accuracy', help='which score, as eval binaries name it')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='a folder for table and figure')
    flags, overrides = cli.parse(parser)
    cli.check_writable(flags.out / 'mean_removal.json', '--out')

    from bert_jax.core import runtime
    from bert_jax.evals import scoring
    from bert_jax.reports import export
    from bert_jax.studies import mean_removal

    runtime.prepare_process()
    path = pathlib.Path(flags.checkpoint)
    (trained, home), (_, away) = (
        scoring.Scorer(spec, overrides).evaluator(path) for spec in (flags.home, flags.away)
    )
    found = mean_removal.study(trained, home, away, flags.score)
    about = {'checkpoint': flags.checkpoint, 'home': flags.home, 'source': flags.away, 'split': ''}
    lines = mean_removal.lines(found)
    text = (
        f'# Without the mean of the language: {flags.checkpoint}\n\nTrained on {flags.home}, scored on {flags.away}, '
        f'{found["rows"]:,} rows.\n\n{export.markdown(lines)}'
    )
    export.write(flags.out, 'mean_removal', text, lines, mean_removal.figure(found), about | found)
    print(text, end='')
    return 0


if __name__ == '__main__':
    cli.run(main)
