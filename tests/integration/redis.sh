# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2034 # CLIENT_PROGRAM and UNDER_WAY are read elsewhere
# A Redis server for tests, on a Unix socket only, in $DB. Stands on lib.sh and clients.sh.
# REDIS_MODE: aof, each command durable when it is answered; or rdb, durable when SAVE is answered.

need_program redis-server redis-server
need_program redis-cli redis-tools
REDIS_MODE=${REDIS_MODE:-aof}
REDIS_PID=
REDIS_JOB=
SAVE_EVERY=50 # transactions of a client, with rdb
# Socket paths are at most 107 bytes long.
REDIS_SOCKET=$(mktemp -d /tmp/ckptfs-redis.XXXXXX)
remember_directory "$REDIS_SOCKET"

server_pid() { echo "$REDIS_PID"; }
redis() { redis-cli -e -s "$REDIS_SOCKET/s" "$@"; } # WORDS...

redis_mode() { # MODE
    REDIS_MODE=$1
    REDIS_OPTIONS=(--port 0 --unixsocket "$REDIS_SOCKET/s" --daemonize no --save "" --logfile "")
    CLIENT_PROGRAM=(redis-cli -s "$REDIS_SOCKET/s")
    UNDER_WAY=1
    if [ "$REDIS_MODE" = aof ]; then
        # Rewritten now and then while the load runs.
        REDIS_OPTIONS+=(--appendonly yes --appendfsync always --auto-aof-rewrite-min-size 256kb)
    else
        UNDER_WAY=$((SAVE_EVERY + 1))
    fi
}

db_init() { db_start; }

# A server that reads its data answers LOADING.
redis_answers() {
    [ "$(redis PING 2>/dev/null)" = PONG ] || ! is_running "$REDIS_PID"
}

db_start() {
    spawn "$WORK/redis.out" redis-server --dir "$DB" "${REDIS_OPTIONS[@]}"
    REDIS_PID=$SPAWN_PID
    REDIS_JOB=$SPAWN_JOB
    wait_for 60 "Redis to answer" redis_answers
    is_running "$REDIS_PID" || fail "Redis ended instead of starting: $(tail -n 20 "$WORK/redis.out")"
}

redis_is_gone() { ! is_running "$REDIS_PID"; }

db_stop() {
    local manifest
    kill -TERM "$REDIS_PID"
    wait_for 60 "Redis to stop" redis_is_gone
    wait "$REDIS_JOB" || fail "Redis ended with $?: $(tail -n 20 "$WORK/redis.out")"
    REDIS_PID=
    for manifest in "$DB"/appendonlydir/*.manifest; do
        [ ! -f "$manifest" ] || redis-check-aof "$manifest" >"$WORK/redis-check.out" 2>&1 ||
            fail "redis-check-aof: $(tail -n 5 "$WORK/redis-check.out")"
    done
    [ ! -f "$DB/dump.rdb" ] || redis-check-rdb "$DB/dump.rdb" >"$WORK/redis-check.out" 2>&1 ||
        fail "redis-check-rdb: $(tail -n 5 "$WORK/redis-check.out")"
}

db_kill() {
    [ -n "$REDIS_PID" ] || return 0
    kill -KILL "$REDIS_PID" 2>/dev/null || :
    wait "$REDIS_JOB" 2>/dev/null || :
    REDIS_PID=
}
db_crash() { db_kill; }

# With dumps, what a client had done before it got the answer to a SAVE.
acked_of() { # FILE
    if [ "$REDIS_MODE" = aof ]; then
        cat "$1"
    else
        awk '$0 == "OK" { printf "%s", text; text = ""; next } { text = text $0 "\n" }' "$1"
    fi
}

client_commands() { # RUN CLIENT LIMIT
    awk -v run="$1" -v client="$2" -v limit="$3" -v mode="$REDIS_MODE" -v every="$SAVE_EVERY" 'BEGIN {
        script = "redis.call(\x27SADD\x27, \x27ids:\x27 .. ARGV[1], ARGV[2]);"
        script = script " local id = ARGV[1] .. \x27:\x27 .. ARGV[2];"
        script = script " redis.call(\x27SET\x27, \x27slot:\x27 .. ARGV[3], id .. \x27 \x27 .. string.rep(redis.sha1hex(id), 16));"
        script = script " return id"
        for (n = 1; limit == 0 || n <= limit; n++) {
            printf "EVAL \"%s\" 0 %d-%d %d %d-%d\n", script, run, client, n, client, n % 4
            if (mode == "rdb" && (n % every == 0 || n == limit))
                print "SAVE"
        }
    }'
}

# The slot of a client is as of its newest run, in which numbers begin with 1 again.
db_ids() {
    redis EVAL '
        local lines, newest = {}, {}
        for _, key in ipairs(redis.call("KEYS", "ids:*")) do
            local run, client = string.match(key, "ids:(%d+)-(%d+)")
            local most = 0
            for _, n in ipairs(redis.call("SMEMBERS", key)) do
                n = tonumber(n)
                if n > most then most = n end
                lines[#lines + 1] = run .. "-" .. client .. ":" .. n
                local slot = "slot:" .. client .. "-" .. n % 4
                local old = newest[slot]
                if not old or tonumber(run) > old.run or (tonumber(run) == old.run and n > old.n) then
                    newest[slot] = {run = tonumber(run), n = n, id = run .. "-" .. client .. ":" .. n}
                end
            end
            if most ~= redis.call("SCARD", key) then
                return redis.error_reply("gaps in " .. key)
            end
        end
        for slot, is in pairs(newest) do
            if redis.call("GET", slot) ~= is.id .. " " .. string.rep(redis.sha1hex(is.id), 16) then
                return redis.error_reply(slot .. " is not as " .. is.id .. " left it")
            end
        end
        return lines' 0 | grep -v '^$' || [ "${PIPESTATUS[0]}" -eq 0 ]
}
