"""From saving a file to the first answer of the new code, against the same loop by hand.

By hand: `docker build` (with a warm cache), `docker rm -f`, `docker run`, ask until it answers.
A person reads the answer before the next save: each loop begins on a machine that has come to rest,
so that what knlocal does between two saves falls on neither loop.
`python -m benchmarks.inner_loop [times]`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import uuid
from pathlib import Path

import psutil

from benchmarks._measure import Row, now, report
from benchmarks._product import Failed, Product, ask, product
from tests.images import build

TITLE = "The inner loop"
NEEDS = ("docker",)
SAVES, PER_SECOND = 50, 20
#: Seconds between two loops, and CPU seconds per second below which the machine is at rest.
PAUSE, REST = 1.0, 0.3
TARGETS = {"docker": 0.35, "process": 0.2}
PROGRAM = (Path(__file__).parent.parent / "tests" / "images" / "server.py").read_text()


def run(times: int = 20) -> list[Row]:
    base = build.ensure("python")["python"]
    return asyncio.run(measure(base, times))


async def measure(base: str, times: int) -> list[Row]:
    ours: dict[str, list[float]] = {runtime: [] for runtime in TARGETS}
    theirs: dict[str, list[float]] = {runtime: [] for runtime in TARGETS}
    rows = []
    for runtime, took in ours.items():
        with product(tables(runtime), up=False) as it:
            save(it.folder, 0)
            it.up()
            await shows(it, 0)
            hand = ByHand(it.folder, base)
            try:
                for number in range(1, times + 2):
                    await at_rest()
                    took.append(await by_knlocal(it, number))
                    await at_rest()
                    theirs[runtime].append(await hand.loop(number))
            finally:
                await hand.close()
            rows += await under_load(it, runtime, times + 2)
    return [
        *(
            Row(
                f"save to the first answer of new code, {runtime}, against `docker` by hand",
                statistics.median(took[1:]) * 1000,
                statistics.median(theirs[runtime][1:]) * 1000,
                at_most=TARGETS[runtime],
            )
            for runtime, took in ours.items()
        ),
        *rows,
    ]  # fmt: skip


def tables(runtime: str) -> str:
    return f'# runtime: {runtime}\n[services.app]\nsource = "app"\nscale = {{ min = 1 }}\n'


def save(folder: Path, number: int) -> None:
    """The program with another greeting, written as editors do: beside it, then renamed."""
    (folder / "app").mkdir(exist_ok=True)
    draft = folder / "app" / ".main.py.swp"
    draft.write_text(PROGRAM.replace("Hello", f"save-{number}"))
    draft.replace(folder / "app" / "main.py")


async def by_knlocal(it: Product, number: int) -> float:
    began = now()
    save(it.folder, number)
    await shows(it, number)
    return now() - began


async def shows(it: Product, number: int, deadline: float = 60.0) -> None:
    """Ask until the answer is of that save. No answer may fail meanwhile."""
    wanted = f"save-{number} ".encode()
    async with asyncio.timeout(deadline):
        while wanted not in await ask(it.port, it.host("app")):  # noqa: ASYNC110 (it is asked)
            await asyncio.sleep(0.002)


class ByHand:
    """What a person would type."""

    def __init__(self, folder: Path, base: str) -> None:
        self._context = folder / "app"
        self._name = f"knlocal-bench-{uuid.uuid4().hex[:8]}"
        self._dockerfile = folder / "Dockerfile"
        self._dockerfile.write_text(
            f'FROM {base}\nWORKDIR /app\nCOPY . .\nCMD ["python3", "main.py"]\n'
        )

    async def loop(self, number: int) -> float:
        began = now()
        file = str(self._dockerfile)
        await docker("build", "-q", "-t", self._name, "-f", file, str(self._context))
        await docker("rm", "-f", self._name, check=False)
        await docker("run", "-d", "--name", self._name, self._name)
        form = "{{.NetworkSettings.IPAddress}}"
        address = await docker("inspect", "-f", form, self._name)
        while True:
            try:
                answer = await ask(8080, "app", address=address.strip())
            except OSError:
                await asyncio.sleep(0.002)
                continue
            if f"save-{number} ".encode() not in answer:
                raise Failed(f"by hand: an old answer {answer!r}")
            return now() - began

    async def close(self) -> None:
        await docker("rm", "-f", self._name, check=False)
        await docker("rmi", "-f", self._name, check=False)


async def docker(*words: str, check: bool = True) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    if check and process.returncode:
        raise Failed(f"docker {' '.join(words)}: {error.decode()[-500:]}")
    return out.decode()


async def under_load(it: Product, runtime: str, first: int) -> list[Row]:
    """Fifty saves in a row, each while requests come; then nothing of the old code may be left."""
    failed = asked = 0
    over = asyncio.Event()

    async def one() -> None:
        nonlocal failed, asked
        asked += 1
        try:
            await ask(it.port, it.host("app"))
        except (OSError, TimeoutError, Failed) as error:
            failed += 1
            print(f"failed: {error!r}", file=sys.stderr)

    async def steadily() -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(one())
                await asyncio.sleep(1 / PER_SECOND)

    requests = asyncio.create_task(steadily())
    for number in range(first, first + SAVES):
        await by_knlocal(it, number)
    over.set()
    await requests
    what = f"{SAVES} saves in a row at {PER_SECOND} requests/s, {runtime}"
    rows = [Row(f"{what}: answered", asked - failed, asked, "", at_least=1.0)]
    if runtime == "docker":
        left = await left_over(it)
        rows.append(Row(f"{what}: containers left", left, 1, "", at_most=1.0))
    return rows


async def left_over(it: Product, deadline: float = 90.0) -> int:
    """How many containers the service has, once those of old code had time to go. Beside the one
    that serves there may be the one that is held for the next save, and those that knlocal keeps
    ready for revisions at zero (they have never run)."""
    end = now() + deadline
    while True:
        found = [c for c in it.containers("app") if c["state"] in ("running", "paused")]
        held = [c for c in found if c["held"] and c["pod"] not in await asyncio.to_thread(pods, it)]
        left = len(found) - min(len(held), 1)
        if left <= 1 or now() > end:
            return left
        await asyncio.sleep(0.5)


def pods(it: Product) -> set[str]:
    found = json.loads(it.run("get", "pods", "-o", "json"))
    return {one["metadata"]["name"] for one in found["items"]}


async def at_rest(deadline: float = 10.0) -> None:
    """Return when nothing much runs on this machine any more (or others keep it busy)."""
    end = now() + deadline
    psutil.cpu_percent()
    await asyncio.sleep(PAUSE)
    cores = psutil.cpu_count() or 1
    while psutil.cpu_percent() / 100 * cores > REST and now() < end:  # noqa: ASYNC110 (no event)
        await asyncio.sleep(PAUSE / 4)


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(TITLE, run(times)))
