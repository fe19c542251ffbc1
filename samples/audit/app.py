"""Writes down every event that comes by."""


def handle(event):
    why = f" (given up after {event['knativeerrorcode']})" if "knativeerrorcode" in event else ""
    print(f"{event.type} from {event.source}: {event.data}{why}", flush=True)
