"""The TFDS data set `pydocs`: real English and real labels on any machine, with no download.

It is made from the docstrings and sources of the standard library and of the installed
distributions that this project depends on. A module (a source file) lies in the same split in
every config, so nothing of the labelled validation and test splits is seen in pretraining.

    builder = Pydocs(config='text', data_dir=f'{folder}/{fingerprint()}')
    builder.download_and_prepare()
    train = builder.as_data_source('train')

What the configs hold depends on the installed versions; `fingerprint` names that state.
"""

import ast
import io
import itertools
import keyword
import os
import re
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from bert_jax.data.pydocs import source
from bert_jax.data.pydocs.source import Item, Module, Signature, Span, fingerprint

__all__ = ['Pydocs', 'fingerprint']

MIN_DOCUMENT = 200
MAX_SUMMARY = 250
MIN_SUMMARY_WORDS = 3
MAX_CONTEXT = 1500
MAX_ANSWER = 200
MAX_QUESTIONS = 3
MAX_TOKEN = 40
TOKENS_RANGE = (8, 96)

KINDS = ('module', 'class', 'function', 'method', 'property')
MATCH = ('mismatch', 'match')
TAGS = (
    'keyword',
    'function',  # The name of a function being defined.
    'class',  # The name of a class being defined.
    'parameter',  # A parameter being declared.
    'argument',  # A keyword argument, by name, in a call.
    'call',  # The name of what is called.
    'attribute',
    'module',  # Any name in an import statement.
    'variable',  # Any other name.
    'string',
    'number',
    'operator',
    'comment',
)

Example = dict[str, Any]
KeyedExample = tuple[str, Example]


# Text -----------------------------------------------------------------------------------------


def _unseen(text: str, seen: set[str]) -> bool:
    """Whether a text with the words of `text` comes for the first time; remembers it."""
    key = source.normalize(text)
    if not key or key in seen:
        return False
    seen.add(key)
    return True


def text_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """One document a module: its docstrings with their signatures, less what an earlier module has."""
    seen: set[str] = set()
    for module in modules:
        docs = ((item, source.clean(item.doc)) for item in module.items)
        text = '\n\n'.join(_entry(item, doc) for item, doc in docs if _unseen(doc, seen))
        if len(text) >= MIN_DOCUMENT:
            yield module, (module.name, {'title': module.name, 'text': text})


def _entry(item: Item, doc: str) -> str:
    """What a manual prints of an item."""
    if item.signature is None or len(item.signature.text) > source.MAX_SIGNATURE:
        return doc
    return f'{item.signature.text}\n\n{doc}'


# Classification and pairs ---------------------------------------------------------------------


def _is_sentence(text: str) -> bool:
    words = re.findall(r'[A-Za-z]{2,}', text) if re.match(r'[\w`"\'(]', text) else []
    return len(words) >= MIN_SUMMARY_WORDS and len(text) <= MAX_SUMMARY


def classify_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """What kind of thing does this first paragraph describe?

    On a usual installation about 36 % are methods, the most frequent label; counts of words and
    of word pairs give about 67 %.
    """
    seen: set[str] = set()
    for module in modules:
        for item in module.items:
            text = source.summary(item.doc)
            if _is_sentence(text) and _unseen(text, seen):
                yield module, (item.path, {'text': text, 'label': item.kind})


def pair_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Does this summary describe this signature?

    Every function occurs once with its own summary and once with that of a function of another name,
    drawn from the same split, so that neither text tells the label by itself. The number of words
    that both share gives about 86 %.
    """
    seen: set[str] = set()
    splits: dict[str, list[tuple[Module, Item, Signature, str]]] = defaultdict(list)
    for module in modules:
        names: set[str] = set()
        for item in module.items:
            signature = item.signature
            if signature is None or len(signature.text) > source.MAX_SIGNATURE:
                continue
            text = source.summary(item.doc)
            text = text[: source.sentence_length(text)]
            if item.name not in names and _is_sentence(text) and _unseen(text, seen):
                names.add(item.name)
                splits[module.split].append((module, item, signature, text))
    for members in splits.values():
        ring = sorted(members, key=lambda member: (source.stable_hash(member[1].path), member[1].path))
        ring = [m for i, m in enumerate(ring) if m[1].name != ring[i - 1][1].name]
        for (module, item, signature, own), (_, _, _, other) in itertools.pairwise([*ring, *ring[:1]]):
            for label, text in (('match', own), ('mismatch', other)):
                example = {'signature': signature.text, 'summary': text, 'label': label}
                yield module, (f'{item.path}:{label}', example)


# Tagging --------------------------------------------------------------------------------------

_SKIPPED = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_SKIPPED |= {tokenize.ENCODING}
# Python 3.12 and later give the pieces of an f-string, and 3.14 those of a t-string.
_OPENS = {getattr(tokenize, f'{x}STRING_START', None) for x in 'FT'} - {None}
_CLOSES = {getattr(tokenize, f'{x}STRING_END', None) for x in 'FT'} - {None}


def _whole_tokens(code: str) -> Iterator[tuple[int, str, Span]]:
    """Tokens as (type, text, position); an f-string is one string in every Python version."""
    lines = code.split('\n')
    depth, start = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in _OPENS:
            start = start if depth else token.start
            depth += 1
        elif token.type in _CLOSES:
            depth -= 1
            if not depth:
                end = token.end
                parts = lines[start[0] - 1 : end[0]]
                parts[-1] = parts[-1][: end[1]]
                parts[0] = parts[0][start[1] :]
                yield tokenize.STRING, '\n'.join(parts), start
        elif not depth and token.type not in _SKIPPED:
            yield token.type, token.string, token.start


def _name_roles(tree: ast.AST) -> tuple[dict[Span, str], set[int]]:
    """The tags of the names that the syntax tree places, by (line, column); lines of imports."""
    roles: dict[Span, str] = {}
    imports: set[int] = set()

    def attribute_place(node: ast.Attribute) -> Span:
        return node.end_lineno or 0, (node.end_col_offset or 0) - len(node.attr)

    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            roles[node.lineno, node.col_offset] = 'parameter'
        elif isinstance(node, ast.keyword) and node.arg:
            roles[node.lineno, node.col_offset] = 'argument'
        elif isinstance(node, ast.Attribute):
            roles.setdefault(attribute_place(node), 'attribute')
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            roles[node.func.lineno, node.func.col_offset] = 'call'
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            roles[attribute_place(node.func)] = 'call'
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(range(node.lineno, (node.end_lineno or 0) + 1))
    return roles, imports


def tag(code: str) -> list[tuple[str, str]]:
    """The (token, tag) pairs of a piece of ASCII source that parses by itself."""
    roles, imports = _name_roles(ast.parse(code))
    kinds = {tokenize.STRING: 'string', tokenize.NUMBER: 'number', tokenize.COMMENT: 'comment'}
    tagged: list[tuple[str, str]] = []
    previous = ''
    for kind, text, place in _whole_tokens(code):
        if kind != tokenize.NAME:
            label = kinds.get(kind, 'operator')
        elif keyword.iskeyword(text):
            label = 'keyword'
        elif previous in ('def', 'class'):
            label = 'function' if previous == 'def' else 'class'
        else:
            label = roles.get(place, 'module' if place[0] in imports else 'variable')
        tagged.append((' '.join(text.split())[:MAX_TOKEN].rstrip(), label))
        previous = text
    return tagged


def tagging_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Small definitions and imports, each token with the part it plays."""
    seen: set[str] = set()
    for module in modules:
        for i, code in enumerate(filter(str.isascii, module.snippets)):
            try:
                tagged = tag(_dedent(code))
            except (SyntaxError, ValueError, tokenize.TokenError):
                continue
            tokens, tags = [token for token, _ in tagged], [label for _, label in tagged]
            if TOKENS_RANGE[0] <= len(tokens) <= TOKENS_RANGE[1] and _unseen(' '.join(tokens), seen):
                yield module, (f'{module.name}:{i}', {'tokens': tokens, 'tags': tags})


def _dedent(code: str) -> str:
    """Moves a block to the left by its first line's indent; shorter indents are kept."""
    width = len(code) - len(code.lstrip())
    cut = [line[width:] if not line[:width].strip() else line for line in code.split('\n')]
    return '\n'.join(cut) + '\n'


# Questions ------------------------------------------------------------------------------------

QUESTIONS = {
    'parameter': 'What is the parameter `{}`?',
    'type': 'What type is the parameter `{}`?',
    'default': 'What is the default of `{}`?',
    'return': 'What does `{}` return?',
    'return type': 'What type does `{}` return?',
}
_REST = re.compile(r'\s*:(param|type|returns?|rtype)(?: +([^:]*?))?: +(.+)$')
_GOOGLE = re.compile(r'\s+(\*{0,2}\w+)(?: ?\(([^()]*(?:\([^()]*\)[^()]*)*)\))?: +(.+)$')
_GOOGLE_RETURN = re.compile(r'\s+([\w.]+(?:\[[^:]*\])?): +(.+)$')
_NUMPY = re.compile(r'\s*(\*{0,2}\w+)(?: : +(.+))?$')
_TYPE = re.compile(
    r'(.+?)(?:(?:[,;.] *| +| *\()(?:(?:of|with) )?'
    r'\(?(?:optional|default|keyword|required|shape)\b.*)?[,.]?$'
)
_DEFAULT = re.compile(
    r'\b[Dd]efaults?(?: +value)?(?: +is| +to|:|=)? *`?'
    r'(None|True|False|-?\d+(?:\.\d+)?(?:e-?\d+)?|\'[^\']+\'|"[^"]+")(?=[`.,;)]|\s|$)'
)
Fact = tuple[str, str, int, int]  # The kind of question, its subject, and the answer's span.


class _Facts:
    """Collects the spans in one docstring that answer questions."""

    def __init__(self, doc: str, function: str):
        self.doc, self.function = doc, function
        self.found: list[Fact] = []

    def add_type(self, kind: str, subject: str, start: int, end: int) -> None:
        match = _TYPE.match(self.doc[start:end])
        if match and 2 <= len(match[1]) <= 60 and not match[1].startswith(('optional', 'default')):
            self.found.append((kind, subject, start, start + len(match[1].rstrip())))
        self.add_default(subject, start, end)

    def add_text(self, kind: str, subject: str, start: int, end: int) -> None:
        text = self.doc[start:end]
        length = len(text[: source.sentence_length(text)].rstrip(' .'))
        if 10 <= length <= MAX_ANSWER:
            self.found.append((kind, subject, start, start + length))
        self.add_default(subject, start, end)

    def add_default(self, subject: str, start: int, end: int) -> None:
        if subject != self.function and (match := _DEFAULT.search(self.doc, start, end)):
            self.found.append(('default', subject, *match.span(1)))


def doc_facts(doc: str, function: str) -> list[Fact]:
    """Reads the Google, NumPy and reST sections of a cleaned docstring."""
    facts = _Facts(doc, function)
    section, subject = '', ''
    head = entry = -1  # Indents of the section's head and of its first line.
    place = 0
    for line in doc.split('\n'):
        start, place = place, place + len(line) + 1
        end, indent = place - 1, len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if source.is_head(line):
            is_parameters = source.is_head(line, source.PARAMETER_HEADS)
            returns = source.is_head(line, source.RETURN_HEADS)
            section = 'parameter' if is_parameters else 'return' if returns else ''
            head, entry, subject = indent, -1, ''
        elif match := _REST.match(line):
            section = ''
            _rest_fact(facts, match, start)
        elif section:
            entry = indent if entry < 0 else entry
            if indent < entry or (entry > head and indent <= head):
                section = ''
            elif entry > head:
                if indent == entry:
                    _google_fact(facts, line, section, start)
                    section = 'parameter' if section == 'parameter' else ''
            elif indent == entry:
                subject = _numpy_fact(facts, line, section, start)
            elif subject:
                facts.add_text(section, subject, start + indent, end)
                section = 'parameter' if section == 'parameter' else ''
                subject = ''
    return facts.found


def _rest_fact(facts: _Facts, match: re.Match[str], start: int) -> None:
    field, name = match[1], (match[2] or '').rpartition(' ')[2]
    left, right = start + match.start(3), start + match.end(3)
    if field in ('param', 'type') and name:
        (facts.add_text if field == 'param' else facts.add_type)(
            'parameter' if field == 'param' else 'type', name, left, right
        )
    elif field == 'rtype':
        facts.add_type('return type', facts.function, left, right)
    elif field.startswith('return'):
        facts.add_text('return', facts.function, left, right)


def _google_fact(facts: _Facts, line: str, section: str, start: int) -> None:
    if section == 'parameter':
        if match := _GOOGLE.match(line):
            if match[2]:
                facts.add_type('type', match[1], start + match.start(2), start + match.end(2))
            facts.add_text('parameter', match[1], start + match.start(3), start + match.end(3))
    elif match := _GOOGLE_RETURN.match(line):
        facts.add_type('return type', facts.function, start + match.start(1), start + match.end(1))
        facts.add_text('return', facts.function, start + match.start(2), start + match.end(2))
    else:
        indent = len(line) - len(line.lstrip())
        facts.add_text('return', facts.function, start + indent, start + len(line))


def _numpy_fact(facts: _Facts, line: str, section: str, start: int) -> str:
    """Notes the type in the first line of an entry; returns what its next line describes."""
    match = _NUMPY.match(line)
    if section == 'parameter':
        if match and match[2]:
            facts.add_type('type', match[1], start + match.start(2), start + match.end(2))
        return match[1] if match else ''
    if match and match[2]:
        facts.add_type('return type', facts.function, start + match.start(2), start + match.end(2))
    return facts.function


def _answers(item: Item, doc: str) -> tuple[str, dict[tuple[str, str], list[Span]]]:
    """A context and, by (kind, subject), the spans of it that answer.

    Of the questions that the signature alone answers, which are easy, at most one is kept, and
    none where the docstring answers nothing.
    """
    assert item.signature is not None
    signature = item.signature
    context = f'{signature.text}\n\n{doc}'
    shift = len(context) - len(doc)
    documented = [(k, s, a + shift, b + shift) for k, s, a, b in doc_facts(doc, item.name)]
    if not documented:
        return context, {}
    written = [('type', name, *span) for name, span in signature.types.items()]
    written += [('default', name, *span) for name, span in signature.defaults.items()]
    if signature.returns:
        written.append(('return type', item.name, *signature.returns))
    asked = {fact[:2] for fact in documented}
    easy = sorted({fact[:2] for fact in written} - asked, key=lambda f: source.stable_hash(str(f)))
    known = {*re.findall(r'\w+', signature.text)}
    answers: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for kind, subject, start, end in documented + written:
        spans = answers[kind, subject.lstrip('*')]
        repeated = any(context[start:end] == context[left:right] for left, right in spans)
        if end - start <= MAX_ANSWER and not repeated and (kind, subject) not in easy[1:]:
            spans.append((start, end))
    return context, {key: spans for key, spans in answers.items() if spans and key[1] in known}


def qa_examples(modules: Iterable[Module]) -> Iterator[tuple[Module, KeyedExample]]:
    """Questions on a function's parameters and result, answered by spans of its documentation."""
    seen: set[str] = set()
    for module in modules:
        for item in module.items:
            if item.signature is None or len(item.signature.text) > source.MAX_SIGNATURE:
                continue
            doc = source.clean(item.doc)
            if len(doc) > MAX_CONTEXT:
                doc = doc[: doc.rfind('\n', 0, MAX_CONTEXT) + 1].rstrip()
            if not _unseen(doc, seen):
                continue
            context, answers = _answers(item, doc)
            ids = {f'{item.path}:{kind}:{subject}': (kind, subject) for kind, subject in answers}
            for key in sorted(ids, key=source.stable_hash)[:MAX_QUESTIONS]:
                kind, subject = ids[key]
                question = QUESTIONS[kind].format(subject)
                example: Example = {'id': key, 'title': module.name, 'context': context}
                example |= {'question': question, 'answers': _squad(context, answers[ids[key]])}
                yield module, (key, example)


def _squad(context: str, spans: Sequence[Span]) -> dict[str, list[Any]]:
    return {'text': [context[a:b] for a, b in spans], 'answer_start': [a for a, _ in spans]}


# The builder ----------------------------------------------------------------------------------

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
    'text': text_examples,
    'classify': classify_examples,
    'pair': pair_examples,
    'tagging': tagging_examples,
    'qa': qa_examples,
}


def examples(config: str, roots: Sequence[str] | None = None) -> dict[str, dict[str, Example]]:
    """All examples of a config by split and key; splits with none are left out.

    Args:
        config: one of the names in `EXAMPLES`.
        roots: folders of Python files to read instead of the installed sources.
    """
    modules = source.read_corpus(None if roots is None else tuple(map(os.fspath, roots)))
    splits: dict[str, dict[str, Example]] = {'train': {}, 'validation': {}, 'test': {}}
    for module, (key, example) in EXAMPLES[config](modules):
        splits[module.split].setdefault(key, example)
    if config == 'text':
        del splits['test']
    return {split: found for split, found in splits.items() if found}


class Pydocs(tfds.core.GeneratorBasedBuilder):
    """Docstrings and sources of installed Python code, as five small tasks.

    Args:
        roots: folders of Python files to read instead of the installed sources.
        **kwargs: those of every TFDS builder: `config`, `data_dir`, ...
    """

    VERSION = tfds.core.Version('1.1.0')  # text has signatures; pairs, any mismatch
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name='text', description='What a manual says of a module.'),
        tfds.core.BuilderConfig(name='classify', description='What kind of thing is described?'),
        tfds.core.BuilderConfig(name='pair', description='Does a summary describe a signature?'),
        tfds.core.BuilderConfig(name='tagging', description='The part that each token plays.'),
        tfds.core.BuilderConfig(name='qa', description='Answers that are spans of documentation.'),
    ]
    pkg_dir_path = epath.Path(__file__).parent  # TFDS infers it only for regular packages.

    def __init__(self, *, roots: Sequence[str | os.PathLike[str]] | None = None, **kwargs: Any):
        self._roots = None if roots is None else [os.fspath(root) for root in roots]
        super().__init__(**{'file_format': 'array_record'} | kwargs)
        self._original_state['roots'] = self._roots  # For pickling.

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(FEATURES[self.builder_config.name]()),
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterable[KeyedExample]]:
        found = examples(self.builder_config.name, self._roots)
        return {split: self._generate_examples(rows) for split, rows in found.items()}

    def _generate_examples(self, rows: dict[str, Example]) -> Iterator[KeyedExample]:
        yield from rows.items()
