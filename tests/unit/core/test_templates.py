"""Prompts: what a template may do while a request waits for it."""

# ruff: noqa: E501 - a template is easier to read on one line

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runtime.core.walk import templates
from runtime.core.walk.sandbox.environment import SANDBOX, environment_of

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My invoice is wrong, <b>twice</b>."},
    {"role": "assistant", "content": [{"type": "text", "text": "Which one?"}]},
    {"role": "user", "content": "The second of three"},
]
VARIABLES = {
    "input": "The second of three",
    "messages": MESSAGES,
    "steps": {
        "triage": {"choice": "billing", "scores": {"billing": 0.75, "bug": 0.25}},
        "draft": {"text": "a, b;c"},
    },
}
PLAIN = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
)

PROMPTS = [
    "You answer {{ steps.triage.choice }} questions.",
    "{% if steps.triage.choice == 'billing' %}Bill{% elif input %}x{% else %}y{% endif %}\n done",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role | upper }}: {{ m.content }}\n{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ m['content'][:10] }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ messages | map(attribute='role') | unique | join(', ') }} {{ messages | length }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}",
    "{{ steps.draft.text.split(',')[0].strip() ~ '-' ~ 3 * 2 ** 2 % 5 }} {{ 'ab' * 3 + 'c' }} {{ '%s!' % input }}",
    "{% macro line(x, n=1) %}<{{ x | replace('e', 'E') }}:{{ n }}>{% endmacro %}{{ line(input) }}{{ line('y', n=2) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% for k, v in steps.triage.scores.items() %}{{ k }}={{ '%.1f' | format(v) }};{% endfor %}{{ '{:>6}'.format('x') }}",
    "{{ input | truncate(8) | center(12) }}|{{ messages[0].content | indent(2) }}|{{ [3, 1, 2] | sort | join }}",
    "{{ nothing | default('none') }}{{ (steps.draft.text or '') | wordcount }}{% set y %}a{{ input }}{% endset %}{{ y }}",
    "{% for a in [[1, [2]], [3]] recursive %}{{ a if a is number else loop(a) }}{% endfor %}",
    "{{ messages | groupby('role') | map('first') | join('+') }} {{ range(3) | sum }} {{ 'x' in input }} {{ 2 > 1 }}",
    "{% filter upper %}abc {{ input }}{% endfilter %}{{ messages[-1].content.replace('e', '').startswith('Th') }}",
    "{{ 'a b'.title() }} {{ ','.join(['x', 'y']) }} {{ dict(a=1).get('a') }}",
]  # fmt: skip


# What is counted comes to the same text as what is not.
@pytest.mark.parametrize("prompt", PROMPTS)
def test_same_text(prompt):
    assert templates.render(prompt, VARIABLES) == PLAIN.from_string(prompt).render(**VARIABLES).strip()


# A template that only shows and chooses is rendered uncounted; whatever may repeat or grow is counted.
def test_only_what_may_grow_is_counted():
    assert [environment_of(SANDBOX.parse(prompt)) is SANDBOX for prompt in PROMPTS] == [False] * 2 + [
        True
    ] * 14
    shown = "{{ messages }}" * 65
    assert environment_of(SANDBOX.parse(shown)) is SANDBOX


BOMBS = {
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "repeated loop": "{% for a in 'x' * 100000000 %}{% endfor %}",
    "text": "{{ 'a' * 10 ** 9 }}",
    "number of texts": "{{ 10 ** 9 * ['a'] }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "squares": "{% set x = 7 %}" + "{% set x = x * x %}" * 64 + "{{ x }}",
    "doubled": "{% set x = input %}" + "{% set x = x ~ x %}" * 40 + "{{ x | length }}",
    "added": "{% set x = input %}" + "{% set x = x + x %}" * 40 + "{{ x | length }}",
    "lists": "{% set x = [1] %}" + "{% set x = x + x %}" * 40 + "{{ x | length }}",
    "namespace": "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "collected": "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = ns.x + ['a' * 90000] %}{% endfor %}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "constant": "{{ 'a' | center(1000000000) }}",
    "center method": "{{ 'a'.center(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "tabs": "{{ ('\t' * 9999).expandtabs(99999) }}",
    "replace": "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
    "replace method": "{{ ('a' * 9999).replace('', 'b' * 9999) }}",
    "join": "{{ (['a' * 99999] * 9999) | join }}",
    "join with": "{{ range(9999) | join('b' * 99999) }}",
    "join method": "{{ ('b' * 99999).join('a' * 9999) }}",
    "shown": "{{ ['a' * 99999] * 9999 }}",
    "format": "{{ '%999999999d' % 1 }}",
    "format star": "{{ '%*d' | format(999999999, 1) }}",
    "format method": "{{ '{:999999999}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, '999999999') }}",
    "format of values": "{{ '{0}'.format(['a' * 99999] * 9999) }}",
    "bytes": "{{ (1).to_bytes(999999999, 'big') }}",
    "indent": "{{ ('\n' * 99999) | indent(99999) }}",
    "indent json": "{{ [1, [2]] | tojson(indent=99999999) }}",
    "slice": "{{ 'a' | batch(999999999, 'x') | list }}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "block": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "lipsum": "{{ lipsum(99999, False, 99998, 99999) }}",
    "text in a loop": "{% for a in range(19999) %}" + "x" * 9999 + "{% endfor %}",
    "slices in a loop": "{% set x = 'a' * 9999999 %}{% for a in range(19999) %}{% set y = x[1:] %}{% endfor %}",
    "compared in a loop": "{% set x = 'a' * 999999 %}{% for a in range(19999) %}{% if x in x ~ 'b' %}{% endif %}{% endfor %}",
    "searched in a loop": "{% set x = range(9999) | list %}{% for a in range(19999) %}{{ 'x' in x }}{% endfor %}",
    "tested in a loop": "{% set x = range(9999) | list %}{% for a in range(19999) %}{{ 'x' is in x }}{% endfor %}",
    "recursive": "{% for a in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "mapped": "{% for a in range(19999) %}{{ range(99999) | map('abs') | list | length }}{% endfor %}",
    "sum of lists": "{{ ([[1] * 9999] * 9999) | sum(start=[]) | length }}",
    "wrapped": "{{ ('a ' * 9999999) | wordwrap(1, wrapstring='b' * 9999) }}",
    "cycle": "{% for a in range(19999) %}{{ loop.cycle(*(['a' * 99999] * 99)) }}{% endfor %}",
    "dict": "{{ dict(range(99999) | map('string') | batch(1) | list) }}",
    "markup": "{{ (('a' * 9999) | escape).replace('a', 'b' * 9999) }}",
    "markup join": "{{ (('a' * 9999) | escape).join(('b' * 9999) | list) }}",
    "comments": "{{ ('<!---->' * 140000) | striptags }}",
    "splat": "{% macro f() %}{{ varargs | length }}{% endmacro %}{% for a in range(9999) %}{{ f(*range(99999)) }}{% endfor %}",
    "changed": "{% set x = range(9999) | list %}{% for a in range(19999) %}{{ loop.changed(x + [a]) }}{% endfor %}",
    "deep": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
}  # fmt: skip


# No template works for long or takes much memory: it is ended with an error that says what was too much.
@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name):
    begun = time.thread_time()
    with pytest.raises(templates.TemplateError):
        templates.render(BOMBS[name], VARIABLES)
    assert time.thread_time() - begun < 1.0


# A long conversation is no bomb: a template may read all of it more than once.
def test_long_conversation():
    messages = [{"role": "user", "content": "word " * 200} for _ in range(3000)]
    text = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}{{ messages | length }}"
    begun = time.thread_time()
    assert templates.render(text, {"input": "", "messages": messages, "steps": {}}).endswith("3000")
    assert time.thread_time() - begun < 1.0


_PIECES = [
    "{{ input }}", "{{ input * n }}", "{% set n = 3000 %}", "{% set x = input ~ input %}", "{{ messages | tojson }}",
    "{% for a in range(1000) %}", "{% for m in messages %}", "{% endfor %}", "{{ m.content | upper | center(900) }}",
    "{% if a %}", "{% endif %}", "{% macro f(n) %}", "{% endmacro %}", "{{ f(n) }}", "{{ x | replace('e', x) }}", "text",
    "{% set ns = namespace(x=input) %}", "{% set ns.x = ns.x ~ ns.x %}", "{{ ns.x | wordwrap(3) }}", "{{ [x] * n }}",
    "{{ messages | map(attribute='content') | join(x) }}", "{{ x[1:] == x }}", "{{ x.split('e') | sort | join(x) }}",
]  # fmt: skip


# Whatever template is given, it is refused or rendered, or fails as a template does; and within a second.
@given(st.lists(st.sampled_from(_PIECES), max_size=12))
def test_any_template(pieces):
    text = "".join(pieces)
    begun = time.thread_time()
    if templates.check(text, frozenset()) is None:
        with contextlib.suppress(templates.TemplateError):
            templates.render(text, VARIABLES)
    assert time.thread_time() - begun < 1.0
