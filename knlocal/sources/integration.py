"""IntegrationSource: the timer, which needs no container here; AWS sources need their images.

Events of the timer as Knative's timer image sends them: type `dev.knative.eventing.timer`, source
`dev.knative.eventing.timer-source`, subject `timer-source`.
"""

from __future__ import annotations

from knlocal.resources.base import GroupKind, Obj, spec_of
from knlocal.sources.tasks import Send, TaskSourceController

TIMER_TYPE = "dev.knative.eventing.timer"
TIMER_SOURCE = "dev.knative.eventing.timer-source"
_AWS = {
    "s3": "aws-s3-source", "sqs": "aws-sqs-source", "ddbStreams": "aws-ddb-streams-source",
}  # fmt: skip


class IntegrationSourceController(TaskSourceController):
    """Runs one task per timer; its messages go out in order."""

    kind = GroupKind("sources.knative.dev", "IntegrationSource")
    #: Knative has no other; it follows the ContainerSource that its controller makes.
    conditions = ("ContainerSourceReady",)
    sink_condition = running_condition = "ContainerSourceReady"

    def event_types(self, obj: Obj) -> list[dict[str, str]]:
        return [{"type": TIMER_TYPE, "source": TIMER_SOURCE}]

    def refusal(self, obj: Obj) -> tuple[str, str]:
        """What a source that is not a timer would need to run here."""
        spec = spec_of(obj)
        if spec.get("timer") is not None:
            return "", ""
        service = next((name for name in _AWS if (spec.get("aws") or {}).get(name)), "")
        return "NotSimulated", (
            f"spec.aws.{service} is not simulated: it needs Knative's image "
            f"{_AWS.get(service, '')}, and AWS. Where both can be had, run the image as a "
            "ContainerSource"
        )

    async def produce(self, obj: Obj, send: Send) -> None:
        timer = spec_of(obj)["timer"]
        data = str(timer.get("message", "")).encode()
        content_type = timer.get("contentType") or "text/plain"
        left = timer.get("repeatCount") or None
        while left is None or left > 0:
            await self.clock.sleep(timer.get("period", 1000) / 1000)
            await send(TIMER_TYPE, TIMER_SOURCE, data, content_type, subject="timer-source")
            left = None if left is None else left - 1
