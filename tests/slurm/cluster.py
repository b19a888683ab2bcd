"""A real, private Slurm on this machine: munge, slurmdbd, slurmctld and several slurmd.

Several slurmd on one host play several nodes. The GPUs are fakes that Slurm counts and hands out
like real ones. Everything (configuration, key, state, logs) lies in one folder, nothing in
/etc/slurm, and every daemon listens on the loopback interface alone. Needs root and the packages
that `make test-slurm` installs.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

from conftest import wait_for

CLIENTS = "sbatch srun scancel scontrol squeue sinfo sacct sacctmgr".split()  # noqa: SIM905
LONGEST_FOLDER = 75  # characters: Unix sockets lie in it, whose paths may have 107
GPUS = 2  # on each GPU node

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={ports[ctld]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
PropagateResourceLimits=NONE
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=2
MinJobAge=3600
KillWait=10
SlurmdTimeout=15
SlurmctldTimeout=20
MessageTimeout=10
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePort={ports[dbd]}
AccountingStoragePass={folder}/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
# no cgroups here: Slurm itself kills a job that holds more than it asked for
JobAcctGatherParams=OverMemoryKill,UsePss
{nodes}
PartitionName=cpu Nodes={cpu_nodes} Default=YES MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes={gpu_nodes} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr={address}
DbdPort={ports[dbd]}
CommunicationParameters=NoInAddrAny
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[sql]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
"""


class SlurmCluster:
    """The cluster in `folder`; nodes cpu1, cpu2, gpu1 and gpu2."""

    def __init__(self, folder: Path, *, cpus: int = 2, mem_mb: int = 16000) -> None:
        if len(str(folder)) > LONGEST_FOLDER:
            raise ValueError(f"{folder} is longer than {LONGEST_FOLDER} characters")
        self.folder = folder
        self.nodes = ["cpu1", "cpu2", "gpu1", "gpu2"]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.users: list[subprocess.Popen[bytes]] = []  # that would wait for this Slurm for ever
        self.environment = {
            **os.environ,
            "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        self._write_configuration(cpus, mem_mb)

    def _write_configuration(self, cpus: int, mem_mb: int) -> None:
        for name in ("ctld", "log", "run", "bin", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        self._write_private("munge.key", secrets.token_bytes(128))
        address = socket.gethostbyname(socket.gethostname())
        assert address.startswith("127."), "the host's name must resolve to loopback: /etc/hosts"
        first, *others = _free_ports(3 + len(self.nodes))
        ports = {"ctld": first, "dbd": others[0], "sql": others[1]}
        host = socket.gethostname().split(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr={address} Port={port} CPUs={cpus} "
            f"RealMemory={mem_mb} Feature=fast"
            + (f" Gres=gpu:{GPUS}" if node.startswith("gpu") else "")
            for node, port in zip(self.nodes, others[2:], strict=True)
        ]
        values = {
            "folder": self.folder,
            "host": host,
            "address": address,
            "ports": ports,
            "nodes": "\n".join(nodes),
            "cpu_nodes": "cpu1,cpu2",
            "gpu_nodes": "gpu1,gpu2",
        }
        self._sql_port = ports["sql"]
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
        self._write_private("slurmdbd.conf", SLURMDBD_CONF.format(**values).encode())
        self._write_gpus()
        self._write_clients()

    def _write_private(self, name: str, content: bytes) -> None:
        (self.folder / name).touch(mode=0o600)
        (self.folder / name).write_bytes(content)

    def _write_gpus(self) -> None:
        # slurmd takes any character device for a GPU, but no ordinary file: copies of /dev/null
        for number in range(GPUS):
            device = self.folder / f"nvidia{number}"
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        gpus = f"File={self.folder}/nvidia[0-{GPUS - 1}] Flags=nvidia_gpu_env"
        lines = [f"NodeName={node} Name=gpu {gpus}" for node in self.nodes if "gpu" in node]
        (self.folder / "gres.conf").write_text("AutoDetect=off\n" + "\n".join(lines) + "\n")

    def _write_clients(self) -> None:
        # The executor drops SLURM_CONF before its srun, so the clients must know it by themselves.
        for name in CLIENTS:
            client = self.folder / "bin" / name
            configuration = self.environment["SLURM_CONF"]
            program = shutil.which(name)
            assert program, f"{name} is missing: run `make test-slurm` as root"
            client.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {program} "$@"\n')
            client.chmod(0o755)

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        files = {"socket": "munge.sock", "key-file": "munge.key", "log-file": "log/munged.log"}
        files |= {"pid-file": "run/munged.pid", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        wait_for((self.folder / "munge.sock").exists, "munged", seconds=10)
        self._start_database()
        self.start_accounting()
        for words in (
            "add cluster test",
            "add account lab Description=lab Organization=lab",
            "add user root account=lab defaultaccount=lab",
        ):
            self.ask("sacctmgr", "-i", *words.split(), check=False)
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_for(self._all_idle, "the nodes", seconds=60)

    def _start_database(self) -> None:
        data, sql = self.folder / "sql", self.folder / "sql.sock"
        # asynchronous writes are few on a machine, and other servers may have them
        few = "--innodb-use-native-aio=0"
        install = ["mariadb-install-db", "--no-defaults", few, "--user=root", f"--datadir={data}"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        self.ask(*install)
        options = ["--no-defaults", few, "--user=root", f"--datadir={data}", f"--socket={sql}"]
        options += [f"--pid-file={self.folder}/run/mariadbd.pid", "--bind-address=127.0.0.1"]
        options += [f"--port={self._sql_port}", "--skip-name-resolve", "--performance-schema=OFF"]
        options += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
        self._spawn("mariadbd", "mariadbd", *options, "--innodb-lock-wait-timeout=900")
        client = ["mariadb", "--no-defaults", "-uroot", f"--socket={sql}", "-e"]
        wait_for(lambda: self._succeeds(*client, "select 1"), "mariadbd", seconds=60)
        for where in ("127.0.0.1", "localhost"):
            user = f"slurm@'{where}'"
            self.ask(*client, f"create user {user} identified by 'slurm'")
            self.ask(*client, f"grant all on slurm_acct_db.* to {user}")

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._spawn("slurmdbd", "slurmdbd", "-D")
        answers = lambda: self._succeeds("sacctmgr", "-n", "list", "cluster")  # noqa: E731
        wait_for(answers, "slurmdbd", seconds=60)

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        self._spawn("slurmctld", "slurmctld", "-D")
        up = lambda: "is UP" in self.ask("scontrol", "ping", check=False)  # noqa: E731
        wait_for(up, "slurmctld", seconds=30)

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        self._spawn(node, "slurmd", "-D", "-N", node)

    def kill(self, daemon: str) -> None:
        """Kill a daemon as a crash would: `slurmctld`, `slurmdbd` or a node's name."""
        process = self.running.pop(daemon)
        process.kill()
        process.wait()

    def kill_job(self, number: str) -> None:
        """Kill all that runs of a job, as when its node loses power."""
        ours = str(self.folder).encode()
        for process in _processes():
            variables, name = process / "environ", process / "cmdline"
            with contextlib.suppress(OSError):
                step = f"slurmstepd: [{number}.".encode() in name.read_bytes()
                entries = variables.read_bytes().split(b"\0")
                inside = f"SLURM_JOB_ID={number}".encode() in entries
                if step or (inside and any(ours in entry for entry in entries)):
                    os.kill(int(process.name), signal.SIGKILL)

    def stop(self) -> None:
        """End all users, jobs and daemons."""
        for user in self.users:
            user.kill()
            user.wait()
        self.ask("scancel", "--user=root", "--quiet", check=False)
        deadline = time.monotonic() + 15
        while self.ask("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in [*self.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"]:
            if process := self.running.pop(name, None):
                process.terminate()
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._end_steps()

    def _end_steps(self) -> None:
        """Kill the job steps that outlived their daemons, known by the configuration they have."""
        mine = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        for process in _processes():
            with contextlib.suppress(OSError):
                step = (process / "comm").read_text().strip() == "slurmstepd"
                if step and mine in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    def ask(self, *command: str, check: bool = True) -> str:
        """Return what a command of Slurm prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def _succeeds(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True).returncode == 0

    def _all_idle(self) -> bool:
        states = self.ask("sinfo", "-h", "-N", "-o", "%T", check=False).split()
        return bool(states) and set(states) == {"idle"}

    def _spawn(self, name: str, *command: str) -> None:
        log = (self.folder / "log" / f"{name}.out").open("ab")
        self.running[name] = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _processes() -> list[Path]:
    return list(Path("/proc").glob("[0-9]*"))


def _free_ports(count: int) -> list[int]:
    """Return ports nobody listens on, below those the system gives to clients."""
    free: list[int] = []
    candidate = 20000 + secrets.randbelow(8000)
    while len(free) < count:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", candidate)):
                free.append(candidate)
        candidate += 1
    return free
