"""A run over two hosts, made of two network namespaces with a link between them: it gives the bits of one host, a killed rank is named
with its host, and a link that goes silent ends the run."""
import atexit
import shutil
import sys
import tempfile

from faults import *  # noqa: F403
from faults import TINY
from program import main

FAST = {"MDM_WATCH_FACTOR": "0.1"}
HOSTS = ("mdmh%da" % (os.getpid() % 10000), "mdmh%db" % (os.getpid() % 10000))
NET = "10.77.%d" % (os.getpid() % 250 + 1)


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def remove_hosts():
    for name in HOSTS:
        ip("netns", "delete", name)


def make_hosts():
    """None, or why not."""
    if os.getuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        return "two hosts take root, ip and unshare"
    atexit.register(remove_hosts)
    for name in HOSTS:
        if ip("netns", "add", name).returncode != 0:
            return "this machine lets nobody make network namespaces"
    if ip("link", "add", "eth-m", "netns", HOSTS[0], "type", "veth", "peer", "name", "eth-m", "netns", HOSTS[1]).returncode != 0:
        return "this machine has no veth links"
    for number, name in enumerate(HOSTS):
        for words in (["link", "set", "lo", "up"], ["addr", "add", f"{NET}.{number + 1}/24", "dev", "eth-m"],
                      ["link", "set", "eth-m", "up"]):
            assert ip("-n", name, *words).returncode == 0, words
    return None


missing = make_hosts()
if missing:
    print("skipped:", missing)
    sys.exit(77)
folder = tempfile.mkdtemp(prefix="mdm-hosts-")
atexit.register(shutil.rmtree, folder, True)
agent = os.path.join(folder, "agent.sh")
with open(agent, "w") as f:  # what mpirun takes for ssh: HOST COMMAND
    f.write(f"#!/bin/bash\nshift\nexec ip netns exec {HOSTS[1]} unshare -u bash -c \"hostname hostb; $*\"\n")
os.chmod(agent, 0o755)


def start_on_hosts(work, name, **variables):
    passed = [word for variable in variables for word in ("-x", variable)]
    words = ["mpirun", "--bind-to", "none", "--mca", "plm_rsh_agent", agent, "--mca", "pml", "ob1", "--mca", "btl",
             "tcp,self", "--mca", "btl_tcp_if_include", NET + ".0/24", "--mca", "oob_tcp_if_include", NET + ".0/24",
             "--host", f"{NET}.1:1,{NET}.2:1", "-np", "2", *passed, PROGRAM, *arguments_of(work, name)]
    inside = ["ip", "netns", "exec", HOSTS[0], "unshare", "-u", "bash", "-c", 'hostname hosta; exec "$@"', "bash", *words]
    return subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=dict(os.environ, OMPI_MCA_orte_execute_quiet="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", **variables))


def wait_for_stage(work, name, process, stage):
    metrics, deadline = work.file(name) + "/metrics.jsonl", time.time() + 120
    while not (os.path.exists(metrics) and f'"stage":"{stage}"' in open(metrics).read()):
        assert process.poll() is None and time.time() < deadline, process.communicate()[1]
        time.sleep(0.02)


def two_hosts_give_the_bits_of_one(work):
    done, _ = train(work, "calm2", ranks=2)
    assert done.returncode == 0, done.stderr
    process = start_on_hosts(work, "both")
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    environment = read(work, "both", "environment.json")
    assert b"hosta" in environment and b"hostb" in environment, environment
    same(work, "both", "calm2")


def a_rank_killed_on_the_other_host_is_named_with_it(work):
    process = start_on_hosts(work, "killed")
    wait_for_stage(work, "killed", process, "warmup")
    os.kill(workers_of(work, "killed")[1], signal.SIGKILL)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 6, (process.returncode, text)
    one_line_names(text, 1, "Killed", "on hostb")
    nobody_is_left(work, "killed")
    process = start_on_hosts(work, "killed")
    assert process.wait(timeout=120) == 0
    same(work, "killed", "calm2")


def a_host_that_loses_its_launcher_ends_the_run(work):
    process = start_on_hosts(work, "headless", **FAST)
    wait_for_stage(work, "headless", process, "warmup")
    inside = ip("netns", "pids", HOSTS[1]).stdout.split()
    daemons = [int(p) for p in inside if b"orted" in open(f"/proc/{p}/cmdline", "rb").read().split(b"\0")[0]]
    assert len(daemons) == 1, daemons
    os.kill(daemons[0], signal.SIGKILL)
    nobody_is_left(work, "headless", within=15)
    _, text = process.communicate(timeout=60)
    assert process.returncode != 0 and len(error_lines(text)) <= 1, (process.returncode, text)
    process = start_on_hosts(work, "headless")
    assert process.wait(timeout=120) == 0
    same(work, "headless", "calm2")


def a_link_that_is_away_for_three_seconds_changes_nothing(work):
    process = start_on_hosts(work, "blinked")
    wait_for_stage(work, "blinked", process, "pretrain")
    assert ip("-n", HOSTS[1], "link", "set", "eth-m", "down").returncode == 0
    time.sleep(3)
    assert ip("-n", HOSTS[1], "link", "set", "eth-m", "up").returncode == 0
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0 and not error_lines(text), text
    same(work, "blinked", "calm2")


def a_link_that_goes_silent_ends_the_ranks_on_both_hosts(work):
    process = start_on_hosts(work, "cut", **FAST)
    wait_for_stage(work, "cut", process, "warmup")
    assert ip("-n", HOSTS[1], "link", "set", "eth-m", "down").returncode == 0
    cut = time.time()
    nobody_is_left(work, "cut", within=15)
    took = time.time() - cut
    print(f"        both hosts' ranks gone after {took:.1f} s", flush=True)
    assert ip("-n", HOSTS[1], "link", "set", "eth-m", "up").returncode == 0
    try:
        _, text = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()  # mpirun itself may wait for the other host for ever: job scripts end it
        _, text = process.communicate()
    assert b"no progress" in read(work, "cut", "flight/failure")
    lines = error_lines(text)  # none, where the other host's rank spoke first: its line could not come through
    assert len(lines) <= 1 and all("no progress" in line for line in lines), text
    process = start_on_hosts(work, "cut")
    assert process.wait(timeout=120) == 0
    same(work, "cut", "calm2")


if __name__ == "__main__":
    main([two_hosts_give_the_bits_of_one, a_rank_killed_on_the_other_host_is_named_with_it,
          a_host_that_loses_its_launcher_ends_the_run, a_link_that_is_away_for_three_seconds_changes_nothing, a_link_that_goes_silent_ends_the_ranks_on_both_hosts], halved=True)
