"""Route: which revisions answer its hosts, in what shares; in the gateway first, then in status.

Mirrors knative.dev/serving/pkg/reconciler/route (behaviours B94 to B107). "Ready" is a promise that
the split is served on every host, so the gateway's table changes before the status says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.gateway import Route as GatewayRoute
from knlocal.gateway import RouteTable
from knlocal.gateway.routes import INSIDE
from knlocal.resources import duration
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_controlled_by,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
)
from knlocal.resources.gotemplate import TemplateError
from knlocal.serving.activator.registry import Activator
from knlocal.serving.activator.route import HostHandler, Split, not_ready
from knlocal.serving.children import NotOwned
from knlocal.serving.config import Config, is_config
from knlocal.serving.hosts import HostName, Ports, host_name, internal_url, url_of
from knlocal.serving.ingress import ensure_ingress, ensure_placeholder, ingress_name
from knlocal.serving.kinds import (
    CLUSTER_LOCAL,
    CONFIG_MAP,
    CONFIGURATION,
    INGRESS,
    K8S_SERVICE,
    REVISION,
    ROLLOUT,
    ROLLOUT_DURATION,
    ROUTE,
    ROUTE_LABEL,
    VISIBILITY_LABEL,
)
from knlocal.serving.rollout import SECOND, Rollout
from knlocal.serving.traffic import BadTarget, RevisionTarget, Traffic, resolve, why_not_ready
from knlocal.store.store import Store

CONDITIONS = ("AllTrafficAssigned", "CertificateProvisioned", "IngressReady")


@dataclass(frozen=True, slots=True)
class TagSplit:
    """What one host serves: revision names with their percentages."""

    name: HostName
    shares: tuple[tuple[str, int], ...]


class RouteController(Controller):
    kind = ROUTE
    urgency = Urgency.TRAFFIC

    def __init__(
        self,
        store: Store,
        config: Config,
        activator: Activator,
        routes: RouteTable,
        ports: Ports,
        recorder: EventRecorder | None = None,
    ) -> None:
        super().__init__(store, recorder)
        self._config = config
        self._activator = activator
        self._routes = routes
        self._ports = ports
        self._serving: set[Key] = set()
        self._tracked: dict[Key, set[Key]] = defaultdict(set)
        self._tracks: dict[Key, set[Key]] = {}

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(CONFIGURATION, self._trackers),
            Watching(REVISION, self._trackers),
            Watching(K8S_SERVICE, _of_placeholder),
            Watching(CONFIG_MAP, self._of_config),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        route = self.store.find_key(key)
        if route is None or is_deleting(route):
            self._stop_serving(key)
            return None
        self._track(route)
        status = copy(status_of(route))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        requeue = None
        try:
            requeue = self._serve(route, status, conditions)
        except NotOwned as foreign:
            if key not in self._serving:
                self._routes.remove(owner_of(key))  # the name is somebody else's
            conditions.false(
                "IngressReady",
                "NotOwned",
                f'There is an existing placeholder {foreign.kind} "{foreign.name}" '
                "that we do not own.",
            )
        except TemplateError as error:
            conditions.unknown("AllTrafficAssigned", "Unknown", str(error))
        status["observedGeneration"] = route["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(route, status)
        return requeue

    # -- stages -------------------------------------------------------------------------------

    def _serve(self, route: Obj, status: Obj, conditions: Conditions) -> Requeue | None:
        """Resolve, make children, switch the gateway over, and only then say so."""
        main = self._name(route, "")
        status["url"] = self._url(main)
        traffic = resolve(route, self.store)
        if isinstance(traffic, BadTarget):
            self._show_bad_target(traffic, conditions)
            self._keep_serving(route, status, traffic)
            return None
        conditions.true("AllTrafficAssigned")
        names = {tag: self._name(route, tag) for tag in sorted({"", *traffic.by_tag})}
        status["address"] = {"url": internal_url(main.internal, self._ports)}
        self._placeholders(route, names)
        rollout = self._rollout(route, traffic)
        splits = [_split(names[tag], traffic.by_tag.get(tag, []), rollout) for tag in names]
        ensure_ingress(self.store, self.recorder, route, splits, rollout, self._config)
        self._apply(route, splits)
        rollout_wait = self._show_rollout(route, rollout, conditions)
        self._show_certificate(main, conditions)
        status["traffic"] = _status_traffic(
            traffic, rollout, {tag: self._url(name) for tag, name in names.items()}
        )
        return rollout_wait

    def _name(self, route: Obj, tag: str) -> HostName:
        """The names of a tag; private when the route is, or when its placeholder Service is."""
        name = host_name(route, tag, self._config)
        placeholder = self.store.find(K8S_SERVICE, name.namespace, name.service)
        if (
            placeholder is not None
            and labels_of(placeholder).get(VISIBILITY_LABEL) == CLUSTER_LOCAL
            and is_controlled_by(placeholder, route)
        ):
            return host_name(route, tag, self._config, private=True)
        return name

    def _url(self, name: HostName) -> str:
        return url_of(name, self._ports, self._config.network.default_external_scheme)

    def _show_bad_target(self, bad: BadTarget, conditions: Conditions) -> None:
        if bad.status == "False":
            conditions.false("AllTrafficAssigned", bad.reason, bad.message)
        else:
            conditions.unknown("AllTrafficAssigned", bad.reason, bad.message)

    def _placeholders(self, route: Obj, names: dict[str, HostName]) -> None:
        """k8s Services that hold the names within the cluster (behaviour B102)."""
        for name in names.values():
            ensure_placeholder(self.store, self.recorder, route, name.service)
        wanted = {name.service for name in names.values()}
        for child in self.store.children(route["metadata"]["uid"]):
            key = key_of(child)
            if key.group_kind == K8S_SERVICE and key.name not in wanted:
                self.store.delete(K8S_SERVICE, key.namespace, key.name)

    def _rollout(self, route: Obj, traffic: Traffic) -> Rollout:
        """The split to serve now, when the latest revision takes over little by little."""
        goal = traffic.rollout()
        seconds = self._rollout_seconds(route)
        metadata = route["metadata"]
        ingress = self.store.find(INGRESS, metadata["namespace"], ingress_name(route))
        if seconds <= 0 or ingress is None:
            return goal
        previous = Rollout.from_json(annotations_of(ingress).get(ROLLOUT))
        now = round(self.clock.now().timestamp() * SECOND)
        rollout = goal.step(previous, now)
        # On a cluster the first percent takes time to be programmed. Here it is served at once.
        rollout.observe_ready(now, seconds)
        return rollout

    def _rollout_seconds(self, route: Obj) -> float:
        try:
            own = duration.parse(ROLLOUT_DURATION.value(annotations_of(route)) or "0s")
        except ValueError:
            own = 0.0
        return own or float(self._config.network.rollout_duration)

    def _show_rollout(self, route: Obj, rollout: Rollout, conditions: Conditions) -> Requeue | None:
        if rollout.done:
            conditions.true("IngressReady")
            return None
        conditions.unknown(
            "IngressReady",
            "RolloutInProgress",
            "A gradual rollout of the latest revision(s) is in progress.",
        )
        due = rollout.next_step()
        now = self.clock.now().timestamp() * SECOND
        return Requeue(max(0.001, (due - now) / SECOND)) if due else None

    def _show_certificate(self, main: HostName, conditions: Conditions) -> None:
        message = "external-domain-tls is not enabled"
        if main.external is None:
            message = "TLS is not enabled for cluster-local"
        conditions.true("CertificateProvisioned", "TLSNotEnabled", message)

    # -- the gateway --------------------------------------------------------------------------

    def _apply(self, route: Obj, splits: Sequence[TagSplit]) -> None:
        """Switch all hosts of the route over to these splits, at once."""
        namespace = route["metadata"]["namespace"]
        tag_header = self._config.features.tag_header_based_routing == "Enabled"
        by_tag = {s.name.tag: self._backends(namespace, s) for s in splits}
        table: dict[str, GatewayRoute] = {}
        for split in splits:
            tag = split.name.tag
            others = {t: targets for t, targets in by_tag.items() if t} if not tag else None
            handler = HostHandler(
                by_tag[tag], tag=tag, by_tag=others, tag_header_routing=tag_header
            ).handle
            for host in split.name.internal_names:
                table[host] = GatewayRoute(handler, INSIDE)
            if split.name.external:
                table[split.name.external] = GatewayRoute(handler)
        self._routes.put(owner_of(key_of(route)), table)
        self._serving.add(key_of(route))

    def _backends(self, namespace: str, split: TagSplit) -> Split:
        return [(self._activator.revision(namespace, name), share) for name, share in split.shares]

    def _keep_serving(self, route: Obj, status: Obj, bad: BadTarget) -> None:
        """A bad target changes nothing (behaviour B96): after a restart that means to serve again
        what the status says was served."""
        if key_of(route) in self._serving:
            return
        if not status.get("traffic"):
            self._tell_not_ready(route, bad)
            return
        shares: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for target in status["traffic"]:
            share = (target["revisionName"], int(target.get("percent") or 0))
            shares[""].append(share)
            if target.get("tag"):
                shares[target["tag"]].append((share[0], 100))
        self._apply(
            route, [TagSplit(self._name(route, tag), tuple(s)) for tag, s in shares.items()]
        )

    def _tell_not_ready(self, route: Obj, bad: BadTarget) -> None:
        """404, as for any host that is not served, but with why this one is not yet."""
        name = self._name(route, "")
        handler = not_ready(key_of(route), why_not_ready(route, bad, self.store))
        table = {host: GatewayRoute(handler, INSIDE) for host in name.internal_names}
        if name.external:
            table[name.external] = GatewayRoute(handler)
        self._routes.put(owner_of(key_of(route)), table)

    def _stop_serving(self, key: Key) -> None:
        self._routes.remove(owner_of(key))
        self._serving.discard(key)
        self._untrack(key)

    # -- who must be looked at again ----------------------------------------------------------

    def _track(self, route: Obj) -> None:
        """Remember what the route refers to, missing objects included."""
        key = key_of(route)
        found: set[Key] = set()
        for target in spec_of(route).get("traffic") or ():
            if name := target.get("revisionName"):
                found.add(Key(*REVISION, key.namespace, name))
            elif name := target.get("configurationName"):
                found.add(Key(*CONFIGURATION, key.namespace, name))
                configuration = self.store.find(CONFIGURATION, key.namespace, name)
                latest = status_of(configuration or {}).get("latestReadyRevisionName")
                if latest:
                    found.add(Key(*REVISION, key.namespace, latest))
        if self._tracks.get(key) != found:
            self._untrack(key)
            self._tracks[key] = found
            for referred in found:
                self._tracked[referred].add(key)

    def _untrack(self, key: Key) -> None:
        for referred in self._tracks.pop(key, ()):
            self._tracked[referred].discard(key)
            if not self._tracked[referred]:
                del self._tracked[referred]

    def _trackers(self, obj: Obj) -> Iterable[Key]:
        return self._tracked.get(key_of(obj), ())

    def _of_config(self, config: Obj) -> Iterable[Key]:
        names = ("config-network", "config-domain", "config-features")
        return self.all_keys() if is_config(config, *names) else ()


def owner_of(route: Key) -> str:
    """The name under which a Route holds its hosts in the gateway's table."""
    return f"serving/route/{route.namespace}/{route.name}"


def _split(name: HostName, targets: list[RevisionTarget], rollout: Rollout) -> TagSplit:
    shares: list[tuple[str, int]] = []
    for target in targets:
        rolling = rollout.find(name.tag, target.configuration) if target.latest else None
        if rolling is not None and not rolling.done:
            shares += [(share.revision, share.percent) for share in rolling.revisions]
        else:
            shares.append((target.revision, target.percent))
    return TagSplit(name, tuple(shares))


def _status_traffic(traffic: Traffic, rollout: Rollout, urls: dict[str, str]) -> list[Obj]:
    """One entry per target, in order, with everything spelt out (B98, G26); one per revision for
    a target that is being rolled out."""
    entries = []
    for target in traffic.listed:
        rolling = rollout.find("", target.configuration) if target.latest else None
        if rolling is None or rolling.done:
            entries.append(_status_target(target, target.revision, target.percent, urls))
            continue
        left = target.percent
        for share in rolling.revisions[:-1]:
            percent = round(target.percent * share.percent / max(1, rolling.percent))
            left -= percent
            entries.append(_status_target(target, share.revision, percent, urls))
        entries.append(_status_target(target, rolling.revisions[-1].revision, left, urls))
    return entries


def _status_target(
    target: RevisionTarget, revision: str, percent: int, urls: dict[str, str]
) -> Obj:
    entry: Obj = {
        "revisionName": revision,
        "percent": percent,
        "latestRevision": target.latest,
    }
    if target.tag:
        entry |= {"tag": target.tag, "url": urls[target.tag]}
    return entry


def _of_placeholder(service: Obj) -> Iterable[Key]:
    name = labels_of(service).get(ROUTE_LABEL)
    return (Key(*ROUTE, service["metadata"]["namespace"], name),) if name else ()
