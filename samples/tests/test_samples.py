"""The samples, tested as their author would: offline, with the pytest plugin, on processes."""

import time

import pytest

pytestmark = pytest.mark.knlocal(folder="../..", runtime="process")


@pytest.fixture
def samples(knlocal_module):
    """One project for all tests of this file: each sends orders of its own."""
    return knlocal_module


def order(samples, item: str, amount: int) -> str:
    """Order something; the id of its event."""
    answer = samples.service("orders").post("/", json={"item": item, "amount": amount})
    assert answer.status == 202
    return str(answer.json()["order"])


def logged(samples, service: str, words: str) -> bool:
    """Whether a service writes these words: events arrive a moment after what caused them."""
    end = time.monotonic() + 20
    while words not in samples.logs(service):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_hello_greets_and_says_which_revision_it_is(samples) -> None:
    assert samples.service("hello").get("/").text == "Hello from hello-00001\n"


def test_both_revisions_of_split_have_addresses_of_their_own(samples) -> None:
    assert samples.service("split", tag="old").get("/").text == "version 1\n"
    assert samples.service("split", tag="new").get("/").text == "version 2\n"


def test_notes_are_kept(samples) -> None:
    assert samples.service("notes").post("/", data="buy tea").status == 201
    assert "- buy tea\n" in samples.service("notes").get("/").text


def test_the_function_greets_by_name(samples) -> None:
    assert samples.service("greeter").get("/Ada").text == "Good day, Ada\n"


def test_an_order_is_shipped_billed_and_audited(samples) -> None:
    created = order(samples, "tea", 12)
    samples.events.expect(type="order.created", id=created, data={"item": "tea"})
    samples.events.expect(
        type="order.shipped", id=f"{created}-shipped", data={"item": "tea"}, within="20s"
    )
    assert logged(samples, "billing", "billed 12")
    assert logged(samples, "audit", "order.shipped from /shipping: {'item': 'tea'}")


def test_what_is_no_order_is_refused_and_tells_nobody(samples) -> None:
    answer = samples.service("orders").post("/", data="tea, please")
    assert answer.status == 400
    assert answer.json() == {"error": "send an order as JSON"}


def test_an_order_too_large_for_billing_is_a_dead_letter(samples) -> None:
    order(samples, "yacht", 5000)
    samples.events.expect(type="order.created", data={"item": "yacht"})
    samples.clock.advance("1m")  # the back-off of its two retries
    assert logged(samples, "audit", "'item': 'yacht', 'amount': 5000} (given up after 500)")


def test_every_minute_a_greeting_goes_through_the_sequence(samples) -> None:
    samples.clock.advance("1m")
    assert logged(samples, "audit", "{'text': 'GOOD MORNING!'}")
