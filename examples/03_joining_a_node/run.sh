#!/usr/bin/env bash
# Found a mesh, invite a node with a one-time token, let it join, read what it shares. Needs: nats-server on the PATH
set -euo pipefail
folder=$(mktemp -d) port=${1:-4222}
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT

# On the machine of the hub: a sealed root, an issuer, the first voter, and the configuration of its server.
meshfold init --dir "$folder/hub" --key-file "$folder/root.key" --nats "nats://127.0.0.1:$port" >/dev/null
nats-server -c "$folder/hub/nats-server.conf" -a 127.0.0.1 -p "$port" 2>/dev/null &
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
meshfold node run --dir "$folder/hub" --log-level error &
hub="$folder/hub/context.json"
until meshfold status --context "$hub" >/dev/null 2>&1; do :; done
echo "the hub runs"

# Whoever holds the token first is edge-1: hand it over safely.
meshfold invite edge-1 --for 10m --context "$hub" --out "$folder/token" >/dev/null
meshfold join --dir "$folder/edge-1" --token-file "$folder/token" >/dev/null
echo "edge-1 joined"
meshfold join --dir "$folder/thief" --token-file "$folder/token" || echo "the token works once: exit code $?"

# On the machine of edge-1: run it, here with the app that shares the machine's own figures.
meshfold node run --dir "$folder/edge-1" --app sampler --log-level error &
until meshfold route latest edge-1/host/cpu --context "$hub" >/dev/null 2>&1; do :; done
echo "edge-1/host/cpu is there"
