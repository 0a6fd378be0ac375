"""A Slurm of two nodes in a folder: munge, a controller and two node daemons of its own, on this machine."""
import os
import shutil
import socket
import subprocess
import tempfile
import time

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")

CONF = """ClusterName=site
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port0}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={site}/munge.sock
CredType=cred/munge
MpiDefault=none
MpiParams=ports={range0}-{range1}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={site}/slurmctld.pid
SlurmdPidFile={site}/slurmd.%n.pid
SlurmdSpoolDir={site}/spool.%n
TmpFS={site}/tmp.%n
StateSaveLocation={site}/state
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldLogFile={site}/slurmctld.log
SlurmdLogFile={site}/slurmd.%n.log
JobRequeue=1
KillWait=30
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=2 State=UNKNOWN
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def what_is_missing():
    if os.getuid() != 0:
        return "only root can start two node daemons"
    absent = [n for n in NEEDED if not shutil.which(n, path=os.environ["PATH"] + ":/usr/sbin")]
    return f"not installed: {' '.join(absent)} (slurmctld, slurmd, slurm-client, munge)" if absent else None


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Site:
    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="mdm-slurm-")
        os.chmod(self.path, 0o755)
        self.environment = dict(os.environ, SLURM_CONF=self.path + "/slurm.conf", PATH=os.environ["PATH"] + ":/usr/sbin")
        for name in list(self.environment):
            if name.startswith(("OMPI_", "PMIX_")) and "ALLOW" not in name:
                del self.environment[name]
        self.daemons = []
        self.begin()

    def file(self, name, content, mode=0o644):
        with open(os.path.join(self.path, name), "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(os.path.join(self.path, name), mode)
        return os.path.join(self.path, name)

    def daemon(self, *words):
        log = open(os.path.join(self.path, "daemons.log"), "ab")
        self.daemons.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True))

    def begin(self):
        ports = free_ports(3)
        first = 40000 + os.getpid() % 10000
        self.file("slurm.conf", CONF.format(host=socket.gethostname().split(".")[0], site=self.path, port0=ports[0],
                                            port1=ports[1], port2=ports[2], range0=first, range1=first + 200))
        self.file("cgroup.conf", "CgroupPlugin=cgroup/v1\n")
        for folder in ("state", "spool.n1", "spool.n2", "tmp.n1", "tmp.n2"):
            os.mkdir(os.path.join(self.path, folder))
        key = self.file("munge.key", os.urandom(1024), 0o600)
        self.daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.path}/munge.sock",
                    f"--pid-file={self.path}/munge.pid", f"--log-file={self.path}/munge.log", f"--seed-file={self.path}/munge.seed")
        self.until(lambda: os.path.exists(self.path + "/munge.sock"), "munge's socket")
        self.daemon("slurmctld", "-D", "-c", "-f", self.path + "/slurm.conf")
        for node in ("n1", "n2"):
            self.daemon("slurmd", "-D", "-c", "-N", node, "-f", self.path + "/slurm.conf")
        self.until(lambda: self.call("sinfo", "--noheader", "--format=%T %D").stdout.split() == ["idle", "2"], "two idle nodes", 60)

    def call(self, *words):
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)

    def logs(self):
        text = ""
        for name in sorted(os.listdir(self.path)):
            if name.endswith(".log"):
                text += f"--- {name}\n" + open(os.path.join(self.path, name), errors="replace").read()[-2500:] + "\n"
        return text

    def until(self, condition, what, seconds=60):
        deadline = time.time() + seconds
        while not condition():
            if time.time() > deadline:
                raise AssertionError(f"{what}: not within {seconds} s\n{self.logs()}")
            time.sleep(0.2)

    def submit(self, script, **variables):
        done = subprocess.run(["sbatch", "--parsable", script], env=dict(self.environment, **variables), cwd=self.path,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number):
        """The words of `scontrol show job`, as a dictionary."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number):
        return self.job(number).get("JobState", "")

    def end(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(self.path, ignore_errors=True)
