"""Judging Ray: the cluster that RAY_ADDRESS names, what runs here already, ports and proxies."""

import os

from orchestrator.doctor.facts_ray import (
    JOIN_TIMEOUT_S,
    PORTS,
    START_TIMEOUT_S,
    ClusterFacts,
    LocalFacts,
    gather_cluster,
    gather_local,
    gather_start,
)
from orchestrator.doctor.finding import Check, Finding, Level
from orchestrator.doctor.words import GIB, size

GROUP = "Ray"
MUCH_MEMORY = GIB
SPARE_S = 10.0


def ray_checks(full: bool) -> list[Check]:
    """What is here; the cluster if one is named; with `full` Ray is really started."""
    address = os.environ.get("RAY_ADDRESS")
    checks = [Check(group=GROUP, name="local", gather=lambda: gather_local(os.environ), judge=judge_local)]
    if address:
        checks.append(
            Check(
                group=GROUP,
                name="cluster",
                gather=lambda: gather_cluster(address, os.environ),
                judge=judge_cluster,
                deadline_s=JOIN_TIMEOUT_S + SPARE_S,
                needed=True,
            )
        )
    elif full:
        deadline_s = START_TIMEOUT_S + SPARE_S
        checks.append(
            Check(group=GROUP, name="start", gather=gather_start, judge=judge_start, deadline_s=deadline_s, needed=True)
        )
    return checks


def judge_cluster(facts: ClusterFacts) -> list[Finding]:
    """Joined; or nobody there, no token, another version, or what Ray said."""
    where = f"the cluster at RAY_ADDRESS={facts.address}"
    if facts.connect_error:
        mend = "start it (ray start --head), mend the address, or unset RAY_ADDRESS for a Ray of the run's own"
        return [_finding("cluster", Level.BROKEN, f"{where} cannot be reached: {facts.connect_error}", mend)]
    if not facts.failure:
        return [_finding("cluster", Level.OK, f"{where} takes drivers from here")]
    said, words = f"{where} refuses this machine: {facts.failure}", facts.failure.lower()
    if any(sign in words for sign in ("401", "unauthor", "unauthenticated", "token")):
        have = "a token is here" if facts.has_token else "there is no token here"
        said += f" (RAY_AUTH_MODE={facts.auth_mode or 'not set'}; {have})"
        mend = (
            "export RAY_AUTH_MODE=token and put the cluster's ~/.ray/auth_token into the same place here; "
            "or RAY_AUTH_MODE=disabled on both sides"
        )
        return [_finding("cluster", Level.BROKEN, said, mend)]
    mend = "use the same Ray and Python on both sides" if "version" in words else "look at the cluster: ray status"
    return [_finding("cluster", Level.BROKEN, said, mend)]


def judge_start(facts: tuple[float, str]) -> list[Finding]:
    """facts: (seconds, why not)."""
    seconds, failure = facts
    if failure:
        mend = "look into /tmp/ray/session_latest/logs (raylet.err, gcs_server.err)"
        return [_finding("start", Level.BROKEN, f"Ray does not start here: {failure}", mend)]
    return [_finding("start", Level.OK, f"Ray started here and ran a task in {seconds:.0f} s")]


def judge_local(facts: LocalFacts) -> list[Finding]:
    """What others' Ray holds, ports that are taken, proxies that swallow local connections."""
    found = [_running(facts)]
    for port, who in facts.holders.items():
        said = f"port {port} ({PORTS[port]}) is taken{f' by {who}' if who else ''}"
        found.append(_finding(f"port {port}", Level.NOTE, said, "only `ray start --head` minds: give it another port"))
    if not facts.holders:
        found.append(_finding("ports", Level.OK, f"ports {', '.join(map(str, PORTS))} are free"))
    exempt = {word.strip() for word in facts.no_proxy.split(",")}
    if facts.proxies and not exempt & {"*", "localhost", "127.0.0.1"}:
        names = ", ".join(sorted(facts.proxies))
        said = f"{names} is set, and no_proxy leaves out localhost: connections within this machine go to the proxy"
        found.append(
            _finding("proxy", Level.WARNING, said, "export no_proxy=localhost,127.0.0.1 (and the cluster's nodes)")
        )
    return found


def _running(facts: LocalFacts) -> Finding:
    if facts.num_processes == 0:
        return _finding("processes", Level.OK, "no process of Ray runs here")
    said = f"{facts.num_processes} processes of {facts.num_nodes} Ray sessions run here and hold {size(facts.memory)}"
    level = Level.WARNING if facts.memory > MUCH_MEMORY else Level.NOTE
    mend = f"if none of them is a run of yours: ray stop (the oldest has run for {facts.oldest_s / 60:.0f} minutes)"
    return _finding("processes", level, said, mend)


def _finding(name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=GROUP, name=name, level=level, said=said, mend=mend)
