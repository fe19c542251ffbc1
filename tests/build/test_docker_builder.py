"""Building with a real engine: images by content, and failures that name step and line."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from knlocal.build.api import BuildFailure, BuildRequest
from knlocal.build.docker import DockerBuilder
from tests.images.build import ensure

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def base() -> str:
    return ensure("python")["python"]


@pytest.fixture
async def builder() -> AsyncIterator[DockerBuilder]:
    made = DockerBuilder()
    yield made
    await made.close()


@pytest.fixture
def image() -> Iterator[str]:
    import docker
    from docker.errors import ImageNotFound

    name = f"dev.local/test/{uuid.uuid4().hex[:12]}:1"
    yield name
    client = docker.from_env()
    try:
        client.images.remove(name, force=True)
    except ImageNotFound:
        pass
    finally:
        client.close()


def request(folder: Path, image: str, text: str, **more: object) -> BuildRequest:
    return BuildRequest("orders", image, folder, (), text, **more)  # type: ignore[arg-type]


async def test_a_built_image_is_the_engines_and_has_what_the_context_had(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("print('hello')")
    (tmp_path / "secret.txt").write_text("secret")
    lines: list[str] = []
    text = f"FROM {base}\nCOPY . /app\nRUN test -f /app/main.py && ! test -e /app/secret.txt\n"
    asked = BuildRequest("orders", image, tmp_path, ("secret.txt",), text)
    made = await builder.build(asked, lines.append)
    assert await builder.image_id(image) == made
    assert any(line.startswith("Step 2/") for line in lines)


async def test_a_generated_dockerfile_leaves_nothing_of_itself_in_the_image(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("")
    text = f'FROM {base}\nWORKDIR /app\nCOPY . .\nRUN test "$(ls -A)" = main.py\n'
    await builder.build(request(tmp_path, image, text, generated=True), lambda _line: None)


async def test_a_failing_step_is_named_with_its_line_and_output(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path
) -> None:
    text = f"FROM {base}\n\nRUN echo first\nRUN echo the reason; exit 7\n"
    with pytest.raises(BuildFailure) as caught:
        await builder.build(request(tmp_path, image, text), lambda _line: None)
    said = str(caught.value)
    assert "Dockerfile:4: the command failed with exit code 7" in said
    assert "in step: RUN echo the reason; exit 7" in said
    assert "| the reason" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM {base}\nCOPPY . /app\n", "unknown instruction: COPPY"),
        ("FROM {base}\nCOPY nowhere.txt /\n", "nowhere.txt"),
        ("", "Dockerfile"),
    ],
)
async def test_a_broken_dockerfile_is_told(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(BuildFailure, match=said):
        await builder.build(request(tmp_path, image, text.format(base=base)), lambda _line: None)


async def test_a_build_that_became_obsolete_is_given_up(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    def follow(line: str) -> None:
        if "begun" in line:
            begun.set()

    text = f"FROM {base}\nRUN echo begun; sleep 1\nRUN sleep 300\n"
    building = asyncio.create_task(builder.build(request(tmp_path, image, text), follow))
    await asyncio.wait_for(begun.wait(), 60)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert await builder.image_id(image) is None


async def test_what_was_built_is_found_by_its_label_and_can_be_removed(
    builder: DockerBuilder, base: str, image: str, tmp_path: Path
) -> None:
    label = f"knlocal.test/{uuid.uuid4().hex[:8]}"
    text = f"FROM {base}\nLABEL x={image}\n"
    await builder.build(request(tmp_path, image, text, labels={label: "shop/x"}), print)
    assert [(one.name, one.label) for one in await builder.built(label)] == [(image, "shop/x")]
    assert await builder.remove(image)
    assert await builder.built(label) == []
    assert not await builder.remove(image)


async def test_a_base_image_that_cannot_be_had_is_told_with_what_to_try(
    builder: DockerBuilder, image: str, tmp_path: Path
) -> None:
    text = "FROM registry.invalid/no/such:1\n"
    with pytest.raises(BuildFailure, match=r"base image registry\.invalid/no/such:1") as caught:
        await builder.build(request(tmp_path, image, text, generated=True), print)
    assert "KNLOCAL_BASE_IMAGE" in str(caught.value)
