"""The workloads feature, put together: what the daemon builds, starts and asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from knlocal.clock import Clock
from knlocal.control.controller import Controller
from knlocal.gateway import Pool, RouteTable
from knlocal.resources.base import Obj
from knlocal.runtime.api import Runtime
from knlocal.store.store import Store
from knlocal.workloads.cluster import ClaimController, NodeController
from knlocal.workloads.cronjobs import CronJobController
from knlocal.workloads.deployments import DeploymentController
from knlocal.workloads.disruption import DisruptionController
from knlocal.workloads.horizontal import HorizontalPodAutoscalerController
from knlocal.workloads.jobs import JobController
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.limits import limit_admission
from knlocal.workloads.podplan import PodNetwork, pod_id
from knlocal.workloads.quota import QuotaController, quota_admission
from knlocal.workloads.replicasets import ReplicaSetController
from knlocal.workloads.servicerouter import ServiceRouter
from knlocal.workloads.services import ServiceController
from knlocal.workloads.sets import DaemonSetController, StatefulSetController
from knlocal.workloads.standby import Standbys
from knlocal.workloads.tokens import TokenIssuer


class Workloads:
    """Kubernetes' own workloads on one machine.

    `gateway_address` is where containers reach the gateway; `network` may be filled in later.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        root: Path,
        *,
        routes: RouteTable,
        pool: Pool,
        gateway_address: str,
        machine_clock: Clock | None = None,
        network: PodNetwork | None = None,
        issue_token: TokenIssuer | None = None,
    ) -> None:
        store.admission.append(limit_admission(store))  # first: others look at what it sets
        self.kubelet = Kubelet(
            store,
            runtime,
            root,
            machine_clock=machine_clock,
            network=network,
            issue_token=issue_token,
        )
        self.standbys = Standbys(self.kubelet)
        self.services = ServiceController(
            store,
            self.kubelet.address_of,
            ServiceRouter(routes, pool, store.clock),
            gateway_address,
        )
        store.admission.append(quota_admission(store))

    def controllers(self) -> list[Controller]:
        """All controllers, in the order in which they start."""
        store = self.kubelet.store
        return [
            NodeController(self.kubelet),
            ClaimController(self.kubelet),
            QuotaController(store),
            DisruptionController(store),
            DeploymentController(store, self.standbys),
            ReplicaSetController(store, self.standbys),
            StatefulSetController(store),
            DaemonSetController(store),
            CronJobController(store),
            JobController(store),
            HorizontalPodAutoscalerController(store, self._usage_of),
            self.services,
            self.kubelet,
        ]

    async def _usage_of(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        return await self.kubelet.node.runtime.stats(pod_id(pod))

    @property
    def busy(self) -> bool:
        """Whether pods or standbys are being started or stopped right now."""
        return self.kubelet.busy or self.standbys.busy

    async def shutdown(self, *, grace_seconds: float = 5.0) -> None:
        """After the controllers were stopped: leave nothing running."""
        await self.kubelet.shutdown(grace_seconds=grace_seconds)
