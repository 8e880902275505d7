#!/usr/bin/env bash
# A Docker engine for the container tests: export DOCKER_HOST=$(tools/docker.sh start); later tools/docker.sh stop.
#
#   start   takes the engine that answers; where none does, installs Debian's docker.io if `dockerd` is missing and starts
#           one in a folder of its own. Prints the engine's address on stdout and nothing else; without an engine it says
#           why on stderr and ends with 3.
#   stop    ends what `start` started, its containers with it, and nothing else. Images stay for the next start.
#   purge   stop, and remove the folder.
#
# The folder is $MESHFOLD_TEST_DOCKER_DIR, by default meshfold-docker in the folder for temporary files.
set -euo pipefail

folder=${MESHFOLD_TEST_DOCKER_DIR:-${TMPDIR:-/tmp}/meshfold-docker}
socket=$folder/docker.sock
address_chars_max=107 # of a Unix socket's path; containerd's is the longest in the folder
wait_tries_max=240

answers() { docker --host "$1" version >/dev/null 2>&1; }

refuse() {
    printf 'docker: %s\n' "$1" >&2
    exit 3
}

install_engine() {
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || refuse "no engine answers, dockerd is not installed, and there is no apt-get"
        echo "docker: installing Debian's docker.io" >&2
        {
            apt-get update --quiet=2 || true # an old list may do
            DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends docker.io iptables
        } >&2 || refuse "docker.io could not be installed"
    fi
}

# The daemon of our folder and no other: a process id alone may have been given to another process since.
ours() {
    local pid
    pid=$(cat "$folder/pid" 2>/dev/null) || return 1
    if [[ -n $pid ]] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--pidfile $folder/pid"; then
        printf '%s\n' "$pid"
    else
        return 1
    fi
}

start() {
    local default=${DOCKER_HOST:-unix:///var/run/docker.sock}
    if command -v docker >/dev/null; then
        for address in "$default" "unix://$socket"; do
            if answers "$address"; then
                printf '%s\n' "$address"
                return
            fi
        done
    fi
    [[ $(uname -s) == Linux ]] || refuse "no engine answers at $default: start Docker"
    ((EUID == 0)) || refuse "no engine answers at $default, and only root can start one"
    install_engine
    ((${#folder} + 40 <= address_chars_max)) || refuse "$folder is too long a path for sockets: set MESHFOLD_TEST_DOCKER_DIR"
    mkdir -p "$folder"
    # Nothing here may need what a container around us withholds: oom scores are not lowered, the storage driver is the
    # engine's choice, and cgroups are used without systemd.
    setsid dockerd --host "unix://$socket" --data-root "$folder/data" --exec-root "$folder/exec" \
        --pidfile "$folder/pid" --oom-score-adjust 0 --exec-opt native.cgroupdriver=cgroupfs \
        >"$folder/log" 2>&1 </dev/null &
    local child=$! tries
    for ((tries = 0; tries < wait_tries_max; tries++)); do
        if answers "unix://$socket"; then
            printf 'unix://%s\n' "$socket"
            return
        fi
        kill -0 "$child" 2>/dev/null || break
        sleep 0.25
    done
    kill "$child" 2>/dev/null || true
    tail -n 5 "$folder/log" >&2
    refuse "dockerd does not start; its log is $folder/log"
}

stop() {
    local pid tries
    if pid=$(ours); then
        kill "$pid"
        for ((tries = 0; tries < wait_tries_max; tries++)); do
            kill -0 "$pid" 2>/dev/null || return 0
            sleep 0.25
        done
        echo "docker: dockerd $pid does not end" >&2
        return 1
    fi
}

# An engine that ended leaves the name of its network namespace mounted, and a folder with a mount cannot be removed.
release() {
    local place
    while read -r place; do
        umount --lazy "$place"
    done < <(awk -v folder="$folder/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort --reverse)
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    purge)
        stop
        release
        rm -rf "$folder"
        ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
