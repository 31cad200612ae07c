"""Collect runs, tables and studies in one HTML page."""

from bert_jax.core import cli, paths


def main() -> None:
    parser = cli.make_parser(
        'report',
        __doc__,
        'runs/english runs/sst2 --out=report.html',
        'runs/english --out=report.html --plots=plots --fill="The captain looked at the [MASK]."',
    )
    parser.add_argument(
        'workdirs',
        nargs='+',
        metavar='DIR',
        help='working directory of a run, table or study, or a folder that contains several of them',
    )
    parser.add_argument('--out', required=True, metavar='FILE', help='HTML file to write')
    parser.add_argument(
        '--fill',
        action='append',
        default=[],
        metavar='TEXT',
        help='text with [MASK] for the first masked language model to fill in; may be repeated',
    )
    parser.add_argument('--plots', metavar='DIR', help='also write the plots to this folder')
    flags = parser.parse_args()

    from bert_jax.evals import fill_mask
    from bert_jax.experiments import runs as runs_lib
    from bert_jax.reports import export, page

    out, workdirs = paths.make_path(flags.out), [*map(paths.make_path, flags.workdirs)]
    plots = paths.make_path(flags.plots) if flags.plots else None
    cli.check_output(out, '--out')
    if plots:
        cli.check_writable(plots / 'loss.png', '--plots')
    files = {workdir: export.find(workdir) for workdir in workdirs}
    # For the folder of a table or study, show only its result, not the runs below it.
    runs = {
        workdir: [] if {p.parent for p in files[workdir]} == {workdir} else runs_lib.find(workdir)
        for workdir in workdirs
    }
    masked_lms = [
        w
        for w, found in runs.items()
        if found and found[0].config['task']['name'] in ('mlm', 'bilingual', 'rtd')
    ]
    if flags.fill and not masked_lms:
        parser.error(
            '--fill needs a masked language model; pass the --workdir of a BERT pretraining run as a DIR'
        )
    filled = fill_mask.fill(str(masked_lms[0]), flags.fill) if flags.fill else []
    html = page.render(
        [run for found in runs.values() for run in found],
        list(zip(flags.fill, filled, strict=False)),
        plots,
        [file for found in files.values() for file in found],
    )
    paths.write_atomic(out, html)
    print(f'wrote {out}')


if __name__ == '__main__':
    cli.run(main)
