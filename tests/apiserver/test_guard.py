"""Who may call, and from where."""

from __future__ import annotations

import stat

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from knlocal.apiserver.certificates import issue, load_authority, server_context
from knlocal.apiserver.users import User
from knlocal.clock import VirtualClock
from tests.apiserver.conftest import Api, config_map

NAMESPACES = "/api/v1/namespaces"


@pytest.mark.parametrize("token", ["", "wrong", "a.b.c", "é"])
@pytest.mark.parametrize("path", [NAMESPACES, "/version", "/openapi/v3", "/nowhere"])
async def test_nothing_answers_without_the_token(api: Api, token: str, path: str) -> None:
    status, answer, response = await api.call("GET", path, token=token)
    assert status == 401
    assert (answer["kind"], answer["reason"]) == ("Status", "Unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Host": "localhost:1"}, True),
        ({"Host": "knlocal.localhost"}, True),
        ({"Host": "127.0.0.1:6443"}, True),
        ({"Host": "[::1]:6443"}, True),
        ({"Host": "kubernetes.default.svc"}, True),
        ({"Host": "evil.example.com"}, False),
        ({"Host": "localhost.evil.example.com"}, False),
        ({"Host": "localhost", "Origin": "http://localhost"}, True),
        ({"Host": "localhost", "Origin": "http://localhost:3000"}, False),
        ({"Host": "localhost", "Origin": "https://evil.example.com"}, False),
        ({"Host": "localhost", "Origin": "null"}, False),
    ],
)
async def test_a_foreign_host_or_origin_is_refused(
    api: Api, headers: dict[str, str], allowed: bool
) -> None:
    status, answer, _ = await api.call("GET", NAMESPACES, headers=headers)
    assert status == (200 if allowed else 403)
    if not allowed:
        assert answer["reason"] == "Forbidden"


async def test_files_with_secrets_are_private(api: Api) -> None:
    for name in ("kubeconfig", "api/ca.key", "api/token", "api/server.key"):
        mode = stat.S_IMODE((api.home / name).stat().st_mode)
        assert mode == 0o600, name


async def test_a_client_certificate_of_our_ca_is_a_credential(api: Api) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = api.store.clock.now()
    certificate = issue(
        api.server.authority, key, "alice", ["system:masters"], [], now, server=False
    )
    pem = api.home / "client.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    import ssl

    trust = ssl.create_default_context(cadata=api.server.authority.pem.decode())
    trust.load_cert_chain(pem)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session,
        session.post(
            f"{api.server.url}/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}
        ) as response,
    ):
        answer = await response.json()
    assert answer["status"]["userInfo"]["username"] == "alice"


async def test_the_plain_listener_needs_no_token_and_stays_on_loopback(api: Api) -> None:
    host, port = await api.server.start_plain("127.0.0.1", 0)
    async with api.session.get(f"http://{host}:{port}{NAMESPACES}") as response:
        assert response.status == 200
    async with api.session.get(
        f"http://{host}:{port}{NAMESPACES}", headers={"Host": "evil.example.com"}
    ) as response:
        assert response.status == 403
    with pytest.raises(ValueError, match="loopback"):
        await api.server.start_plain("0.0.0.0", 0)


async def test_impersonation_decides_who_creates(api: Api) -> None:
    path = "/apis/serving.knative.dev/v1/namespaces/default/services"
    body = {
        "metadata": {"name": "hello"},
        "spec": {"template": {"spec": {"containers": [{"image": "example.com/app:1"}]}}},
    }
    headers = {"Impersonate-User": "alice", "Impersonate-Group": "dev"}
    status, answer, _ = await api.call("POST", path, body, headers=headers)
    assert (status, answer["reason"]) == (403, "Forbidden")
    binding = {
        "metadata": {"name": "dev"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}],
    }  # fmt: skip
    await api.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    status, answer, _ = await api.call("POST", path, body, headers=headers)
    assert status == 201, answer
    assert answer["metadata"]["annotations"]["serving.knative.dev/creator"] == "alice"


async def test_a_service_account_token_has_the_rights_that_rbac_gives(api: Api) -> None:
    api.store.create(
        {"apiVersion": "v1", "kind": "ServiceAccount",
         "metadata": {"name": "bot", "namespace": "default"}}
    )  # fmt: skip
    api.store.create(config_map())
    path = "/api/v1/namespaces/default/configmaps"
    token = (await api.kubectl("create", "token", "bot")).strip()
    status, answer, _ = await api.call("GET", path, token=token)
    assert status == 403
    assert answer["message"] == (
        'configmaps is forbidden: User "system:serviceaccount:default:bot" cannot list resource '
        '"configmaps" in API group "" in the namespace "default"'
    )
    await api.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    await api.kubectl(
        "create", "rolebinding", "bot", "--role=reader", "--serviceaccount=default:bot"
    )
    assert (await api.call("GET", path, token=token))[0] == 200
    assert (await api.call("GET", f"{path}/one", token=token))[0] == 200
    assert (await api.call("DELETE", f"{path}/one", token=token))[0] == 403
    assert (await api.call("GET", "/apis", token=token))[0] == 200
    await api.kubectl("delete", "serviceaccount", "bot")
    assert (await api.call("GET", path, token=token))[0] == 401


async def test_doors_of_our_own_stand_behind_the_same_guard(api: Api) -> None:
    async def door(request: web.BaseRequest, user: User) -> web.StreamResponse:
        return web.json_response({"path": request.path, "user": user.name})

    api.server.mount("/knlocal/v1/", door)
    status, answer, _ = await api.call("GET", "/knlocal/v1/status")
    assert (status, answer) == (200, {"path": "/knlocal/v1/status", "user": "kubernetes-admin"})
    assert (await api.call("GET", "/knlocal/v1/status", token=""))[0] == 401
    evil = {"Host": "evil.example.com"}
    assert (await api.call("GET", "/knlocal/v1/status", headers=evil))[0] == 403


async def test_a_door_that_breaks_is_an_internal_error_without_a_traceback(api: Api) -> None:
    async def door(request: web.BaseRequest, user: User) -> web.StreamResponse:
        raise ZeroDivisionError("secret detail")

    api.server.mount("/knlocal/v1/", door)
    status, answer, _ = await api.call("GET", "/knlocal/v1/status")
    assert (status, answer["reason"]) == (500, "InternalError")
    assert "secret" not in answer["message"]


async def test_long_requests_are_read(api: Api) -> None:
    selector = ",".join(f"a{number}!=b" for number in range(5000))
    status, _, _ = await api.call("GET", f"{NAMESPACES}?labelSelector={selector}")
    assert status == 200


def test_the_ca_is_kept_and_the_server_certificate_renewed(tmp_path) -> None:
    clock = VirtualClock()
    first = load_authority(tmp_path, clock)
    assert load_authority(tmp_path, clock).pem == first.pem
    server_context(tmp_path, first, clock)
    served = (tmp_path / "server.crt").read_bytes()
    server_context(tmp_path, first, clock)
    assert (tmp_path / "server.crt").read_bytes() == served
    server_context(tmp_path, first, clock, ["172.17.0.1"])
    with_address = (tmp_path / "server.crt").read_bytes()
    assert with_address != served
    clock._elapsed += 350 * 86400
    server_context(tmp_path, first, clock, ["172.17.0.1"])
    assert (tmp_path / "server.crt").read_bytes() != with_address
    (tmp_path / "ca.crt").write_text("broken")
    assert load_authority(tmp_path, clock).pem != first.pem
