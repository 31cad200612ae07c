"""Generate the reference of config keys, commands and the Python API from the code.

Sphinx calls `write` before it reads its sources. The pages go to `docs/reference/{config,commands,api}`, which Git
ignores.
"""

import argparse
import dataclasses
import importlib
import inspect
import itertools
import pathlib
import pkgutil
import re
import textwrap
import typing
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from docutils import nodes as docutils_nodes
from sphinx import addnodes

import bert_jax
from bert_jax import modeling, tasks
from bert_jax.core.settings import Key, read_keys
from bert_jax.evals import language_model
from bert_jax.experiments import tables
from bert_jax.reports.export import to_markdown
from bert_jax.train import experiment
from docs import commands

REFERENCE = pathlib.Path(__file__).parent / 'reference'


class Section(NamedTuple):
    """A group of config keys on one page.

    Attributes:
      page: file name of the page, without suffix.
      title: heading.
      group: what distinguishes keys of the same name, such as a task; empty for keys that exist once.
      cls: dataclass of the section.
      prefix: section name in a config, such as 'train'.
    """

    page: str
    title: str
    group: str
    cls: type
    prefix: str

    def config_keys(self) -> list[Key]:
        """Return the keys of this section in the order of the dataclass."""
        return read_keys(self.cls, self.prefix)


def sections() -> list[Section]:
    """Return all sections of all kinds of configs."""
    found = [
        Section('run', f'`{name}`', '', cls, name)
        for name, cls in typing.get_type_hints(experiment.Experiment).items()
        if dataclasses.is_dataclass(cls)
    ]
    data: dict[type, list[str]] = {}
    for name in tasks.names():
        found.append(Section('task', f'`task` {name}', name, tasks.get(name).Config, 'task'))
        data.setdefault(tasks.get(name).Task.Data, []).append(name)
    for cls, task_names in data.items():
        users = ', '.join(task_names)
        found.append(Section('data', f'`data` of {users}', users, cls, 'data'))
    for name, cls in model_configs().items():
        found.append(Section('model', f'`model` {name}', name, cls, 'model'))
    found += [
        Section('table', 'Table', 'table', tables.Table, ''),
        Section('table', 'Row', 'row of a table', tables.Row, ''),
        Section('table', 'Column', 'column of a table', tables.Column, ''),
    ]
    return [*found, Section('eval_lm', '`eval`', '', language_model.LmConfig, 'eval')]


def model_configs() -> dict[str, type]:
    """Return the `Config` of each model, by the name of its module in `modeling`."""
    names = [m.name for m in pkgutil.iter_modules(modeling.__path__)]
    modules = {name: importlib.import_module(f'bert_jax.modeling.{name}') for name in names}
    return {name: module.Config for name, module in modules.items() if hasattr(module, 'Config')}


def packages() -> dict[str, list[str]]:
    """Return the modules of the Python API by package; commands have their own pages."""
    found: dict[str, list[str]] = {'bert_jax': ['bert_jax']}
    for m in pkgutil.iter_modules(bert_jax.__path__, 'bert_jax.'):
        if m.name == 'bert_jax.bin':
            continue
        if not m.ispkg:
            found['bert_jax'].append(m.name)
            continue
        below = importlib.import_module(m.name).__path__
        found[m.name] = [m.name, *(s.name for s in pkgutil.walk_packages(below, m.name + '.'))]
    return found


def markdown(text: str) -> str:
    """Escape plain text for Markdown; text between backticks stays code, and flags and config keys become code."""
    parts = re.split(r'(``[^`]+``|`[^`\n]+`)', text)
    return ''.join(p if i % 2 else _escape(p) for i, p in enumerate(parts))


def _escape(text: str) -> str:
    out = []
    for word in re.split(r'(\s+)', text):
        lead, bare, tail = re.fullmatch(r'([("\'‘]*)(.*?)([)"\'’,.;:]*)', word, re.DOTALL).groups()  # type: ignore[union-attr]
        if bare and re.search(r'^--?\w|[{}\[\]<>*_=|\\$]|^\w+\.\w+\.\w|\w/\w+[./]', bare) and '`' not in word:
            missing = [c for c in tail if c == ')' and bare.count('(') > bare.count(')')]
            bare, tail = bare + ''.join(missing), tail[len(missing) :]
            out.append(f'{lead}`{bare}`{tail}')
        else:
            out.append(re.sub(r'([\\*_\[\]<>#|$])', r'\\\1', word))
    return ''.join(out)


def pages() -> dict[str, str]:
    """Return the pages of the reference: Markdown by file name below `docs/reference`."""
    return {**_config_pages(), **_command_pages(), **_api_pages()}


def write() -> None:
    """Write the pages of the reference, and remove those of names that no longer exist."""
    texts = pages()
    for path in REFERENCE.glob('*/*.md'):
        if str(path.relative_to(REFERENCE)) not in texts:
            path.unlink()
    for name, text in texts.items():
        path = REFERENCE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:  # an unchanged page is not built again
            path.write_text(text)


_CONFIG_PAGES = {
    'run': ('Run', 'Sections that every pretraining and fine-tuning config has. Each key has a default.'),
    'task': ('Tasks', 'The `task` section. `task.name` chooses the objective, and with it the keys of `task` and `data`.'),
    'data': ('Data', 'The `data` section. Its keys depend on the task.'),
    'model': ('Models', 'The `model` section. `model.name` chooses the model.'),
    'table': ('Tables', 'A table config holds rows (models), columns (what is done with each model) and published numbers.'),
    'eval_lm': ('Language-model evaluation', 'The `eval` section, for `python -m bert_jax.bin.eval_lm`.'),
}  # fmt: skip


def _config_pages() -> dict[str, str]:
    texts, all_sections = {}, sections()
    for page, (title, text) in _CONFIG_PAGES.items():
        lines = [f'# {title}', '', text, '']
        for section in (s for s in all_sections if s.page == page):
            lines += [f'## {section.title}', '', markdown(_summary(section.cls)), '']
            lines += [f'Source: {{py:class}}`{section.cls.__module__}.{section.cls.__qualname__}`', '']
            for key in section.config_keys():
                signature = [key.name, section.group, key.type, key.default]
                lines += ['```{key} ' + ' | '.join(s.replace('|', '¦') for s in signature)]
                lines += [markdown(_sentence(key.meaning)), '```', '']
        texts[f'config/{page}.md'] = '\n'.join(lines)
    text = (
        'All keys, their types, defaults and meanings, from the dataclasses that read them. '
        'Set a key in a config file, or on the command line as `--config.SECTION.KEY=VALUE`. The flag `--show` of the '
        'commands that take a config prints its keys with their values.'
    )
    texts['config/index.md'] = _index('Config keys', text, _CONFIG_PAGES)
    return texts


def _command_pages() -> dict[str, str]:
    texts, rows = {}, []
    for name in commands.names():
        page = name.rpartition('.')[2] if not name.endswith('.py') else pathlib.Path(name).stem + '_launcher'
        command = commands.capture(name, None)
        doc = inspect.cleandoc(commands.module(name).__doc__ or '')
        summary = doc.splitlines()[0]
        rows.append((name, page, summary))
        invocation = f'python {name}' if name.endswith('.py') else f'python -m {name}'
        lines = [f'# {name.removeprefix("bert_jax.")}', '', *_prose(doc), '']
        lines += ['```text', _usage(command.parser, invocation, command.takes_overrides), '```', '']
        lines += [f'```{{program}} {invocation}', '```', '']
        for action in command.parser._actions:
            if not isinstance(action, argparse._HelpAction):
                lines += ['```{option} ' + _option(action), *_option_text(action), '```', '']
        if command.takes_overrides:
            meaning = 'Overrides a config key. See [](../config/index.md).'
            lines += ['```{option} --config.SECTION.KEY=VALUE', meaning, '```', '']
        examples = (command.parser.epilog or '').partition('examples:\n')[2]
        lines += ['Examples:', '', '```bash', textwrap.dedent(examples), '```', '']
        texts[f'commands/{page}.md'] = '\n'.join(lines)
    texts['commands/scripts.md'] = _scripts_page()
    text = (
        'Every command runs from the repository root, in the environment that `source launch/env.sh` activates. '
        'Exit status: 0 success; 1 an error, explained in one line; 2 wrong arguments; 3 a loss that is not finite; '
        '75 a training run that was stopped by a signal and saved, which the same command resumes; 130 or 143 stopped '
        'before training began.'
    )
    lines = [['command', 'purpose']]
    lines += [[f'[`{name.removeprefix("bert_jax.")}`]({page}.md)', markdown(s)] for name, page, s in rows]
    listed = [*(page for _, page, _ in rows), 'scripts']
    texts['commands/index.md'] = _index('Commands', f'{text}\n\n{to_markdown(lines)}', listed, hidden=True)
    return texts


def _scripts_page() -> str:
    lines = ['# Shell scripts', '']
    for path in sorted((commands.ROOT / 'launch').glob('*.sh')):
        comments = itertools.takewhile(lambda line: line.startswith('#'), path.read_text().splitlines())
        text = '\n'.join(line.removeprefix('# ') for line in comments if not line.startswith('#!'))
        purpose, usage, rest = text.partition('Usage:')
        lines += [f'## launch/{path.name}', '', markdown(' '.join(purpose.split())), '']
        lines += ['```text', usage + rest, '```', ''] if usage else []
    return '\n'.join(lines)


def _api_pages() -> dict[str, str]:
    texts = {}
    for package, modules in packages().items():
        lines = [f'# {package}', '']
        for name in modules:
            if name != package:
                lines += [f'## {name.removeprefix(package + ".")}', '']
            lines += ['```{eval-rst}', f'.. automodule:: {name}', '```', '']
        texts[f'api/{package.rpartition(".")[2]}.md'] = '\n'.join(lines)
    text = (
        'The modules of `bert_jax`, from their docstrings. Start with {py:func}`bert_jax.load`, which returns the '
        'model and the tokenizer of a checkpoint.'
    )
    texts['api/index.md'] = _index(
        'Python API', text, [p.removeprefix('api/').removesuffix('.md') for p in texts]
    )
    return texts


def _index(title: str, text: str, pages: Iterable[str], hidden: bool = False) -> str:
    options = [':hidden:'] if hidden else [':maxdepth: 2']
    return '\n'.join([f'# {title}', '', text, '', '```{toctree}', *options, '', *pages, '```', ''])


def _prose(doc: str) -> list[str]:
    """Format a docstring; paragraphs that are command lines become code."""
    lines = []
    for paragraph in doc.split('\n\n'):
        if paragraph.lstrip().startswith(('python ', 'bash ')):
            lines += ['```text', *paragraph.splitlines(), '```', '']
        else:
            lines += [markdown(' '.join(paragraph.split())), '']
    return lines


def _usage(parser: argparse.ArgumentParser, invocation: str, overrides: bool) -> str:
    words = [_word(a) for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    words += ['[--config.SECTION.KEY=VALUE...]'] if overrides else []
    lines = textwrap.wrap(' '.join([invocation, *words]), 74, break_on_hyphens=False)
    return ' \\\n    '.join(lines)


def _word(action: argparse.Action) -> str:
    word = _option(action)
    if not action.option_strings:
        word += '...' if action.nargs in ('*', '+') else ''
        return f'[{word}]' if action.nargs in ('*', '?') else word
    return word if action.required else f'[{word}]'


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return str(action.metavar or action.dest)
    if action.nargs == 0:
        return action.option_strings[0]
    value = f'={action.metavar or action.dest.upper()}'
    return action.option_strings[0] + (f'[{value}]' if action.nargs == '?' else value)


def _option_text(action: argparse.Action) -> Iterator[str]:
    yield markdown(_sentence(action.help or ''))
    if action.required and action.option_strings:
        yield 'Required.'
    elif action.default not in (None, '', False, [], argparse.SUPPRESS) and action.nargs != 0:
        yield f'Default: `{action.default}`.'


def _sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ('' if text.endswith(('.', '?')) or not text else '.')


def _summary(cls: type) -> str:
    """Return the first paragraphs of a docstring, up to its `Attributes`."""
    doc = inspect.cleandoc(cls.__doc__ or '').partition('\nAttributes:')[0]
    return '\n\n'.join(' '.join(p.split()) for p in doc.split('\n\n'))


def _set_dashes(app: Any, doctree: docutils_nodes.document) -> None:
    """Set the dash after the name of a parameter, since smart quotes are off."""
    for node in [n for n in doctree.findall(docutils_nodes.Text) if n == ' -- ']:
        node.parent.replace(node, docutils_nodes.Text(' – '))


def _parse_key(env: Any, sig: str, signode: addnodes.desc_signature) -> str:
    """Format the signature of a `key` directive; return the name under which search and links find it."""
    parts = re.split(r' \|(?: |$)', sig)
    name, group, type_, default = (part.strip().replace('¦', '|') for part in parts)
    signode += addnodes.desc_name(name, name)
    shown = f': {type_}' + (f' = {default}' if default else ', required')
    signode += addnodes.desc_annotation(shown, '', docutils_nodes.Text(shown))
    return f'{name} ({group})' if group else name


_SECTIONS = ('Args:', 'Attributes:', 'Raises:', 'Returns:', 'Yields:')


def _escape_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring safe for reStructuredText, where a lone `*`, `|` or a trailing `_` is markup."""
    lines[:] = [_escape_line(line) for line in _with_lists(lines)]


def _with_lists(lines: list[str]) -> Iterator[str]:
    """Turn the indented lines below a line that ends in a colon into a list, unless they are a section."""
    i = 0
    while i < len(lines):
        line = lines[i]
        yield line
        i += 1
        if not line.endswith(':') or line.startswith(' ') or line in _SECTIONS:
            continue
        block = list(itertools.takewhile(lambda below: below.startswith(' '), lines[i:]))
        indent = min((len(below) - len(below.lstrip()) for below in block), default=0)
        yield from [''] if block else []
        for below in block:
            yield ('  ' if below[indent] == ' ' else '* ') + below.strip()
        i += len(block)


def _escape_line(line: str) -> str:
    bullet = re.match(r'\s*[*-] |', line)[0]  # type: ignore[index]
    parts = re.split(r'(``[^`]+``|`[^`]+`)', line[len(bullet) :])
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = part if part.startswith('``') else f'`{part}`'
        else:
            part = re.sub(r'(?<![\w*])\*(\w[^*]*\w|\w)\*(?![\w*])', '\0\\1\0', part)  # *emphasis* stays
            parts[i] = re.sub(r'([*|\\])|(?<=\w)(_)(?!\w)', r'\\\1\2', part).replace('\0', '*')
    return bullet + ''.join(parts)


def _skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, which the docstring of their class explains."""
    return True if type(obj).__name__ == '_tuplegetter' else None


def setup(app: Any) -> None:
    """Connect the generator to Sphinx."""
    app.add_object_type('key', 'key', 'pair: %s; config key', _parse_key, objname='config key')
    app.connect('config-inited', lambda *_: write())
    app.connect('doctree-read', _set_dashes)
    app.connect('autodoc-process-docstring', _escape_docstring, priority=100)
    app.connect('autodoc-skip-member', _skip_fields)
