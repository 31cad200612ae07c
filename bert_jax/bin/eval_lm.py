"""Score a language model on running text, the last words of passages, multiple-choice questions or minimal pairs."""

from collections.abc import Sequence

from bert_jax.core import cli
from bert_jax.core import config as config_lib
from bert_jax.core.settings import Section, describe_section


def main() -> int:
    parser = cli.eval_parser(
        'lm',
        __doc__,
        '--config=configs/eval/lm.py:text --checkpoint=runs/gpt --out=runs/gpt/text.json',
        '--config=configs/eval/lm.py:blimp --checkpoint=runs/english --out=runs/english/blimp.json',
    )
    flags, overrides = cli.parse_args(parser, _read_sections)

    from bert_jax.evals import language_model, scoring

    return scoring.score_checkpoints(lambda: language_model.Scorer(flags.config, overrides), flags)


def _read_sections(spec: str, overrides: Sequence[str]) -> list[Section]:
    from bert_jax.evals import language_model

    config = language_model.read_config(spec, overrides)
    origins = dict.fromkeys(config_lib.load(spec).eval, 'config')
    return [describe_section(type(config), 'eval', vars(config), origins, overrides)]


if __name__ == '__main__':
    cli.run(main)
