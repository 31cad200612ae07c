#!/usr/bin/env bash
# A SLURM of two nodes on this machine, for tests: `slurm_cluster.sh up DIR` and `slurm_cluster.sh down DIR`, as root.
# Debian has what it takes: apt install slurmctld slurmd slurm-client munge
# Everything lies in DIR but for a line in /etc/hosts, since processes find each other by the names of nodes.
# To use it: export SLURM_CONF=DIR/slurm.conf
set -euo pipefail
dir=$(realpath "$2")
hosts='127.0.0.1 bert-jax-1 bert-jax-2 # for tests of bert_jax'

down() {
    export SLURM_CONF="$dir/slurm.conf"
    scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 40); do
        if [ -z "$(squeue -h 2>/dev/null)" ]; then break; fi
        sleep 0.5
    done
    for name in bert-jax-1 bert-jax-2 slurmctld munged; do
        if [ -f "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
    done
    sed '/for tests of bert_jax/d' /etc/hosts > "$dir/hosts" && cat "$dir/hosts" > /etc/hosts
}

up() {
    mkdir -p "$dir"/state "$dir"/spool-bert-jax-{1,2}
    grep -qxF "$hosts" /etc/hosts || echo "$hosts" >> /etc/hosts
    head -c 1024 /dev/urandom > "$dir/munge.key" && chmod 600 "$dir/munge.key"
    # Its socket may lie where only root goes: munge is told that this is meant so.
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    cat > "$dir/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort=17000
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
NodeName=bert-jax-1 NodeHostname=localhost Port=17001 CPUs=2
NodeName=bert-jax-2 NodeHostname=localhost Port=17002 CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
EOF
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld -i
    slurmd -N bert-jax-1
    slurmd -N bert-jax-2
    for _ in $(seq 60); do
        if [ "$(sinfo -h -t idle -o %D 2>/dev/null | head -1)" = 2 ]; then return; fi
        sleep 0.5
    done
    echo 'error: the nodes did not come up: see the logs in '"$dir" >&2
    down
    exit 1
}

"$1"
