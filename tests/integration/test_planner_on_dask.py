"""The planner's jobs on a real Dask cluster of two workers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from controller.network import document
from controller.network.events import LinkStateChanged
from controller.network.topology import Topology
from controller.services.ledger import Ledger
from controller.services.planner import Planner, checked, executor
from controller.services.service import Service

SANDBOX = Path(document.__file__).parents[2] / "topologies" / "sandbox.yaml"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1", silence_logs=50
    ) as cluster:
        yield str(cluster.scheduler_address)


def service(kind: str, *ends: str) -> Service:
    return Service(id=f"{kind}-1", kind=kind, request=checked(kind, {"ends": ends}))


@pytest.mark.filterwarnings("default")
def test_the_same_plans_as_in_a_process_of_our_own(scheduler: str) -> None:
    network = document.load(SANDBOX)
    wanted = [service("key", "alice", "bob"), service("lightpath", "alice/q9", "bob/q9"), service("connectivity", "h1", "h4")]

    async def plans(planner: Planner, topology: Topology) -> list[object]:
        return list(await asyncio.gather(*(planner.plan(each, topology, Ledger(), 0.0) for each in wanted * 3)))

    async def compare(ours: Planner, theirs: Planner) -> None:
        assert await plans(theirs, network) == await plans(ours, network)
        network.apply(LinkStateChanged("ethernet:s2--s3", up=False))
        network.apply(LinkStateChanged("qkd:relay1--relay2", up=False))
        after = await plans(theirs, network)
        assert after == await plans(ours, network)
        assert [plan.route["nodes"] for plan in after[2::3]] == [["h1", "s1", "s3", "h4"]] * 3  # type: ignore[attr-defined]
        theirs.close()

    with executor("pool") as pool, executor(scheduler.replace("tcp://", "dask://")) as dask:
        asyncio.run(compare(Planner(pool), Planner(dask)))


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with (
        pytest.raises(ValueError, match=r"no Dask scheduler answers at dask://127\.0\.0\.1:1 .*dask scheduler"),
        executor("dask://127.0.0.1:1"),
    ):
        pass
