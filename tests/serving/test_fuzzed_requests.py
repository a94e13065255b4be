"""Whatever is sent, the service answers as its own description says, and never that it failed."""

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

OPERATIONS = [
    ("/recommend", "POST"),
    ("/events", "POST"),
    ("/users/{user}/recommend", "GET"),
    ("/similar/{item}", "GET"),
    ("/influence", "POST"),
    ("/items", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def description(start_once, windowed, streaming):
    """What the service says of itself, ready to be asked."""
    service = start_once(f"--bundle={windowed}", f"--compare={streaming}")
    service.post("/events", {"events": [{"user": "0", "item": "item-001"}]})
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


def test_no_request_is_left_out(description):
    described = {
        (path, method.upper()) for path, methods in description.raw_schema["paths"].items() for method in methods
    }
    assert described == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_request_has_an_answer_as_described(description, path, method, mode):
    operation = description[path][method]
    if mode is schemathesis.GenerationMode.NEGATIVE and path in ("/health", "/metrics"):
        pytest.skip("there is nothing to get wrong")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, database=None)
    def ask(case):
        response = case.call()
        assert response.status_code < 500, response.text
        if response.text == "Invalid HTTP request received.":  # an address of more than 64 KiB
            return
        # That there is one time for each item cannot be said in a schema.
        case.validate_response(response, excluded_checks=[checks.positive_data_acceptance])

    ask()
