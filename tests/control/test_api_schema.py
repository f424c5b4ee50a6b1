"""The whole OpenAPI of a running control process, fuzzed: what is promised is answered, whatever is sent.

Generated from /openapi.json itself, so a new route is in it by being there.  Seeded; a failure prints the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis.errors import Unsatisfiable

from tests import proofs
from tests.control.child import ADMIN, Child
from tests.dataplane import DataPlane

EXAMPLES = proofs.of(4, 25)  # per operation and mode


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    # A fuzzed wish may name a real service: whatever is called from here ends at a port where nothing listens
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        running = Child(tmp_path_factory.mktemp("schema"))
    with running, DataPlane(running.state):
        yield running


@pytest.fixture(scope="module")
def api(child: Child) -> Any:
    made = child.call("POST", "/admin/v1/tokens", json={"name": "one"})
    assert made.status_code == 201
    assert child.call("POST", "/admin/v1/accounts", json={"provider": "openai", "key": "sk-" + "a" * 30}).is_success
    wish = {"targets": [{"model": "openai/gpt-4o-mini"}]}
    assert child.call("PUT", "/admin/v1/aliases/headgate/chat", json=wish).is_success
    whole = child.call("GET", "/openapi.json", None).json()
    # Every request here has the token: one that is "invalid" by having none would be valid when it is sent
    del whole["components"]["securitySchemes"]
    for path in whole["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
    import schemathesis  # not above: every worker imports this file, one of them runs it

    return schemathesis.openapi.from_dict(whole)


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_what_the_schema_promises_is_answered(api: Any, child: Child, mode: str) -> None:
    broken = []
    for found in api.get_all_operations():
        operation = found.ok()
        try:
            _fuzz(operation, mode, child.url)
        except (Unsatisfiable, SkipTest):
            continue  # a route without inputs has no invalid ones
        except Exception as error:
            broken.append(f"{operation.label}: {error}")
    assert not broken, "\n\n".join(broken)


def _fuzz(operation: Any, mode: str, url: str) -> None:
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    @seed(7)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def conforms(case: Any) -> None:
        assume(all(value not in ([], {}) for value in (case.query or {}).values()))  # not sent: nothing is wrong then
        headers = {"Authorization": f"Bearer {ADMIN}"}
        # The one check that cannot hold: names that clash, and objects that are not there, are valid by the schema and
        # refused by the store (409, 400 with a sentence).  An accepted body is validated against its model.
        case.call_and_validate(base_url=url, headers=headers, excluded_checks=[positive_data_acceptance], timeout=20)

    conforms()


def test_the_process_outlives_it_and_nothing_was_a_defect(child: Child) -> None:
    assert child.process.poll() is None
    assert child.call("GET", "/livez", None).status_code == 200
    log = child.log.read_text()
    assert "Traceback" not in log and "defect" not in log
