"""config-features of serving (knative.dev/serving/pkg/apis/config/features.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knlocal.resources.settings.parsing import as_choice, read, setting

ENABLED = "Enabled"
ALLOWED = "Allowed"
DISABLED = "Disabled"
ALLOW_ROOT_BOUNDED = "AllowRootBounded"

# Unknown words leave a flag as it is, as in Knative.
_flag = as_choice(ENABLED, ALLOWED, DISABLED, lenient=True)
_secure_flag = as_choice(DISABLED, ALLOW_ROOT_BOUNDED, ENABLED, lenient=True)


def _feature(key: str, doc: str, default: str = DISABLED, parse: Any = _flag) -> Any:
    return setting(key, default, doc, parse=parse, shown=default.lower())


def _pod(name: str, doc: str, default: str = DISABLED) -> Any:
    return _feature(f"kubernetes.podspec-{name}", doc, default)


@dataclass(frozen=True, slots=True)
class Features:
    """Each flag is ENABLED, ALLOWED or DISABLED."""

    multi_container: str = _feature("multi-container", "Several containers per pod.", ENABLED)
    multi_container_probing: str = _feature("multi-container-probing", "Probes on side-cars.")
    pod_spec_affinity: str = _pod("affinity", "spec.affinity.")
    pod_spec_topology_spread_constraints: str = _pod(
        "topologyspreadconstraints", "spec.topologySpreadConstraints."
    )
    pod_spec_field_ref: str = _pod("fieldref", "fieldRef and resourceFieldRef in env.")
    pod_spec_host_aliases: str = _pod("hostaliases", "spec.hostAliases.")
    pod_spec_node_selector: str = _pod("nodeselector", "spec.nodeSelector.")
    pod_spec_runtime_class_name: str = _pod("runtimeclassname", "spec.runtimeClassName.")
    pod_spec_security_context: str = _pod("securitycontext", "spec.securityContext.")
    pod_spec_share_process_namespace: str = _pod(
        "shareprocessnamespace", "spec.shareProcessNamespace."
    )
    pod_spec_host_ipc: str = _pod("hostipc", "spec.hostIPC.")
    pod_spec_host_pid: str = _pod("hostpid", "spec.hostPID.")
    pod_spec_host_network: str = _pod("hostnetwork", "spec.hostNetwork.")
    pod_spec_priority_class_name: str = _pod("priorityclassname", "spec.priorityClassName.")
    pod_spec_scheduler_name: str = _pod("schedulername", "spec.schedulerName.")
    container_spec_add_capabilities: str = _feature(
        "kubernetes.containerspec-addcapabilities", "securityContext.capabilities.add."
    )
    pod_spec_tolerations: str = _pod("tolerations", "spec.tolerations.")
    pod_spec_volumes_empty_dir: str = _pod("volumes-emptydir", "emptyDir volumes.", ENABLED)
    pod_spec_volumes_host_path: str = _pod("volumes-hostpath", "hostPath volumes.")
    pod_spec_volumes_mount_propagation: str = _pod(
        "volumes-mount-propagation", "mountPropagation of volume mounts."
    )
    pod_spec_volumes_csi: str = _pod("volumes-csi", "csi volumes.")
    pod_spec_volumes_image: str = _pod("volumes-image", "image volumes.")
    pod_spec_volumes_ephemeral: str = _pod("volumes-ephemeral", "ephemeral volumes.")
    pod_spec_init_containers: str = _pod("init-containers", "spec.initContainers.")
    pod_spec_persistent_volume_claim: str = _pod(
        "persistent-volume-claim", "persistentVolumeClaim volumes."
    )
    pod_spec_persistent_volume_write: str = _pod(
        "persistent-volume-write", "Writable persistentVolumeClaim volumes."
    )
    pod_spec_dns_policy: str = _pod("dnspolicy", "spec.dnsPolicy.")
    pod_spec_dns_config: str = _pod("dnsconfig", "spec.dnsConfig.")
    queue_proxy_mount_pod_info: str = _feature(
        "queueproxy.mount-podinfo", "Pod information mounted into queue-proxy."
    )
    queue_proxy_resource_defaults: str = _feature(
        "queueproxy.resource-defaults", "Default resources of queue-proxy."
    )
    secure_pod_defaults: str = _feature(
        "secure-pod-defaults",
        'Secure defaults for securityContext: "enabled", "AllowRootBounded" or "disabled".',
        parse=_secure_flag,
    )
    tag_header_based_routing: str = _feature(
        "tag-header-based-routing", "Choice of a tag by the Knative-Serving-Tag header."
    )
    auto_detect_http2: str = _feature("autodetect-http2", "HTTP/2 found out by probing.")

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Features:
        return read(cls, data)
