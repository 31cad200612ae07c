"""Plan memory, communication and minimum time of a run, without the chips."""

from collections.abc import Iterable

from bert_jax.core import cli
from bert_jax.train.settings import read_sections


def main() -> None:
    parser = cli.make_parser(
        'plan',
        __doc__,
        '--config=configs/pretrain/bert.py:base --topology=v5e:4x4 --price=1.2',
        '--config=configs/pretrain/bert.py:large --topology=h100:8,v5e:4x4 --strategies=dp,fsdp',
    )
    parser.add_argument('--config', required=True, help='config file, with :arg if it takes an argument')
    parser.add_argument(
        '--topology',
        required=True,
        help='TPU, such as v5e:4x4 or v4:2x2x2 (v4, v5e, v5p, v6e, tpu7x), planned by the real compiler; or GPUs, such as '
        'h100:8 (a100, h100, h200, b200), planned by formula; several, separated by commas, are compared in a table',
    )
    parser.add_argument(
        '--strategies', default='', help='values of mesh.strategy to compare in a table, separated by commas'
    )
    parser.add_argument(
        '--search', action='store_true', help='find the largest batch that fits for each value of model.remat'
    )
    parser.add_argument(
        '--price', type=float, default=0.0, help='price of a chip-hour, to estimate the cost of the run'
    )
    parser.add_argument(
        '--parameters', action='store_true', help='also list all parameters with their shapes and shardings'
    )
    parser.add_argument(
        '--full',
        action='store_true',
        help='for a TPU, also generate the machine code, whose size is estimated otherwise; takes several times as long',
    )
    flags, overrides = cli.parse_args(parser, read_sections)
    cli.check_minimum(parser, flags, 'price', 0)
    makes_table = ',' in flags.topology.strip(', ') or flags.strategies
    if flags.search and makes_table:
        parser.error('--search takes a single --topology and no --strategies')
    if flags.price and (flags.search or makes_table):
        parser.error('--price takes a single --topology, and neither --search nor --strategies')

    if flags.full and (flags.search or makes_table):
        parser.error('--full takes a single --topology, and neither --search nor --strategies')

    from bert_jax.data.prepare import TextConfig
    from bert_jax.planning import abstract_step, plan
    from bert_jax.train import experiment as experiment_lib
    from bert_jax.train import loop

    topologies = plan.parse_topologies(flags.topology)
    experiment, tokenizer = abstract_step.complete_experiment(experiment_lib.read(flags.config, overrides))
    is_pretraining = isinstance(experiment.data, TextConfig)
    examples = 0 if is_pretraining else len(experiment.make_task(tokenizer).train_rows())
    phases = loop.make_phases(experiment, examples)
    if flags.search or makes_table:
        print(f'{phases[0].batch_size:,} rows of {phases[0].length} tokens (first phase)')
    if flags.search:
        lines: Iterable[str] = plan.describe_largest_batches(experiment, tokenizer, phases[0], topologies[0])
    elif makes_table:
        settings = [f'mesh.strategy={s}' for s in flags.strategies.split(',') if s]
        read = experiment_lib.read
        meshes = [read(flags.config, [*overrides, s]).mesh for s in settings] or [experiment.mesh]
        table = plan.compare_topologies(experiment, tokenizer, phases[0], topologies, meshes)
        lines = [cli.format_table(table)]
    else:
        options = (flags.price, flags.parameters, flags.full)
        lines = plan.describe_run(experiment, tokenizer, phases, topologies[0], *options)
    for line in lines:
        print(line, flush=True)


if __name__ == '__main__':
    cli.run(main, stops_without_reader=True)
