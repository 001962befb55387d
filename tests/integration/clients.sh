# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The load of disasters.sh for a server whose client program reads commands and prints answers. The
# test (or the file of the server) defines:
#
#     client_commands RUN CLIENT LIMIT    prints the commands of transactions 1, 2, ..., LIMIT (0: for
#                                         ever); a transaction's last command prints RUN-CLIENT:n
#     CLIENT_PROGRAM                      the words of a command that reads them
#     server_pid                          prints the server's process id; nothing when there is none

CLIENTS=3
RUN=0
CLIENT_PIDS=()
CLIENT_JOBS=()
LOAD_FAILED=
mkdir -p "$WORK/clients"

# The acknowledgement is what the client prints; whatever else it prints is an error.
client_start() { # CLIENT LIMIT
    local pipe=$WORK/clients/pipe.$RUN-$1
    mkfifo "$pipe"
    (
        trap - EXIT ERR
        client_commands "$RUN" "$1" "$2" >"$pipe" 2>/dev/null || :
    ) &
    # shellcheck disable=SC2016 # for the shell that is started
    spawn "$ACKS/$RUN-$1" bash -c 'exec "$@" <"$0"' "$pipe" "${CLIENT_PROGRAM[@]}"
    CLIENT_PIDS+=("$SPAWN_PID")
    CLIENT_JOBS+=("$SPAWN_JOB")
}

db_load_start() {
    local client
    RUN=$((RUN + 1))
    CLIENT_PIDS=() CLIENT_JOBS=()
    for ((client = 1; client <= CLIENTS; client++)); do
        client_start $client 0
    done
}

db_load_stop() {
    local i
    LOAD_FAILED=
    # A server whose file system is gone must not keep its clients waiting.
    if [ -z "$(server_pid)" ] || ! is_running "${V_PID[$VOLUME]:-0}"; then
        db_crash
    fi
    for i in "${!CLIENT_PIDS[@]}"; do
        is_running "${CLIENT_PIDS[i]}" || LOAD_FAILED=1
        # The generator of its commands ends with it, by SIGPIPE.
        kill -KILL "${CLIENT_PIDS[i]}" 2>/dev/null || :
        wait "${CLIENT_JOBS[i]}" 2>/dev/null || :
    done
    CLIENT_PIDS=() CLIENT_JOBS=()
}

db_load_healthy() {
    db_load_stop
    [ -z "$LOAD_FAILED" ] || fail "a client ended: $(tail -n 3 "$ACKS/$RUN"-*)"
}

# One client that makes N transactions and ends.
clients_run() { # N
    RUN=$((RUN + 1))
    CLIENT_PIDS=() CLIENT_JOBS=()
    client_start 1 "$1"
    wait "${CLIENT_JOBS[0]}" || fail "the client failed: $(tail -n 3 "$ACKS/$RUN-1")"
    CLIENT_PIDS=() CLIENT_JOBS=()
    [ "$(grep -c "^$RUN-1:" "$ACKS/$RUN-1")" = "$1" ] || fail "the client says: $(tail -n 3 "$ACKS/$RUN-1")"
}

# What of a client's answers is acknowledged.
acked_of() { cat "$1"; } # FILE

# A line that is cut off is no acknowledgement: its end would be another number.
db_acked() {
    local file
    for file in "$ACKS"/*-*; do
        [ -f "$file" ] || continue
        head -n "$(wc -l <"$file")" "$file" >"$WORK/clients/whole"
        acked_of "$WORK/clients/whole"
    done | grep -E '^[0-9]+-[0-9]+:[0-9]+$' || :
}
db_mark() { db_acked >"$1"; }
db_progress() { db_acked | wc -l; }
db_forget() { rm -f "$ACKS"/*-*; }
