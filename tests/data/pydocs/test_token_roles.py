"""Syntactic roles of the tokens of Python code."""

from bert_jax.data.pydocs import token_roles


def test_every_role():
    code = 'class A(B):\n    x: int = 0\n    def f(self, y=1):\n        g.h(y, z=self.w)  # !\n'
    code += "        print('" + 60 * 'long ' + "')\n"
    tagged = token_roles.tag(code)
    assert ' '.join(f'{token}/{tag}' for token, tag in tagged[:-5]) == (
        'class/keyword A/class (/operator B/variable )/operator :/operator '
        'x/variable :/operator int/variable =/operator 0/number '
        'def/keyword f/function (/operator self/parameter ,/operator y/parameter =/operator '
        '1/number )/operator :/operator g/variable ./operator h/call (/operator y/variable '
        ',/operator z/argument =/operator self/variable ./operator w/attribute )/operator'
    )
    long = "'" + ('long ' * 8)[:39].rstrip()
    kinds = ['comment', 'call', 'operator', 'string', 'operator']
    assert tagged[-5:] == list(zip(['# !', 'print', '(', long, ')'], kinds, strict=True))


def test_f_strings_are_one_token():
    code = "def f():\n    return f'{a:{b}} {\"c\"}' + f'''x\n{y}'''\n"
    strings = [token for token, tag in token_roles.tag(code) if tag == 'string']
    assert strings == ['f\'{a:{b}} {"c"}\'', "f'''x {y}'''"]
