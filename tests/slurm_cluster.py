"""A real SLURM on this machine, in a folder of its own: munged, slurmctld, slurmd; one node, two CPUs."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "scontrol", "sinfo")
SBIN = ("/usr/sbin", "/usr/local/sbin")

CONFIGURATION = """
ClusterName=hrvol
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=1
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=10
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Return why no SLURM can be started here, or an empty text."""
    if os.getuid() != 0:
        return "SLURM's daemons need root"
    path = os.pathsep.join([os.environ["PATH"], *SBIN])
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"SLURM is not installed: no {', '.join(absent)}" if absent else ""


class Slurm:
    """A SLURM that runs in the ``with`` statement; its commands find it by the variable SLURM_CONF.

    Attributes
    ----------
    environment
        Variables for its commands.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        self._daemons = []
        path = os.pathsep.join([os.environ["PATH"], *SBIN])
        self.environment = {"SLURM_CONF": str(self._folder / "slurm.conf"), "PATH": path}

    def __enter__(self):
        folder = self._folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(folder=folder, host=host, ports=free_ports(2))
        (folder / "slurm.conf").write_text(text)
        files = ("key-file", "log-file", "pid-file", "seed-file")
        options = [f"--{option}={folder}/munge.{option.partition('-')[0]}" for option in files]
        options.append(f"--socket={folder}/munge.socket")
        try:
            self._start("munged", "--foreground", "--force", *options)
            self._wait((folder / "munge.socket").exists)
            self._start("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
            self._start("slurmd", "-D", "-f", str(folder / "slurm.conf"))
            self._wait(lambda: "idle" in self.run("sinfo", "--noheader", "--format", "%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for job in self.jobs():
            self.run("scancel", "--signal=KILL", "--full", job)
            self.run("scancel", job)
        for daemon in reversed(self._daemons):
            with suppress(psutil.Error):
                for child in psutil.Process(daemon.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        child.kill()
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()

    def run(self, *words):
        """Return what one of SLURM's commands prints."""
        variables = {**os.environ, **self.environment}
        done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def jobs(self, state="RUNNING,PENDING,COMPLETING"):
        """Return the numbers of the jobs in some states."""
        return self.run("squeue", "--noheader", "--format", "%A", "--states", state).split()

    def state(self, job):
        """Return the state of a job, such as ``RUNNING``."""
        return self.run("squeue", "--noheader", "--format", "%T", "--states", "all", "--job", job)

    def job_processes(self):
        """Return the numbers of the processes of jobs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                variables = process.environ()
                ours = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if ours and "SLURM_JOB_ID" in variables:
                    found.append(process.pid)
        return found

    def _start(self, *words):
        log = (self._folder / f"{words[0]}.out").open("w")
        program = shutil.which(words[0], path=self.environment["PATH"])
        with log:
            self._daemons.append(
                subprocess.Popen(
                    [program, *words[1:]],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, **self.environment},
                )
            )

    def _wait(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(path.read_text()[-1000:] for path in self._folder.glob("*.out"))
            assert all(daemon.poll() is None for daemon in self._daemons), logs
            assert time.monotonic() < deadline, logs
            time.sleep(0.05)


def free_ports(count):
    """Return ports that nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
