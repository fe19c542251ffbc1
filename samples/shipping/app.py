"""Ships what was ordered, and replies with an event of its own: it goes back to the broker."""


def handle(event):
    print("shipping", event.data["item"], flush=True)
    return {
        "specversion": "1.0",
        "id": event.id + "-shipped",
        "type": "order.shipped",
        "source": "/shipping",
        "data": {"item": event.data["item"]},
    }
