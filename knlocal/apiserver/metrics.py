"""`metrics.k8s.io`: what pods use right now, for `kubectl top`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.pods import PodAccess
from knlocal.apiserver.requests import ApiRequest
from knlocal.resources import labels
from knlocal.resources.base import GroupKind, Obj, timestamp
from knlocal.resources.kinds import Kind
from knlocal.resources.status import NotFound
from knlocal.runtime.api import RuntimeFailure
from knlocal.store.store import POD, Store

NODE = GroupKind("", "Node")
_GROUP, _VERSION = "metrics.k8s.io", "v1beta1"
_WINDOW = "15s"
Usage = Mapping[str, tuple[float, int]]


def _kind(name: str, plural: str, *, namespaced: bool) -> Kind:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return Kind(
        _GROUP, _VERSION, name, plural, schema, singular=plural[:-1], namespaced=namespaced,
        verbs=("get", "list"), has_status=False, is_custom=False,
    )  # fmt: skip


class Metrics:
    """PodMetrics and NodeMetrics, measured when asked for."""

    def __init__(self, store: Store, access: PodAccess) -> None:
        self._store = store
        self._access = access

    def handlers(
        self,
    ) -> list[tuple[Kind, Callable[[ApiRequest], Awaitable[web.StreamResponse]]]]:
        return [
            (_kind("PodMetrics", "pods", namespaced=True), self.pods),
            (_kind("NodeMetrics", "nodes", namespaced=False), self.nodes),
        ]

    async def pods(self, request: ApiRequest) -> web.StreamResponse:
        target = request.target
        if target.name:
            pod = self._store.get(POD, target.namespace, target.name)
            usage = await self._usage(pod)
            if not usage:
                raise NotFound(
                    f'podmetrics.metrics.k8s.io "{target.namespace}/{target.name}" not found',
                    group=_GROUP, kind="podmetrics", name=target.name,
                )  # fmt: skip
            return negotiation.answer(self._pod(pod, usage))
        selector = labels.parse(request.query.text("labelSelector"))
        pods = [
            pod
            for pod in self._store.list(POD, request.namespace)
            if selector.matches(pod["metadata"].get("labels"))
        ]
        usages = await asyncio.gather(*(self._usage(pod) for pod in pods))
        items = [self._pod(pod, usage) for pod, usage in zip(pods, usages, strict=True) if usage]
        return self._list("PodMetricsList", items)

    async def nodes(self, request: ApiRequest) -> web.StreamResponse:
        running = self._store.list(POD)
        usages = await asyncio.gather(*(self._usage(pod) for pod in running))
        items = []
        for node in self._store.list(NODE):
            name = node["metadata"]["name"]
            here = [
                use
                for pod, usage in zip(running, usages, strict=True)
                if (pod.get("spec") or {}).get("nodeName") == name
                for use in usage.values()
            ]
            cores, memory = sum(use[0] for use in here), sum(use[1] for use in here)
            items.append({
                "kind": "NodeMetrics", "apiVersion": f"{_GROUP}/{_VERSION}",
                "metadata": {"name": name, "labels": node["metadata"].get("labels") or {}},
                **self._measured(), "usage": _quantities(cores, memory),
            })  # fmt: skip
        if not request.target.name:
            return self._list("NodeMetricsList", items)
        for item in items:
            if item["metadata"]["name"] == request.target.name:
                return negotiation.answer(item)
        raise NotFound(f'nodemetrics.metrics.k8s.io "{request.target.name}" not found')

    async def _usage(self, pod: Obj) -> Usage:
        if (pod.get("status") or {}).get("phase") != "Running":
            return {}
        try:
            return await self._access.stats(pod)
        except RuntimeFailure:
            return {}

    def _pod(self, pod: Obj, usage: Usage) -> Obj:
        metadata = pod["metadata"]
        return {
            "kind": "PodMetrics", "apiVersion": f"{_GROUP}/{_VERSION}",
            "metadata": {
                "name": metadata["name"], "namespace": metadata.get("namespace"),
                "labels": metadata.get("labels") or {}, "creationTimestamp": self._now(),
            },
            **self._measured(),
            "containers": [
                {"name": name, "usage": _quantities(cores, memory)}
                for name, (cores, memory) in sorted(usage.items())
            ],
        }  # fmt: skip

    def _list(self, kind: str, items: list[Obj]) -> web.Response:
        shown = {
            "kind": kind, "apiVersion": f"{_GROUP}/{_VERSION}", "metadata": {}, "items": items,
        }  # fmt: skip
        return negotiation.answer(shown)

    def _measured(self) -> Obj:
        return {"timestamp": self._now(), "window": _WINDOW}

    def _now(self) -> str:
        return timestamp(self._store.clock.now())


def _quantities(cores: float, memory: int) -> Obj:
    return {"cpu": f"{round(cores * 1_000_000_000)}n", "memory": f"{memory // 1024}Ki"}
