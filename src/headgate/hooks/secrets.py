"""``mask-secrets``: API keys of known shapes, private keys, bearer tokens, AWS keys, passwords in connection strings.

Other texts without a pattern count only behind a keyword (``api_key = …``): else every digest would be a secret.
"""

from __future__ import annotations

import re

from headgate.hooks.rules import Atom, Rule, Span, rule_of, value_only

WINDOW = 256  # the longest beginning: the head of a web token, 216 characters

_WORD = "[A-Za-z0-9]"
_NAME = "[A-Za-z0-9_]"
_TOKEN = r"[A-Za-z0-9_\-]"
_MORE = re.compile(rf"{_TOKEN}*+")
_BASE64 = r"[A-Za-z0-9_\-+/=.~]"

# Their makers document the prefixes, or their scanners' partners do (docs.github.com, Secret scanning patterns)
_KEYS: list[tuple[Atom, ...]] = [
    *(
        (prefix, (_TOKEN, 20, 20))
        for prefix in ("sk-", "xai-", "nvapi-", "pypi-", "glpat-", "pplx-", "gsk_", "hf_", "r8_", "hg_")
    ),
    *((f"gh{letter}_", (_WORD, 36, 36)) for letter in "pousr"),
    ("github_pat_", (_NAME, 22, 22)),
    *((f"xox{letter}-", (_TOKEN, 10, 10)) for letter in "abeprs"),
    *((f"{kind}k_{mode}_", (_WORD, 16, 16)) for kind in "sr" for mode in ("live", "test")),
    ("AIza", (_TOKEN, 35, 35)),
    ("npm_", (_WORD, 36, 36)),
    ("SG.", (_TOKEN, 22, 22)),
]
_AWS: list[tuple[Atom, ...]] = [(f"A{kind}IA", ("[A-Z0-9]", 16, 16)) for kind in "KS"]
_WEB_TOKEN: tuple[Atom, ...] = ("eyJ", (_TOKEN, 8, 200), ".eyJ", (_TOKEN, 8, 8))
_PRIVATE: list[tuple[Atom, ...]] = [
    (f"-----BEGIN {kind}-----"[:-1], ("-", 1, 1))
    for kind in (
        "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK",
    )
]  # fmt: skip
_SCHEMES = (
    "postgres", "postgresql", "mysql", "mariadb", "mongodb", "mongodb+srv", "redis", "rediss", "amqp", "amqps",
    "mssql", "sqlserver", "clickhouse", "http", "https", "ftp", "ldap", "ldaps", "smtp",
)  # fmt: skip
_KEYWORDS = ("key", "secret", "token", "password", "passwd", "pwd")
_BLANK = r"[ \t]"
_MIXED = re.compile(r"(?=[^A-Za-z]*+[A-Za-z])[^0-9]*+[0-9][^0-9]*+[0-9]")
_MANY = 10  # different ones of 20 characters; hexadecimal digits by chance have 11.6


_IN_PASSWORD = r"[^\s/@\"'<>\\]"


def _connection(scheme: str) -> tuple[Atom, ...]:
    return (f"{scheme}://", (r"[^\s:/@\"'<>\\]", 0, 64), ":", (_IN_PASSWORD, 1, 128), ("@", 1, 1))


# A password may have an @ that is not encoded: the host stands behind the last one
_MORE_PASSWORD = re.compile(rf"(?:@{_IN_PASSWORD}{{1,128}}+(?=@))*+")
_HOST = re.compile(rf"@{_IN_PASSWORD}{{0,128}}+")


def _password(found: re.Match[str]) -> Span | None:
    """The password: what stands between the colon and the first @ behind it."""
    start = found.group().index(":", found.group().index("//")) + 1
    return found.start() + start, found.end() - 1


def _after_keyword(keyword: str) -> tuple[Atom, ...]:
    quote = (r"[\\\"'`]", 0, 2)  # in JSON that stands in JSON, with a backslash
    return keyword, quote, (_BLANK, 0, 3), ("[=:]", 1, 1), (_BLANK, 0, 3), quote, (_BASE64, 20, 20)


def _is_random(found: re.Match[str]) -> Span | None:
    """A value that no person has thought of: digits and letters, and many of them."""
    value = found.group(found.lastindex or 0)
    return value_only(found) if _MIXED.match(value) and len(set(value)) >= _MANY else None


def _has_digit(found: re.Match[str]) -> Span | None:
    return value_only(found) if any(c.isdigit() for c in found.group(found.lastindex or 0)) else None


_MORE_BASE64 = re.compile(rf"{_BASE64}*+")
RULES: tuple[Rule, ...] = (
    rule_of("API key", _WORD, _KEYS, more=_MORE),
    rule_of("AWS key", _WORD, _AWS, more=re.compile("[A-Z0-9]*+")),
    rule_of("token", _WORD, [_WEB_TOKEN], more=re.compile(r"[A-Za-z0-9_\-.]*+")),
    rule_of("private key", "-", _PRIVATE, end=re.compile("-----END [A-Z ]{1,40}-----")),
    rule_of(
        "bearer token", _WORD, [("bearer", (_BLANK, 1, 4), (_BASE64, 16, 16))], check=_has_digit, more=_MORE_BASE64,
        any_case=True,
    ),
    rule_of(
        "password", _WORD, [_connection(scheme) for scheme in _SCHEMES], check=_password, more=_MORE_PASSWORD,
        pending=_HOST,
    ),
    rule_of(
        "secret", "", [_after_keyword(keyword) for keyword in _KEYWORDS], check=_is_random,
        more=_MORE_BASE64, any_case=True,
    ),
)  # fmt: skip
