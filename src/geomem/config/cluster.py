"""What a job asks for, and how a cluster is told."""

from collections.abc import Collection
from typing import Literal, Self, get_args

from pydantic import Field

from geomem.errors import InputError
from geomem.registry.strict import Positive, Strict

Kind = Literal["cpu", "gpu"]
Asked = dict[str, str | int]
# All that a job may ask for, by the names of Snakemake's resources
REQUESTED = (
    *("slurm_partition", "cpus_per_task", "mem_mb", "runtime", "nodes", "devices", "gres"),
    *("slurm_account", "qos", "constraint", "slurm_extra", "mpi", "tasks", "tasks_per_gpu"),
)


class Resources(Strict):
    """What one job of a stage asks for; threads, memory, GPUs and processes are of each node."""

    partition: Kind = Field(
        default="cpu", description="kind of partition; `config/cluster.local.yaml` names yours"
    )
    threads: Positive = 1
    mem_mb: Positive = Field(default=2000, description="on the first attempt; grows with each")
    runtime: Positive = Field(
        default=60, description="minutes, on the first attempt; grows with each"
    )
    gpu: int = Field(default=0, ge=0, description="GPUs")
    nodes: Positive = 1
    processes: Positive = Field(default=1, description="training processes; training alone")
    growth: float = Field(
        default=1.0, ge=0, description="share of memory and runtime added on each further attempt"
    )
    grace: int = Field(
        default=0, ge=0, description="seconds before the time limit at which SIGTERM comes"
    )


class Cluster(Strict):
    """One user's cluster (`config/cluster.local.yaml`, which is not tracked)."""

    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    partitions: dict[Kind, str] = Field(
        default_factory=dict, description="kind of partition -> its name on this cluster"
    )
    gpu_type: str | None = Field(default=None, description="type in --gres=gpu:<type>:<n>")
    max_mem_mb: Positive | None = Field(default=None, description="growth of memory stops here")
    max_runtime: Positive | None = Field(
        default=None, description="minutes; growth of the runtime stops here"
    )
    price_per_gpu_hour: float | None = Field(default=None, ge=0, description="for `geomem plan`")
    price_per_cpu_hour: float | None = Field(default=None, ge=0, description="of a core")
    currency: str = Field(default="", description="of both, as it is shown")
    sbatch: tuple[str, ...] = Field(default=(), description="extra options of sbatch, one a line")

    def on(self, known: Collection[str]) -> Self:
        """Return this with the choice left to Slurm where a kind has no partition of its name.

        Args:
            known: Names of the cluster's partitions; empty where Slurm does not answer.

        Raises:
            InputError: If a partition that is named does not exist.
        """
        if not known:
            return self
        for kind, name in self.partitions.items():
            if name not in known:
                raise InputError(
                    f"config/cluster.local.yaml: partitions.{kind} = {name!r}: expected one of "
                    f"{sorted(known)}"
                )
        unnamed: dict[Kind, str] = {kind: "" for kind in get_args(Kind) if kind not in known}
        return self.model_copy(update={"partitions": {**unnamed, **self.partitions}})

    def request(self, resources: Resources, *, attempt: int = 1) -> Asked:
        """Return what a job asks Slurm for, by the names of Snakemake's resources.

        Args:
            resources: What the configuration states for the job.
            attempt: Number of the attempt, from 1; memory and runtime grow with it.
        """
        factor = 1 + resources.growth * (attempt - 1)
        kind = f":{self.gpu_type}" if self.gpu_type else ""
        extra = [f"--signal=TERM@{resources.grace}"] if resources.grace else []
        optional: dict[str, str | int | None] = {
            "slurm_partition": self.partitions.get(resources.partition, resources.partition)
            or None,
            "gres": f"gpu{kind}:{resources.gpu}" if resources.gpu else None,
            "slurm_account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "slurm_extra": " ".join([*extra, *self.sbatch]) or None,
        }
        if resources.nodes > 1:
            # a launcher on each node, which `srun` starts inside the rule's command
            optional |= {"mpi": "srun", "tasks": resources.nodes, "tasks_per_gpu": 0}
        return {
            "cpus_per_task": resources.threads,
            "mem_mb": _grown(resources.mem_mb, factor, self.max_mem_mb),
            "runtime": _grown(resources.runtime, factor, self.max_runtime),
            "nodes": resources.nodes,
            "devices": resources.gpu,
            **{name: value for name, value in optional.items() if value is not None},
        }


def _grown(first: int, factor: float, limit: int | None) -> int:
    grown = round(first * factor)
    return max(first, min(grown, limit)) if limit else grown


def launcher(resources: Resources) -> str:
    """Return what starts the processes of a job, as words before its command; "" for one.

    On one node that is torchrun. On several, srun starts one torchrun a node; srun runs on the
    first of them, whose address is where the processes meet.
    """
    torchrun = f"torchrun --nproc-per-node {resources.processes}"
    if resources.nodes == 1:
        return "" if resources.processes == 1 else f"{torchrun} --standalone --no-python "
    meeting = (
        "--node-rank $SLURM_NODEID --master-addr $SLURM_LAUNCH_NODE_IPADDR"
        " --master-port $((20000 + SLURM_JOB_ID % 10000))"
    )
    each = f'exec {torchrun} --nnodes {resources.nodes} {meeting} --no-python "$@"'
    step = f"srun --nodes {resources.nodes} --ntasks {resources.nodes} --ntasks-per-node 1"
    step += f" --cpus-per-task {resources.threads} --kill-on-bad-exit=1"
    return f"{step} bash -c '{each}' launch "
