"""What jobs ask a cluster for, and the repairs of the executor plugin."""

import asyncio
import inspect
import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from conftest import ROOT, told
from geomem import slurm
from geomem.config import REQUESTED, Cluster, Resources, launcher, load_cluster, load_config

GPU = Resources(partition="gpu", threads=8, mem_mb=1000, runtime=30, gpu=2, grace=60)


def test_memory_and_time_grow_with_every_attempt_up_to_what_the_cluster_grants() -> None:
    cluster = Cluster(max_mem_mb=2500, max_runtime=20)
    asked = [cluster.request(GPU, attempt=attempt) for attempt in (1, 2, 3)]
    assert [job["mem_mb"] for job in asked] == [1000, 2000, 2500]
    assert [job["runtime"] for job in asked] == [30, 30, 30]  # never less than configured
    slower = GPU.model_copy(update={"growth": 0.5})
    assert Cluster().request(slower, attempt=3)["runtime"] == 60


def test_the_example_of_a_users_file_reaches_every_job(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    example = (ROOT / "config/cluster.local.example.yaml").read_text()
    (tmp_path / "config/cluster.local.yaml").write_text(example)
    asked = load_cluster(tmp_path).request(GPU)
    written = yaml.safe_load(example)
    assert asked["slurm_account"] == written["account"]
    assert (asked["qos"], asked["constraint"]) == (written["qos"], written["constraint"])
    assert (asked["slurm_partition"], asked["gres"]) == ("accelerated", "gpu:h100:2")
    assert asked["slurm_extra"] == " ".join(["--signal=TERM@60", *written["sbatch"]])
    assert set(written) == set(Cluster.model_fields)
    assert set(asked) <= set(REQUESTED)


def test_a_fault_in_the_users_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/cluster.local.yaml").write_text("acct: lab\n")
    told(lambda: load_cluster(tmp_path), "config/cluster.local.yaml", "acct", "not permitted")
    named = Cluster(partitions={"gpu": "a100"})
    told(lambda: named.on({"batch"}), "partitions.gpu = 'a100'", "expected one of ['batch']")


def test_a_partition_that_does_not_exist_is_left_to_slurm() -> None:
    assert Cluster().on({"gpu"}).request(GPU)["slurm_partition"] == "gpu"
    assert "slurm_partition" not in Cluster().on({"batch"}).request(GPU)
    assert Cluster().on(set()).request(GPU)["slurm_partition"] == "gpu"
    named = Cluster(partitions={"gpu": "a100"}).on({"a100"})
    assert named.request(GPU)["slurm_partition"] == "a100"


def test_every_job_of_every_scale_states_all_it_asks_for() -> None:
    for scale in ("smoke", "tiny", "small", "single", "paper"):
        content = yaml.safe_load((ROOT / f"config/scales/{scale}.yaml").read_text())
        for stage, stated in content["resources"].items():
            assert {"partition", "threads", "mem_mb", "runtime"} <= stated.keys(), (scale, stage)
            assert (stated["partition"] == "gpu") == ("gpu" in stated)
        training = load_config(ROOT, scale=scale).settings.resources["training"]
        assert 0 < training.grace < 60 * training.runtime


def test_one_process_needs_no_launcher_and_several_get_one_torchrun_a_node() -> None:
    assert launcher(Resources()) == ""
    one_node = launcher(Resources(processes=4))
    assert one_node == "torchrun --nproc-per-node 4 --standalone --no-python "
    several = launcher(Resources(processes=4, nodes=2, threads=6))
    for words in ("srun --nodes 2 --ntasks 2", "--nnodes 2", "--cpus-per-task 6"):
        assert words in several
    # as a shell reads it: the command is handed on word by word
    fake = several.replace("srun ", "fake ").replace("exec torchrun", "exec printf %s,")
    shell = 'fake() { while [ "$1" != bash ]; do shift; done; "$@"; }; ' + fake + "train 'a b'"
    run = subprocess.run(
        ["bash", "-c", shell],
        env={"SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "SLURM_JOB_ID": "12345"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--node-rank,1,--master-addr,10.0.0.1,--master-port,22345" in run.stdout
    assert run.stdout.endswith("--no-python,train,a b,")
    asked = Cluster().request(Resources(nodes=2, gpu=1))
    assert (asked["mpi"], asked["nodes"], asked["tasks"]) == ("srun", 2, 2)


class Waiting:
    """Has the members of the plugin's executor that are repaired."""

    wait = 180.0
    settings = SimpleNamespace(init_seconds_before_status_checks=5)
    workflow = SimpleNamespace(executor_settings=settings)

    @property
    def next_seconds_between_status_checks(self) -> float:
        return self.wait

    @next_seconds_between_status_checks.setter
    def next_seconds_between_status_checks(self, seconds: float) -> None:
        self.wait = seconds

    def get_status_command(self) -> str:
        return "sacct"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A plugin whose Slurm does not answer the first six questions."""
    asked: list[str] = []

    async def query(command: str, logger: Any) -> tuple[Any, Any]:
        asked.append(command)
        return ({"7": "CANCELLED by 1000"}, 0.1) if len(asked) > 6 else (None, None)

    class Executor(Waiting):
        pass

    monkeypatch.setattr(slurm, "_ask", lambda *command: None)
    ages = iter([300, None])
    return SimpleNamespace(
        query_job_status=query, get_min_job_age=lambda: next(ages), Executor=Executor, asked=asked
    )


def test_a_query_without_an_answer_is_asked_again(plugin: Any) -> None:
    slurm.be_patient(plugin, pause=0.001)
    slurm.be_patient(plugin, pause=0.001)  # a second time changes nothing
    answer = asyncio.run(plugin.query_job_status("squeue --name x", logging.getLogger("test")))
    assert answer == ({"7": "CANCELLED"}, 0.1)
    assert len(plugin.asked) == 7


def test_patience_ends(plugin: Any) -> None:
    slurm.be_patient(plugin, patience=0, pause=0.001)
    question = plugin.query_job_status("squeue --name x", logging.getLogger("test"))
    assert asyncio.run(question) == (None, None)


def test_the_pause_is_capped_and_the_last_known_age_kept(plugin: Any) -> None:
    slurm.be_patient(plugin)
    executor = plugin.Executor()
    assert executor.next_seconds_between_status_checks == 10
    executor.next_seconds_between_status_checks = 2
    assert executor.next_seconds_between_status_checks == 2
    assert [plugin.get_min_job_age() for _ in range(2)] == [300, 300]


def test_nodes_are_avoided_that_the_user_names_and_no_others(plugin: Any) -> None:
    slurm.be_patient(plugin)
    executor, other = plugin.Executor(), plugin.Executor()
    executor._failed_nodes, other._failed_nodes = {"named"}, set()
    executor._failed_nodes.add("took the job over")
    assert executor._failed_nodes == {"named"} and other._failed_nodes == set()


@pytest.mark.parametrize(
    ("kind", "command"),
    [("accounting_storage/none", "squeue"), ("accounting_storage/slurmdbd", "sacct")],
)
def test_without_accounting_the_queue_is_asked(
    plugin: Any, monkeypatch: pytest.MonkeyPatch, kind: str, command: str
) -> None:
    slurm.be_patient(plugin)
    assert plugin.Executor().get_status_command() == "sacct"  # no answer: as it was chosen
    monkeypatch.setattr(slurm, "_ask", lambda *words: f"AccountingStorageType   = {kind}\n")
    assert plugin.Executor().get_status_command() == command


def test_the_plugin_has_what_is_repaired() -> None:
    import snakemake_executor_plugin_slurm as real

    for name in ("query_job_status", "get_min_job_age"):
        assert callable(getattr(real, name))
    assert isinstance(real.Executor.next_seconds_between_status_checks, property)
    assert callable(real.Executor.get_status_command)
    assert "self._failed_nodes.add(node)" in inspect.getsource(real)


def test_jobs_of_this_folder_alone_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = iter(
        [
            f"7|rule_train_variant|{tmp_path}\n8|rule_other|/elsewhere\n9|mine|{tmp_path}\n",
            "8|rule_other|/elsewhere\n",
        ]
    )
    monkeypatch.setattr(slurm, "_ask", lambda *words: next(queue))
    with caplog.at_level(logging.WARNING, logger="snakemake"):
        slurm.await_earlier_jobs(tmp_path, pause=0.001)
    assert next(queue, "asked no more") == "asked no more"
    assert "waiting for 1 jobs" in caplog.text and "scancel 7" in caplog.text
