"""Extract facts about functions from docstrings and signatures, as questions and the spans that answer them."""

import re
from collections import defaultdict
from typing import NamedTuple

from bert_jax.data.pydocs import prose, source
from bert_jax.data.pydocs.source import Item, Span

MAX_ANSWER_CHARS = 200
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


class Fact(NamedTuple):
    """The answer to a question in a text.

    Attributes:
      kind: key of `QUESTIONS`.
      subject: name of a parameter, or of the function.
      start: index of the answer's first character.
      end: index after the answer's last character.
    """

    kind: str
    subject: str
    start: int
    end: int


class _FactCollector:
    """A collector of the facts in one docstring.

    Args:
      doc: docstring after `prose.clean`.
      function: name of the documented function.
    """

    def __init__(self, doc: str, function: str):
        self.doc, self.function = doc, function
        self.facts: list[Fact] = []

    def add_type(self, kind: str, subject: str, start: int, end: int) -> None:
        match = _TYPE.match(self.doc[start:end])
        if match and 2 <= len(match[1]) <= 60 and not match[1].startswith(('optional', 'default')):
            self.facts.append(Fact(kind, subject, start, start + len(match[1].rstrip())))
        self.add_default(subject, start, end)

    def add_text(self, kind: str, subject: str, start: int, end: int) -> None:
        text = self.doc[start:end]
        length = len(text[: prose.sentence_length(text)].rstrip(' .'))
        if 10 <= length <= MAX_ANSWER_CHARS:
            self.facts.append(Fact(kind, subject, start, start + length))
        self.add_default(subject, start, end)

    def add_default(self, subject: str, start: int, end: int) -> None:
        if subject != self.function and (match := _DEFAULT.search(self.doc, start, end)):
            self.facts.append(Fact('default', subject, *match.span(1)))


def docstring_facts(doc: str, function: str) -> list[Fact]:
    """Return the facts about parameters and results in the Google, NumPy and reST sections of a docstring.

    Args:
      doc: docstring after `prose.clean`.
      function: name of the documented function.
    """
    facts = _FactCollector(doc, function)
    section, subject = '', ''
    heading_indent = entry_indent = -1  # of the section's heading and of its first line
    next_start = 0
    for line in doc.split('\n'):
        start, next_start = next_start, next_start + len(line) + 1
        end, indent = next_start - 1, len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if prose.is_heading(line):
            is_parameters = prose.is_heading(line, prose.PARAMETER_HEADINGS)
            is_returns = prose.is_heading(line, prose.RETURN_HEADINGS)
            section = 'parameter' if is_parameters else 'return' if is_returns else ''
            heading_indent, entry_indent, subject = indent, -1, ''
        elif match := _REST.match(doc, start, end):
            section = ''
            _add_rest_fact(facts, match)
        elif section:
            entry_indent = indent if entry_indent < 0 else entry_indent
            if indent < entry_indent or (entry_indent > heading_indent and indent <= heading_indent):
                section = ''
            elif entry_indent > heading_indent:  # Google style
                if indent == entry_indent:
                    _add_google_fact(facts, section, start, end)
                    section = 'parameter' if section == 'parameter' else ''  # `Returns` has one entry
            elif indent == entry_indent:  # NumPy style
                subject = _add_numpy_fact(facts, section, start, end)
            elif subject:
                facts.add_text(section, subject, start + indent, end)
                section = 'parameter' if section == 'parameter' else ''
                subject = ''
    return facts.facts


def _add_rest_fact(facts: _FactCollector, match: re.Match[str]) -> None:
    field, name = match[1], (match[2] or '').rpartition(' ')[2]
    if field == 'param' and name:
        facts.add_text('parameter', name, *match.span(3))
    elif field == 'type' and name:
        facts.add_type('type', name, *match.span(3))
    elif field == 'rtype':
        facts.add_type('return type', facts.function, *match.span(3))
    elif field.startswith('return'):
        facts.add_text('return', facts.function, *match.span(3))


def _add_google_fact(facts: _FactCollector, section: str, start: int, end: int) -> None:
    if section == 'parameter':
        if match := _GOOGLE.match(facts.doc, start, end):
            if match[2]:
                facts.add_type('type', match[1], *match.span(2))
            facts.add_text('parameter', match[1], *match.span(3))
    elif match := _GOOGLE_RETURN.match(facts.doc, start, end):
        facts.add_type('return type', facts.function, *match.span(1))
        facts.add_text('return', facts.function, *match.span(2))
    else:
        line = facts.doc[start:end]
        facts.add_text('return', facts.function, end - len(line.lstrip()), end)


def _add_numpy_fact(facts: _FactCollector, section: str, start: int, end: int) -> str:
    """Add the type that a NumPy-style entry such as `x : int` gives in its first line, if any.

    Returns:
      The entry's subject: in a parameter section the parameter's name, or '' if the line has another form;
      in other sections the function's name.
    """
    match = _NUMPY.match(facts.doc, start, end)
    is_parameter = section == 'parameter'
    subject = facts.function if not is_parameter else match[1] if match else ''
    if match and match[2]:
        facts.add_type('type' if is_parameter else 'return type', subject, *match.span(2))
    return subject


def find_answers(item: Item, doc: str) -> tuple[str, dict[tuple[str, str], list[Span]]]:
    """Find the answers to questions about a function in its signature and docstring.

    Questions that only the signature answers are easy, so at most one of them is kept. If the docstring answers no
    question, none is kept.

    Args:
      item: function with a signature.
      doc: docstring after `prose.clean`.

    Returns:
      The context, which is the signature followed by the docstring, and a dict from the (kind, subject) of each
      question to the spans of its answers in the context.
    """
    assert item.signature is not None
    signature = item.signature
    context = f'{signature.text}\n\n{doc}'
    shift = len(context) - len(doc)
    documented = [Fact(k, s, a + shift, b + shift) for k, s, a, b in docstring_facts(doc, item.name)]
    if not documented:
        return context, {}
    declared = [Fact('type', name, *span) for name, span in signature.types.items()]
    declared += [Fact('default', name, *span) for name, span in signature.defaults.items()]
    if signature.returns:
        declared.append(Fact('return type', item.name, *signature.returns))
    hard = {fact[:2] for fact in documented}
    easy = sorted({fact[:2] for fact in declared} - hard, key=lambda f: source.stable_hash(str(f)))
    names = {*re.findall(r'\w+', signature.text)}
    answers: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for kind, subject, start, end in documented + declared:
        spans = answers[kind, subject.lstrip('*')]
        is_repeated = any(context[start:end] == context[left:right] for left, right in spans)
        if end - start <= MAX_ANSWER_CHARS and not is_repeated and (kind, subject) not in easy[1:]:
            spans.append((start, end))
    return context, {key: spans for key, spans in answers.items() if spans and key[1] in names}
