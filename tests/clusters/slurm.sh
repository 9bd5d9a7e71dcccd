#!/usr/bin/env bash
# A real Slurm of two nodes, n1 (10.77.0.1, the controller's too) and n2 (10.77.0.2), then a command in it:
#   unshare --net --mount --pid --uts --fork --kill-child --mount-proc slurm.sh FOLDER COMMAND…
# It needs root and Debian's slurmctld, slurmd, munge and iproute2. All of it ends with the command: it lives in the
# namespaces that `unshare` made, n2 in a network of its own.
set -euo pipefail
folder=$1
shift
mkdir -p "$folder"/{run,state,spool.n1,spool.n2}
cd "$folder"
ip link set lo up
ip link add to-n2 type veth peer name to-n1
ip addr add 10.77.0.1/24 dev to-n2
ip link set to-n2 up
hostname ctl
(umask 077 && head -c 128 /dev/urandom >key)
munged --force --socket="$folder/run/munge" --key-file="$folder/key" --pid-file="$folder/run/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/seed" --num-threads 2 2>munged.err
cat >slurm.conf <<CONF
ClusterName=test
SlurmctldHost=ctl(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/run/ctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
ReturnToService=2
KillWait=5
NodeName=n1 NodeAddr=10.77.0.1 CPUs=4 RealMemory=4000
NodeName=n2 NodeAddr=10.77.0.2 CPUs=4 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf
slurmctld -D >/dev/null 2>ctld.err &
slurmd -D -N n1 >/dev/null 2>n1.err &
unshare --net sleep infinity &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link set to-n1 netns "$other"
nsenter -t "$other" -n sh -c 'ip link set lo up && ip addr add 10.77.0.2/24 dev to-n1 && ip link set to-n1 up'
nsenter -t "$other" -n slurmd -D -N n2 >/dev/null 2>n2.err &
for _ in $(seq 240); do
    [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" != 2 ] || break
    sleep 0.25
done
"$@"
