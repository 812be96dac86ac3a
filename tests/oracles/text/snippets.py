"""Small templates, one or a few constructs each, with the values they are rendered with."""

MESSAGES = [
    {"role": "system", "content": "  Be kind.\n"},
    {"role": "user", "content": "Hé <b> 'q' \"d\" 你好 \\ \t x,y,,z"},
    {"role": "assistant", "content": "<think>a\nb</think>\n\nOK"},
]
VARIABLES = {"flag": False, "count": 7, "ratio": 0.5, "name": "zoë"}

WHITE_SPACE = [
    "a\n", "a\n\n", "a\r\nb\rc\n", "{{ 1 }}\n", "{{ 1 }}\n\nx", "{% if true %}\nx\n{% endif %}\ny", "  {% if true %}\n  x\n  {% endif %}\n  y",
    "a  {% if true %}  b  {% endif %}  c", "a  {%- if true -%}  b  {%- endif -%}  c", "a\n  {%+ if true %}\n b{% endif +%}\nc",
    "x {# note #} y", "x\n  {# note #}\n  y", "x {#- note -#} y", "{# a #}\n{# b #}\nz", "  {{ 1 }}  ", " \n {{- 1 -}} \n ", "{{- 1 }} {{ 2 -}}\n x",
    "{%- for m in messages %}\n    {{- m.role }}\n{%- endfor %}", "{% for m in messages %}\n  {{ m.role }}\n{% endfor %}\nend",
    "\n\n{% set x = 1 %}\n\n{{ x }}\n\n", "\t{% set x = 1 %}\t{{ x }}", "{{ '}}' }}{{ '%}' }}", "{{ {'a': {'b': 1}}['a']['b'] }}", "a{%if true%}b{%endif%}c",
    "{{ 1 }}{{ 2 }}\n{{ 3 }}", "\u00a0{%- if true %}\u3000{%- endif %}", "{ { } } {%- if 1 %}%}{% endif %}", "#{ {} }#", "{{ \"a\nb\" }}\n{{ 'x' }}",
]
LITERALS = [
    "{{ 1 }} {{ 1.0 }} {{ 1.5e3 }} {{ 1e20 }} {{ 2.5e-7 }} {{ 0.1 + 0.2 }} {{ 100000000000000000.0 }} {{ 1e16 }} {{ 123456789.125 }}",
    "{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}", r"{{ 'a\nb\t\'\"\\' }} {{ 'é\u00e9\x41\U0001F600' }} {{ '\d \. \/' }}",
    "{{ [1, 'a', none, 2.0, [true]] }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }}", "{{ {'a': 1, \"b\": [2]} }}",
    "{{ 'it''s' 'joined' }}", "{{ ['it\\'s', '\"q\"', 'both\\'\"', 'tab\\t', 'é', '\\u200b', '你'] }}", "{{ 1, 2 }}", "{{ [1, 2,] }} {{ {'a': 1,} }}",
]
OPERATORS = [
    "{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 10 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 6 / 2 }}",
    "{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 10 - 3 - 2 }} {{ true + 1 }} {{ 2 ** -1 }}",
    "{{ 'a' + 'b' }} {{ 'a' ~ 1 ~ none ~ 2.5 ~ [1] }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ 'x' * 0 }}|{{ 'x' * -1 }}|",
    "{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' == 'a' }} {{ 'a' != 'b' }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ 1 == '1' }} {{ none == false }} {{ (1,) == [1] }}",
    "{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 2 >= 2 }} {{ 1.5 <= 1 }} {{ 3 > 2 > 1 }} {{ 'é' > 'z' }}",
    "{{ 1 in [1, 2] }} {{ 'a' in 'abc' }} {{ 'x' not in 'abc' }} {{ 'a' in {'a': 1} }} {{ '' in 'a' }} {{ 1 in (2, 3) }} {{ 'role' in messages[0] }}",
    "{{ true and false }} {{ 1 and 'x' }} {{ 0 or 'y' }} {{ '' or none }} {{ not 0 }} {{ not 'a' }} {{ not not 1 }} {{ not 1 == 2 }} {{ 1 or 2 and 0 }}",
    "{{ 'a' if true else 'b' }} {{ 'a' if false else 'b' }} {{ 'a' if false }}| {{ 1 if 0 else 2 if 0 else 3 }} {{ ('a' if flag else 'b') ~ 'c' }}",
    "{{ -count }} {{ +count }} {{ - count + 1 }} {{ -1|abs }} {{ (-3)|abs }} {{ -ratio }} {{ count * ratio }} {{ 'n' ~ -count }}",
    "{{ 1 + 2 ~ 3 }}", "{{ (1 + 2) ~ 3 }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 'a' + 1 }}", "{{ 1 + 'a' }}", "{{ 'a' - 'b' }}", "{{ none + 1 }}", "{{ 1 < 'a' }}", "{{ nothing + 1 }}", "{{ 1 in 5 }}", "{{ messages < 3 }}",
]
ACCESS = [
    "{{ messages[0].role }} {{ messages[0]['role'] }} {{ messages[-1].role }} {{ messages[0].nothing }}| {{ messages[9] }}| {{ messages.0.role }}",
    "{{ messages[0].nothing.more }}", "{{ nothing }}|{{ nothing is defined }}", "{{ nothing.more }}", "{{ nothing['x'] }}", "{{ messages['x'] }}|{{ name['x'] }}|{{ none['x'] }}|{{ none.x }}|",
    "{{ messages[1:]|length }} {{ messages[:1]|length }} {{ messages[::-1][0].role }} {{ messages[-2:]|length }} {{ messages[5:]|length }} {{ messages[::2]|length }}",
    "{{ name[0] }} {{ name[-1] }} {{ name[1:] }} {{ name[:-1] }} {{ name[::-1] }} {{ name[9] }}| {{ name[2:1] }}| {{ name[::2] }} {{ name[-9:9] }} {{ name[2::-1] }}",
    "{{ 'abcdef'[1:4] }} {{ 'abcdef'[-3:-1] }} {{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[:none] }} {{ [1,2,3,4][1::2] }} {{ [1,2,3][-1:-9:-1] }} {{ 'ab'[0:99] }}",
    "{{ {'a': 1}.a }} {{ {'a': 1}['a'] }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': {'b': [5]}}.a.b[0] }}",
    "{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in messages[0] %}{{ k }},{% endfor %}{{ messages[0].keys()|list }}{{ messages[0].values()|list|length }}",
    "{{ 'abc'[::0] }}", "{{ 5[0] }}|", "{{ 5[0:1] }}", "{{ count.real_thing }}|",
]
STATEMENTS = [
    "{% if count > 5 %}big{% elif count > 3 %}mid{% else %}small{% endif %}", "{% if flag %}a{% elif name %}b{% endif %}", "{% if not flag and (count == 7 or false) %}yes{% endif %}",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }};{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}", "{% for x in [1] %}x{% else %}none{% endfor %}", "{% for c in 'héé' %}[{{ c }}]{% endfor %}", "{% for x in nothing %}x{% else %}e{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{{ loop.last }} {% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}{{ range(1, 10, 3)|list }}{{ range(5, 0, -2)|list }}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}", "{% for (a, b) in [(1, 2)] %}{{ a + b }}{% endfor %}", "{% for x in [1,2,3,4] %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1,2,3,4] %}{% if x is even %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in [1,2] %}{% for y in [1,2] %}{{ loop.index }}{{ loop.depth }}{% if y == 1 %}{% continue %}{% endif %}!{% endfor %};{{ loop.index }}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}<{{ m.role }}>{{ loop.nextitem.role if not loop.last }}|{% endfor %}", "{% for x in [1,2,3] %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% set x = 1 %}{% for y in [1, 2] %}{% set x = y + 10 %}{{ x }} {% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{% for y in [1,2] %}{% if y == 1 %}{% set z = 'first' %}{% endif %}{{ z }}|{% endfor %}{{ z }}|",
    "{% set ns = namespace(a=1, b='x') %}{% for y in [1, 2] %}{% set ns.a = ns.a + y %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c }}|", "{% set ns = namespace() %}{% set ns.x = [1] %}{% set ns.x = ns.x + [2] %}{{ ns.x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [3, 4] %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set x %}block {{ name }}{% endset %}[{{ x }}]{{ x|length }}", "{% set x = 1, 2 %}{{ x }}",
    "{% macro f(a, b=2, c='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c='q') }} {{ f(b=5, a=6) }} {{ f() }}|", "{% macro f(x) %}<{{ x }}>{% endmacro %}{% for m in messages %}{{ f(m.role) }}{% endfor %}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f() %}{{ y }}{% endmacro %}{% set y = 5 %}{{ f() }}", "{% macro f() %}{% set y = 1 %}{{ y }}{% endmacro %}{{ f() }}{{ y }}|", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=1) }}",
    "{% macro f(a) %}{{ a|upper }}{% endmacro %}{{ f('x') ~ f('y')|lower }}{{ f('ab')|length }}", "{% generation %}text {{ name }}{% endgeneration %}", "{% set message = messages[1] %}{% if message.role == 'user' %}{{ message.content|length }}{% endif %}",
    "{{ raise_exception('stop here') }}", "{% if false %}{{ raise_exception('no') }}{% endif %}ok", "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%B %-d, %A') }}", "{{ dict(a=1, b='x') }} {{ dict(a=1).a }}",
    "{% set loop_messages = messages[1:] %}{% for m in loop_messages %}{{ m.role }}{% endfor %}", "{% set messages = messages[1:] %}{{ messages|length }}", "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools is none }}{{ documents is none }}{{ tools is defined }}",
    "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{{ nothing() }}", "{{ name.nothing() }}", "{{ count() }}", "{% set count.x = 1 %}", "{% if %}{% endif %}", "{% if true %}", "{% endif %}", "{{ }}", "{{ 1", "{% for x in %}{% endfor %}", "{# open",
    "{{ 'open }}", "{% set = 1 %}", "{{ (1 }}", "{{ [1, }}", "{{ 1 2 }}", "{% break %}", "{{ a..b }}", "{{ 1 | }}", "{{ x is }}", "{{ $ }}", "{% frobnicate %}", "{{ x | frobnicate }}", "{{ 1 is frobnicate }}", "{{ f(1 }}", "{% macro f(a=1, b) %}{% endmacro %}",
]
FILTERS = [
    "{{ '  x  '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ messages[0].content|trim }}|{{ 5|trim }}", "{{ 'abc'|length }} {{ [1,2]|count }} {{ {'a': 1}|length }} {{ 'é你'|length }} {{ nothing|length }}", "{{ 'aBc é'|upper }} {{ 'aBc É'|lower }} {{ 'hELLO wORLD'|capitalize }} {{ \"it's a-b (c) [d] éa\"|title }} {{ 'ǆ'|upper }}",
    "{{ messages|tojson }}", "{{ messages[0]|tojson(indent=2) }}", "{{ [1, 2.5, true, none, 'é\\u2028\\u0001\\x7f/\"\\\\<>&']|tojson }}", "{{ [[], {}, [[1]], {'a': {}}]|tojson(indent=4) }}", "{{ {'b': 1, 'a': [1, {'c': none}]}|tojson(indent=1) }}", "{{ 1e20|tojson }} {{ 'x'|tojson }} {{ 0.1|tojson }}",
    "{{ [1, 'a', none]|join }} {{ [1, 2]|join(', ') }} {{ messages|join('-', attribute='role') }} {{ 'abc'|join('.') }} {{ []|join('x') }}|", "{{ [1,2]|first }} {{ [1,2]|last }} {{ 'é你'|first }} {{ 'é你'|last }} {{ []|first }}|", "{{ nothing|default('d') }} {{ none|default('d') }} {{ ''|default('d', true) }} {{ 0|d(5, boolean=true) }} {{ nothing|d }}| {{ 'x'|default }}",
    "{{ 5|string + 'a' }} {{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ 3.9|int }} {{ ' 5 '|int }} {{ true|int }} {{ none|int }}", "{{ 'aXbXc'|replace('X', '-') }} {{ 'aXbXc'|replace('X', '-', 1) }} {{ 'aaa'|replace('aa', 'b') }}", "{{ 'abc'|list }} {{ {'a': 1}|list }} {{ (1,2)|list }}", "{{ 'abc'|reverse }} {{ [1,2]|reverse|list }}",
    "{{ messages|map(attribute='role')|list }} {{ ['a','b']|map('upper')|list }} {{ [1,2]|map('string')|join('+') }} {{ [{'a': 1}, {}]|map(attribute='a', default=0)|list }}", "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='role')|list }} {{ messages|rejectattr('role', 'eq', 'user')|list|length }} {{ messages|selectattr('nothing')|list }} {{ messages|selectattr('role', 'in', ['user', 'system'])|list|length }} {{ messages|selectattr('x', 'defined')|list }}",
    "{{ [1,2,3,4]|select('odd')|list }} {{ [1,2,3,4]|reject('odd')|list }} {{ [0,1,'']|select|list }} {{ [1,2,3]|select('gt', 1)|list }} {{ [1,2]|select('==', 2)|first }}", "{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb\n'|indent(1, blank=true) }}|{{ ''|indent }}|{{ 'a\n'|indent(2, first=true) }}", "{{ [1,2,1,3,2]|unique|list }} {{ 'x'|safe }} {{ -5|abs }} {{ 1.5|abs }}",
    "{{ {'a': 1}|items|list }}{% for k, v in {'x': [1]}|items %}{{ k }}{{ v }}{% endfor %}", "{{ 'a,b'|replace(',', ' ')|upper|length }}", "{{ 5|length }}", "{{ none|length }}", "{{ 'a'|replace }}", "{{ 'ab'|upper[0] }}", "{{ ('ab'|upper)[0] }}", "{{ 'a' ~ 'b'|upper }}{{ 1 + '2'|int }}", "{{ messages|length - 1 }}{{ (messages|length - 1) - 0 }}",
    "{{ messages|map(attribute='role')|join(',') }}{{ messages|map(attribute='content')|map('length')|list }}", "{{ nothing|items|list }}", "{{ nothing|tojson }}", "{{ 'x'|first|last }}",
]
TESTS = [
    "{{ nothing is defined }} {{ name is defined }} {{ nothing is undefined }} {{ nothing is not defined }} {{ not nothing is defined }}", "{{ none is none }} {{ 0 is none }} {{ 'a' is string }} {{ 1 is string }} {{ messages is string }}", "{{ {} is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ {} is iterable }} {{ [] is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is sequence }}",
    "{{ 1 is number }} {{ 1.5 is number }} {{ true is number }} {{ 'a' is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is integer }} {{ 1.0 is float }} {{ 1 is float }} {{ true is boolean }} {{ 1 is boolean }}", "{{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ none is false }} {{ flag is false }}", "{{ 3 is odd }} {{ 3 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ -3 is odd }}",
    "{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 3 is gt(2) }} {{ 2 is ge 2 }} {{ 2 is le 1 }} {{ 'a' is in ['a'] }} {{ 'b' is in('abc') }} {{ 'b' is not in 'xyz' }}", "{% if name is string and name is not none %}s{% endif %}{{ 'y' if name is defined else 'n' }}{{ nothing is iterable }}{{ nothing is sequence }}", "{{ messages[0].tool_calls is defined and messages[0].tool_calls }} {{ messages[0].content is string }}",
]
METHODS = [
    "{{ '  a  '.strip() }}|{{ '  a  '.lstrip() }}|{{ '  a  '.rstrip() }}|{{ 'xyaxy'.strip('xy') }}|{{ '\\n\\na\\n'.lstrip('\\n') }}|{{ 'éaé'.strip('é') }}|{{ '\u00a0a\u3000'.strip() }}|", "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a  b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a<x>b<x>c'.split('<x>')[-1] }}", "{{ 'abc'.split('') }}",
    "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b,c'.rsplit(',') }} {{ 'aaa'.rsplit('a', 2) }} {{ 'abc'.split('x') }} {{ 'a b c d'.split(maxsplit=2) }}", "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('') }} {{ ''.startswith('a') }}", "{{ 'aXa'.replace('X', 'Y') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'Abc'.upper() }} {{ 'ABC'.lower() }} {{ 'aBC'.capitalize() }}",
    "{{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('x') }} {{ 'éab'.find('b') }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ 'x'.join(['a', 'b']) }} {{ ', '.join([]) }}|", "{{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'a1'.isdigit() }} {{ ' \\n'.isspace() }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }} {{ 'abc'.removeprefix('x') }}", "{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ 'a\\n\\nb'.splitlines(true) }} {{ ''.splitlines() }}",
    "{{ messages[2].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}|{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}", "{% for part in messages[1].content.split(',') %}[{{ part|trim }}]{% endfor %}", "{{ 'a'.join('xyz') }}", "{{ ','.join([1, 2]) }}", "{{ 'a'.strip(1) }}", "{{ messages[1].content[:3] }}{{ messages[1].content[-1] }}{{ messages[1].content[3] }}", "{{ messages.append(1) }}", "{{ messages[0].update({'a': 1}) }}", "{{ messages[0].get('role') }}{{ messages[0].get('none') }}",
]

SOURCES = WHITE_SPACE + LITERALS + OPERATORS + ACCESS + STATEMENTS + FILTERS + TESTS + METHODS
