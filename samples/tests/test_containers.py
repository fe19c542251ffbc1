"""The same project in containers."""

import pytest

pytestmark = [
    pytest.mark.docker,
    pytest.mark.knlocal(folder="../..", runtime="docker"),
]


@pytest.fixture(autouse=True, scope="module")
def base_image():
    """What the samples are built from where no registry answers."""
    from tests.images.build import ensure

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNLOCAL_BASE_IMAGE", ensure("python")["python"])
        yield


def test_the_order_flow_in_containers(base_image, knlocal_module) -> None:
    knlocal = knlocal_module
    answer = knlocal.service("orders").post("/", json={"item": "tea", "amount": 12})
    assert answer.status == 202
    knlocal.events.expect(type="order.shipped", data={"item": "tea"}, within="30s")


def test_both_containers_of_the_sidecar_share_localhost(base_image, knlocal_module) -> None:
    assert knlocal_module.service("sidecar").get("/").status == 200
