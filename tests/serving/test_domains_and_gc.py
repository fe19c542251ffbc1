"""DomainMappings with their claims, and the collection of old revisions."""

from base64 import b64encode

import pytest

from knlocal.gateway.tls import self_signed
from knlocal.resources.base import Obj
from knlocal.resources.status import NotFound
from knlocal.serving.kinds import CLUSTER_DOMAIN_CLAIM, DOMAIN_MAPPING, NO_GC, REVISION
from tests.serving.world import World, conditions, service


def mapping(domain: str, target: str = "hello", namespace: str = "default", **more: Obj) -> Obj:
    return {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": domain, "namespace": namespace},
        "spec": {
            "ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": target},
            **more,
        },
    }


def shown(world: World, domain: str, namespace: str = "default") -> Obj:
    return world.store.get(DOMAIN_MAPPING, namespace, domain)


async def test_a_custom_domain_leads_to_the_service_and_keeps_its_host(world: World) -> None:
    world.configure("config-network", autocreate_cluster_domain_claims="true")
    await world.apply(service())
    await world.apply(mapping("shop.example.com"))
    found = shown(world, "shop.example.com")
    assert conditions(found) == {
        "CertificateProvisioned": "True TLSNotEnabled",
        "DomainClaimed": "True",
        "IngressReady": "True",
        "Ready": "True",
        "ReferenceResolved": "True",
    }
    assert found["status"]["url"] == "http://shop.example.com"
    assert found["status"]["address"] == {"url": "http://shop.example.com"}
    answer = await world.get("http://shop.example.com")
    assert answer.status == 200
    (server,) = world.workloads.servers.values()
    assert server.requests[-1][1]["host"] == "shop.example.com"
    claim = world.store.get(CLUSTER_DOMAIN_CLAIM, "", "shop.example.com")
    assert claim["spec"]["namespace"] == "default"


async def test_a_mapping_with_tls_shows_https_and_its_own_certificate(world: World) -> None:
    world.configure("config-network", autocreate_cluster_domain_claims="true")
    await world.apply(service())
    await world.apply(mapping("shop.example.com", tls={"secretName": "cert"}))
    found = shown(world, "shop.example.com")
    assert found["status"]["url"] == "https://shop.example.com"
    assert conditions(found)["CertificateProvisioned"] == "True CertificateExternallyProvided"
    assert conditions(found)["IngressReady"] == "False CertificateUnusable"
    pair = self_signed("shop.example.com", world.clock)
    await world.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "cert", "namespace": "default"},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": b64encode(pair.certificate).decode(),
                "tls.key": b64encode(pair.key).decode(),
            },
        }
    )
    assert conditions(shown(world, "shop.example.com"))["Ready"] == "True"
    assert world.certificates.has("shop.example.com")
    world.store.delete(DOMAIN_MAPPING, "default", "shop.example.com")
    await world.settled()
    assert not world.certificates.has("shop.example.com")


async def test_plain_http_is_redirected_where_that_is_asked_for(world: World) -> None:
    world.configure(
        "config-network", autocreate_cluster_domain_claims="true", http_protocol="redirected"
    )
    await world.apply(service())
    await world.apply(mapping("shop.example.com", tls={"secretName": "cert"}))
    await world.apply(mapping("plain.example.com"))
    answer = await world.get("http://shop.example.com/a?b=c")
    assert (answer.status, answer.headers["Location"]) == (301, "https://shop.example.com/a?b=c")
    assert (await world.get("http://plain.example.com")).status == 200


async def test_without_a_claim_the_domain_is_not_mapped(world: World) -> None:
    world.configure("config-network", autocreate_cluster_domain_claims="false")
    await world.apply(service())
    await world.apply(mapping("shop.example.com"))
    assert conditions(shown(world, "shop.example.com"))["DomainClaimed"] == (
        "False DomainClaimFailed"
    )
    await world.apply(
        {
            "apiVersion": "networking.internal.knative.dev/v1alpha1",
            "kind": "ClusterDomainClaim",
            "metadata": {"name": "shop.example.com"},
            "spec": {"namespace": "default"},
        }
    )
    assert conditions(shown(world, "shop.example.com"))["Ready"] == "True"


async def test_the_first_holder_keeps_a_domain_until_it_lets_go(world: World) -> None:
    world.configure("config-network", autocreate_cluster_domain_claims="true")
    world.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    await world.apply(service())
    second_service = service()
    second_service["metadata"]["namespace"] = "other"
    await world.apply(second_service)
    await world.apply(mapping("shop.example.com"))
    await world.apply(mapping("shop.example.com", namespace="other"))
    assert conditions(shown(world, "shop.example.com", "other"))["DomainClaimed"] == (
        "False DomainAlreadyClaimed"
    )
    world.store.delete(DOMAIN_MAPPING, "default", "shop.example.com")
    await world.settled()
    assert conditions(shown(world, "shop.example.com", "other"))["Ready"] == "True"
    answer = await world.get("http://shop.example.com")
    assert answer.status == 200


async def test_a_reference_that_leads_nowhere_is_said_and_recovers(world: World) -> None:
    world.configure("config-network", autocreate_cluster_domain_claims="true")
    await world.apply(mapping("shop.example.com"))
    assert conditions(shown(world, "shop.example.com"))["ReferenceResolved"] == (
        "False ResolveFailed"
    )
    await world.apply(service())
    assert conditions(shown(world, "shop.example.com"))["Ready"] == "True"


# -- revisions that nobody uses -------------------------------------------------------------------


async def revisions(world: World, count: int, **more: Obj) -> None:
    for number in range(1, count + 1):
        await world.apply(service(image=f"demo:{number}", **more))
        await world.clock.advance(1)


def names(world: World) -> list[str]:
    return [r["metadata"]["name"] for r in world.store.list(REVISION)]


async def test_the_immediate_profile_deletes_what_was_superseded(world: World) -> None:
    await revisions(world, 3)
    assert len(names(world)) == 3
    world.configure(
        "config-gc",
        retain_since_create_time="disabled",
        retain_since_last_active_time="disabled",
        min_non_active_revisions="0",
        max_non_active_revisions="0",
    )
    await world.settled()
    assert names(world) == ["hello-00003"]
    await world.apply(service(image="demo:4"))
    assert names(world) == ["hello-00004"]
    with pytest.raises(NotFound):
        world.revision("hello-00003")


async def test_old_revisions_go_when_both_retention_times_are_over(world: World) -> None:
    world.configure("config-gc", min_non_active_revisions="1")
    await revisions(world, 4)
    await world.clock.advance(40 * 3600)
    assert len(names(world)) == 4
    await world.clock.advance(9 * 3600)
    # The least is kept, and it is the one that was in use last.
    assert names(world) == ["hello-00003", "hello-00004"]


async def test_preserved_revisions_are_kept(world: World) -> None:
    await revisions(world, 2)
    world.store.modify(
        REVISION, "default", "hello-00001",
        lambda r: r["metadata"]["annotations"].__setitem__(NO_GC, "true"),
    )  # fmt: skip
    world.configure("config-gc", min_non_active_revisions="0", max_non_active_revisions="0")
    await world.settled()
    assert names(world) == ["hello-00001", "hello-00002"]
