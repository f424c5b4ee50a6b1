"""Files that nobody means: a gateway that runs reads them all the same, and none of them may end it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate.settings import ConfigError, load
from headgate.settings.file import MAX_BYTES, find
from tests import forked

NINE = "\n".join(
    f"{name}: &{name} [{', '.join([below] * 9)}]"
    for name, below in zip("abcdefghi", ["x", "*a", "*b", "*c", "*d", "*e", "*f", "*g", "*h"], strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 3000))
MERGES = "a: &a {x: 1}\n" + "\n".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{below}'] * 9)}]}}"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(path), {"HOME": str(tmp_path), "GROQ_API_KEY": "gsk-0123456789"})
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("providers:\n  p:\n    preset: [groq]\n    base_url: x", "providers.p.preset: must be text"),
        ("providers: {p: {preset: {a: b}, base_url: 'http://x'}}", "providers.p.preset: must be text"),
        ("server:\n  port: !!timestamp 'sk-secret'", "server.port: must be a whole number"),
        ("server: {port: !!bool sk-secret}", "server.port: must be a whole number"),
        ("server: {port: !!int sk-secret}", "server.port: must be a whole number"),
        ("server: {port: !!float sk-secret}", "server.port: must be a whole number"),
        ("a: 2001-13-41", "a: unknown key"),
        (f"server: {{port: {'9' * 5001}}}", "server.port: must be a whole number"),
        ("!!int x: 1", "x: unknown key"),
        ("!!set {server, control}", "the file: no value here is a tag:yaml.org,2002:set (line 1)"),
        ("server: !!omap [port: 1]", "server: no value here is a tag:yaml.org,2002:omap (line 1)"),
        ("a: " + "[" * 100 + "]" * 100, "headgate.yaml, line 1: is nested deeper than 32 levels"),
        (CHAIN, "the file has more than 32 levels, its aliases written out"),
        (NINE, "the file has more than 200000 values, its aliases written out"),
        (MERGES, "the file has more than 200000 values, its aliases written out"),
        ("#" * (MAX_BYTES + 1), "headgate.yaml: is larger than 4 MB"),
    ],
    ids=lambda text: text[:30].replace("\n", " "),
)  # fmt: skip
def test_it_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    found = problem(tmp_path, text)
    assert sentence in found and "secret" not in found


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 100_000])
def test_brackets_that_would_end_the_process(tmp_path: Path, text: str) -> None:
    """In a process of its own: what it guards against is a segmentation fault."""
    path = tmp_path / "headgate.yaml"
    path.write_text(text)
    done = forked.command("config", "check", "--config", str(path), environ={**os.environ, "HOME": str(tmp_path)})
    assert (done.returncode, "is nested deeper than 32 levels" in done.stdout) == (2, True), done


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("state_dir: ~nobody-at-all/x", "state_dir: ~nobody-at-all is nobody's home directory"),
        ("database: sqlite:///~nobody-at-all/x", "database: ~nobody-at-all is nobody's home directory"),
        # What nobody thought of is a problem, too
        ("providers: {p: {base_url: 'http://x', ca_file: ~nobody-at-all/x}}", "cannot be understood (RuntimeError)"),
    ],
)
def test_a_home_that_is_not_there(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in problem(tmp_path, text)


def test_a_link_is_followed_at_every_reading(tmp_path: Path) -> None:
    """As Kubernetes swaps a ConfigMap: the file is a link through a directory that is a link, and that is replaced."""
    for name, port in (("old", 4100), ("new", 4200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "headgate.yaml").write_text(f"server: {{port: {port}}}")
    (tmp_path / "data").symlink_to("old")
    (tmp_path / "headgate.yaml").symlink_to("data/headgate.yaml")
    path = find(str(tmp_path / "headgate.yaml"), {})
    assert path == tmp_path / "headgate.yaml"
    assert load(str(path), {"HOME": str(tmp_path)}).file.server.port == 4100
    (tmp_path / "draft").symlink_to("new")
    (tmp_path / "draft").replace(tmp_path / "data")
    (tmp_path / "old" / "headgate.yaml").unlink()
    assert load(str(path), {"HOME": str(tmp_path)}).file.server.port == 4200
