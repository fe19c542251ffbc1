"""What a container finds: environment, ports, files, devices, cgroups, users.

After Knative's test/conformance/runtime.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, Cluster, name, service

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def told(cluster: Cluster, hello: dict[str, Any]) -> Any:
    return cluster.info(hello)


def files(cluster: Cluster, url: str, *paths: str) -> Any:
    return cluster.call(
        url, "/files?" + urllib.parse.urlencode([("path", p) for p in paths])
    ).json()


def test_the_environment_names_service_configuration_and_revision(
    hello: dict[str, Any], told: Any
) -> None:
    called = hello["metadata"]["name"]
    assert told["env"]["K_SERVICE"] == called
    assert told["env"]["K_CONFIGURATION"] == called
    assert told["env"]["K_REVISION"] == hello["status"]["latestReadyRevisionName"]
    assert told["env"]["PORT"] == "8080"


def test_the_host_name_is_the_pods(cluster: Cluster, hello: dict[str, Any], told: Any) -> None:
    (pod,) = cluster.pods(hello["metadata"]["name"])
    assert told["hostname"] == told["env"]["HOSTNAME"] == pod["metadata"]["name"]


def test_standard_input_is_at_its_end(told: Any) -> None:
    assert told["stdin"] == ""


def test_devices_and_descriptors_are_as_the_contract_lists_them(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    links = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
             "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"}  # fmt: skip
    plain = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
    other = ("/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/ptmx")
    found = files(cluster, hello["status"]["url"], *links, *plain, *other, "/tmp", "/dev/console")
    assert {path: found[path].get("link") for path in links} == links
    assert {path: found[path].get("kind") for path in plain} == dict.fromkeys(plain, "c")
    assert [path for path in other if "error" in found[path]] == []
    for path in ("/dev/null", "/dev/full", "/dev/zero"):
        assert (found[path]["read"], found[path]["write"]) == ("ok", "ok"), path
    for path in ("/proc/self/fd/1", "/proc/self/fd/2"):
        assert found[path]["write"] == "ok", path
    assert found["/proc/self/fd/0"]["read"] == "ok"
    assert found["/tmp"]["mode"][:10] == "drwxrwxrwt"
    assert found["/tmp"]["write"] == "ok"
    assert found["/dev/console"] == {"error": "No such file or directory"}


def test_names_are_resolved_by_a_file_of_the_platform(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    paths = ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname")
    found = files(cluster, hello["status"]["url"], *paths)
    assert [path for path in paths if found[path].get("read") != "ok"] == []
    mode = found["/etc/resolv.conf"]["mode"]
    assert mode[1:3] == "rw"
    assert mode[4] == mode[7] == "r"


def test_the_mount_table_can_be_parsed(told: Any) -> None:
    assert [line for line in told["mounts"] if len(line.split()) < 6] == []


def test_kernel_settings_can_be_read_but_not_written(told: Any) -> None:
    (mount,) = [line.split() for line in told["mounts"] if line.split()[1] == "/proc/sys"]
    assert (mount[0], mount[2]) == ("proc", "proc")
    assert "ro" in mount[3].split(",")


def test_limits_show_in_cgroups_that_cannot_be_written(cluster: Cluster) -> None:
    limits = {"limits": {"cpu": "1", "memory": "128Mi"}, "requests": {"cpu": "50m"}}
    limited = cluster.ready_service(service(name("cgroup"), container={"resources": limits}))
    url, told = limited["status"]["url"], cluster.info(limited)
    kinds = {
        line.split()[2] for line in told["mounts"] if line.split()[1].startswith("/sys/fs/cgr")
    }
    assert kinds & {"cgroup", "cgroup2"}
    if "cgroup" in kinds:
        memory, *cpu = (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "/sys/fs/cgroup/cpu/cpu.shares",
        )  # fmt: skip
        found = files(cluster, url, memory, *cpu)
        assert int(found[cpu[0]]["text"]) / int(found[cpu[1]]["text"]) == 1.0
        assert int(found[cpu[2]]["text"]) == 51
    else:
        memory, *cpu = (f"/sys/fs/cgroup/{x}" for x in ("memory.max", "cpu.max", "cpu.weight"))
        found = files(cluster, url, memory, *cpu)
        quota, period = found[cpu[0]]["text"].split()
        assert int(quota) / int(period) == 1.0
        assert int(found[cpu[1]]["text"]) >= 1
    assert int(found[memory]["text"]) == 128 << 20
    assert [path for path, about in found.items() if about["write"] == "ok"] == []


def test_a_container_that_needs_too_much_memory_is_ended(cluster: Cluster) -> None:
    limits = {"limits": {"memory": "100Mi"}}
    limited = cluster.ready_service(service(name("memory"), container={"resources": limits}))
    assert cluster.call(limited["status"]["url"], "/bloat?mb=20").status == 200
    assert cluster.call(limited["status"]["url"], "/bloat?mb=300").status != 200
    cluster.until(lambda: cluster.call(limited["status"]["url"]).status == 200)


def test_the_image_decides_on_the_user_and_no_privileges_are_added(told: Any) -> None:
    assert (told["uid"], told["euid"]) == (65532, 65532)
    effective = next(line for line in told["capabilities"] if line.startswith("CapEff"))
    assert int(effective.split()[1], 16) == 0


def test_user_folder_command_and_arguments_are_as_asked(cluster: Cluster) -> None:
    made = cluster.ready_service(
        service(
            name("argv"),
            container={
                "command": ["python3", "-u", "/server.py"], "args": ["abra", "$(WHO)", "do"],
                "workingDir": "/tmp", "securityContext": {"runAsUser": 2020},
                "ports": [{"containerPort": 8801}], "env": [{"name": "WHO", "value": "cadabra"}],
            },
        )
    )  # fmt: skip
    told = cluster.info(made)
    assert told["args"] == ["abra", "cadabra", "do"]
    assert (told["uid"], told["euid"], told["cwd"]) == (2020, 2020, "/tmp")
    assert told["env"]["PORT"] == "8801"


def test_a_user_that_may_not_be_root_is_not_root(cluster: Cluster) -> None:
    called = name("rootless")
    context = {"runAsNonRoot": True, "runAsUser": 0}
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services"
    cluster.create_service(service(called, container={"securityContext": context}))

    def refused() -> bool:
        states = [
            s for pod in cluster.pods(called) for s in pod["status"].get("containerStatuses", [])
        ]
        reasons = [s["state"].get("waiting", {}).get("reason") for s in states]
        return "CreateContainerConfigError" in reasons

    cluster.until(refused, lambda: cluster.pods(called))
    cluster.must("DELETE", f"{path}/{called}")


def test_a_read_only_file_system_is_possible(cluster: Cluster) -> None:
    made = cluster.ready_service(
        service(name("readonly"), container={"securityContext": {"readOnlyRootFilesystem": True}})
    )
    found = files(cluster, made["status"]["url"], "/", "/etc", "/dev/null")
    assert found["/etc"]["write"] != "ok"
    assert found["/dev/null"]["write"] == "ok"


def test_the_container_does_not_run_with_more_rights_than_asked(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    body = service(name("privileged"), container={"securityContext": {"privileged": True}})
    said = cluster.refused(
        "POST", f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services", body
    )
    assert (
        "must not set the field(s): spec.template.spec.containers[0].securityContext.privileged"
        in said
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostNetwork", True), ("hostPID", True), ("hostIPC", True), ("nodeName", "x"),
        ("restartPolicy", "Never"), ("terminationGracePeriodSeconds", 5),
    ],
)  # fmt: skip
def test_what_only_the_operator_sets_is_refused(cluster: Cluster, field: str, value: Any) -> None:
    body = service(name("operator"), spec={field: value})
    said = cluster.refused(
        "POST", f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services", body
    )
    assert f"must not set the field(s): spec.template.spec.{field}" in said
