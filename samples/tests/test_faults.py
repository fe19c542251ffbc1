"""What the order flow does when something in it breaks; each test has the project to itself."""

import pytest

pytestmark = pytest.mark.knlocal(folder="../..", runtime="process")


def test_an_order_survives_a_billing_that_fails_for_a_moment(knlocal, sink) -> None:
    billing = knlocal.get("trigger", "billing")
    billing["spec"]["subscriber"] = {"uri": sink.url}
    del billing["spec"]["delivery"]["deadLetterSink"]
    knlocal.apply(billing)
    sink.answers(503, 503, 202)
    knlocal.service("orders").post("/", json={"item": "tea", "amount": 12})
    for _ in range(3):
        sink.expect(type="order.created", within="20s")
        knlocal.clock.advance("10s")
    sink.expect_none()


def test_an_event_sent_by_hand_goes_the_same_way(knlocal) -> None:
    knlocal.events.send(type="order.created", source="/orders", data={"item": "tea", "amount": 1})
    knlocal.events.expect(type="order.shipped", data={"item": "tea"}, within="20s")
