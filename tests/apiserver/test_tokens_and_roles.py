"""Service-account tokens that others can verify, and the roles of a cluster with Knative."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from knlocal.apiserver.rbac import Authorizer
from knlocal.apiserver.tokens import Tokens, decode_base64url
from knlocal.apiserver.users import service_account_user
from knlocal.control.rbac import CLUSTER_ROLE, Attributes
from knlocal.resources.base import GroupKind
from tests.apiserver.conftest import Api, eventually, needs_kubectl

ACCOUNT = GroupKind("", "ServiceAccount")


async def account(api: Api) -> dict:
    return await eventually(api.store, lambda: api.store.find(ACCOUNT, "default", "default"))


async def test_a_token_is_verified_with_the_published_key(api: Api) -> None:
    token, _ = api.server.tokens.issue(await account(api), ["me"])
    _, discovery, _ = await api.call("GET", "/.well-known/openid-configuration")
    assert discovery["jwks_uri"].endswith("/openid/v1/jwks")
    _, keys, _ = await api.call("GET", "/openid/v1/jwks")
    header, claims, signature = token.split(".")
    [key] = keys["keys"]
    assert json.loads(decode_base64url(header))["kid"] == key["kid"]
    x, y = (int.from_bytes(decode_base64url(key[name])) for name in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = decode_base64url(signature)
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    public.verify(
        encode_dss_signature(r, s), f"{header}.{claims}".encode(), ec.ECDSA(hashes.SHA256())
    )
    said = json.loads(decode_base64url(claims))
    assert (said["sub"], said["aud"]) == ("system:serviceaccount:default:default", ["me"])


async def test_tokens_survive_a_restart_and_end_in_time(api: Api) -> None:
    store, clock = api.store, api.store.clock
    token, _ = api.server.tokens.issue(await account(api))
    again = Tokens(api.home / "api", store, clock)
    assert again.admin == api.server.tokens.admin
    known = again.user(token)
    assert known is not None
    assert known.name == "system:serviceaccount:default:default"
    ended, _ = again.issue(await account(api), seconds=-1)
    assert again.user(ended) is None
    for wrong in (token[:-4] + "AAAA", token.replace(".", "", 1), "x.y.z", "", "a.b." + "A" * 86):
        assert again.user(wrong) is None


@needs_kubectl
@pytest.mark.parametrize(
    ("role", "verb", "resource", "allowed"),
    [
        ("view", "list", "pods", True),
        ("view", "get", "services.serving.knative.dev", True),
        ("view", "create", "services.serving.knative.dev", False),
        ("view", "get", "secrets", False),
        ("edit", "create", "services.serving.knative.dev", True),
        ("edit", "create", "rolebindings.rbac.authorization.k8s.io", False),
        ("admin", "create", "rolebindings.rbac.authorization.k8s.io", True),
        ("addressable-resolver", "watch", "brokers.eventing.knative.dev", True),
        ("addressable-resolver", "get", "channels.messaging.knative.dev", True),
        ("channelable-manipulator", "create", "inmemorychannels.messaging.knative.dev", True),
        ("channelable-manipulator", "delete", "inmemorychannels.messaging.knative.dev", True),
        ("source-observer", "list", "pingsources.sources.knative.dev", True),
        ("source-observer", "delete", "pingsources.sources.knative.dev", False),
        ("cluster-admin", "delete", "nodes", True),
    ],
)
async def test_the_usual_roles_grant_what_they_do_elsewhere(
    api: Api, role: str, verb: str, resource: str, allowed: bool
) -> None:
    await api.kubectl(
        "create", "clusterrolebinding", "b", f"--clusterrole={role}",
        "--serviceaccount=default:bot",
    )  # fmt: skip
    plural, _, group = resource.partition(".")
    wanted = Attributes(verb, group, plural, namespace="default")
    user = service_account_user("default", "bot")
    assert Authorizer(api.store).allowed(user, wanted) == allowed


@needs_kubectl
async def test_the_eventing_controller_may_be_acted_as_on_channels(api: Api) -> None:
    await api.apply(
        {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel",
         "metadata": {"name": "c"}}
    )  # fmt: skip
    await eventually(
        api.store, lambda: api.store.get(CLUSTER_ROLE, "", "channelable-manipulator").get("rules")
    )
    patch = '{"spec": {"subscribers": [{"uid": "u", "subscriberUri": "http://example.com"}]}}'
    change = ("patch", "imc", "c", "--type=merge", "-p", patch)
    await api.kubectl(*change, "--as=system:serviceaccount:knative-eventing:eventing-controller")
    found = api.store.get(GroupKind("messaging.knative.dev", "InMemoryChannel"), "default", "c")
    assert found["spec"]["subscribers"][0]["uid"] == "u"


async def test_aggregated_roles_fill_up_by_themselves(api: Api) -> None:
    await eventually(
        api.store, lambda: api.store.get(CLUSTER_ROLE, "", "source-observer").get("rules")
    )
    api.store.create({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "foos-observer", "labels": {"duck.knative.dev/source": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["foos"], "verbs": ["get"]}],
    })  # fmt: skip

    def filled() -> bool:
        rules = api.store.get(CLUSTER_ROLE, "", "source-observer").get("rules") or []
        return any("foos" in rule["resources"] for rule in rules)

    await eventually(api.store, filled)
