"""Refuses large orders: after its retries such an event goes to the dead letter sink."""


def handle(event):
    if event.data["amount"] > 1000:
        return "too large to be billed automatically\n", 500
    print("billed", event.data["amount"], flush=True)
    return None
