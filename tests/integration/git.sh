# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# git for tests: clones of a local repository with many small files in $DB, one for each stream of
# commits, and the bare repository that they push to. Stands on lib.sh and disasters.sh.
#
# Commit n of a stream writes the files n/<n> and slot-<n % 4>; it is acknowledged when git has ended.

need_program git git
GIT_STREAMS="a b"
GIT_FILES=1500
GIT_PIDS=()
LOAD_FAILED=
# Every object and reference is synced before git says that it is done.
cat >"$WORK/gitconfig" <<'CONFIG'
[user]
    name = zoo
    email = zoo@localhost
[core]
    fsync = all
    fsyncMethod = fsync
[gc]
    auto = 0
    autoDetach = false
[init]
    defaultBranch = main
[safe]
    directory = *
[advice]
    detachedHead = false
CONFIG
export GIT_CONFIG_GLOBAL=$WORK/gitconfig GIT_CONFIG_NOSYSTEM=1

# A repository of two commits, outside of the mount.
git_source() {
    [ ! -e "$WORK/source.git" ] || return 0
    git init -q --bare "$WORK/source.git"
    awk -v files="$GIT_FILES" '
        function text(s) { printf "data %d\n%s\n", length(s), s }
        function commit(mark, what) {
            printf "commit refs/heads/main\nmark :%d\ncommitter zoo <zoo@localhost> %d +0000\n", mark, 1700000000 + mark
            text(what)
        }
        BEGIN {
            commit(1, "many files")
            for (i = 0; i < files; i++) {
                printf "M 100644 inline folder-%d/file-%d\n", i % 40, i
                text(sprintf("file %d: %s", i, sprintf("%0*d", 20 + i * 7 % 3000, i)))
            }
            commit(2, "some of them change")
            print "from :1"
            for (i = 0; i < files; i += 5) {
                printf "M 100644 inline folder-%d/file-%d\n", i % 40, i
                text("changed " i)
            }
        }' | git -C "$WORK/source.git" fast-import --quiet
}

db_init() {
    local stream
    git_source
    git clone -q --bare --no-hardlinks "$WORK/source.git" "$DB/origin.git"
    for stream in $GIT_STREAMS; do
        git clone -q --no-hardlinks "$DB/origin.git" "$DB/$stream" 2>"$WORK/clone.out" ||
            fail "git clone: $(cat "$WORK/clone.out")"
        mkdir -p "$DB/$stream/n"
    done
}
db_start() { :; }
db_stop() { :; }
db_crash() { :; }

git_commit() { # STREAM N
    local tree=$DB/$1
    echo "$1:$2" >"$tree/n/$2"
    printf '%s\n' "$1:$2" "$(printf '%0900d' "$2")" >"$tree/slot-$(($2 % 4))"
    git -C "$tree" add "n/$2" "slot-$(($2 % 4))" && git -C "$tree" commit -q -m "$1:$2"
}

git_newest() { # STREAM: the number of its newest commit
    git -C "$DB/$1" log --format=%s | awk -F: -v stream="$1" '$1 == stream { print $2; exit }'
}

# Pushes now and then, and gathers objects into packs while the other stream goes on.
git_commits() { # STREAM LIMIT
    local n done=0
    trap - ERR EXIT
    trap 'stop=1' TERM
    stop=
    n=$(git_newest "$1") || exit 3
    while [ -z "$stop" ] && { [ "$2" -eq 0 ] || [ $done -lt "$2" ]; }; do
        n=$((n + 1))
        git_commit "$1" "$n" || exit 3
        echo "$1:$n" >>"$ACKS/$1"
        done=$((done + 1))
        if [ $((n % 15)) -eq 0 ]; then
            git -C "$DB/$1" push -q origin "HEAD:refs/heads/$1" || exit 3
        fi
        if [ $((n % 25)) -eq 0 ]; then
            git -C "$DB/$1" gc -q || exit 3
        fi
    done
}

db_load_start() {
    local stream
    GIT_PIDS=()
    : >"$WORK/load.out"
    # Each stream is a process group of its own.
    set -m
    for stream in $GIT_STREAMS; do
        git_commits "$stream" 0 >>"$WORK/load.out" 2>&1 </dev/null &
        GIT_PIDS+=("$!")
    done
    set +m
}

db_load_stop() {
    local pid
    LOAD_FAILED=
    for pid in "${GIT_PIDS[@]}"; do
        kill -TERM "$pid" 2>/dev/null || :
    done
    for pid in "${GIT_PIDS[@]}"; do
        wait "$pid" 2>/dev/null || LOAD_FAILED=1
    done
    GIT_PIDS=()
}

db_load_healthy() {
    db_load_stop
    [ -z "$LOAD_FAILED" ] || fail "git failed: $(tail -n 5 "$WORK/load.out")"
}

# The shells of the streams and whatever git runs for them, at once.
db_kill() {
    local pid
    for pid in "${GIT_PIDS[@]}"; do
        kill -KILL -- "-$pid" 2>/dev/null || :
    done
}

# What a user does after a crash: locks of the dead go, the tree is put back to the newest commit.
git_recover() { # STREAM
    find "$DB/$1/.git" "$DB/origin.git" -name '*.lock' -type f -delete
    git -C "$DB/$1" reset -q --hard
    git -C "$DB/$1" clean -q -f -d
    mkdir -p "$DB/$1/n"
}

git_check_tree() { # STREAM NEWEST
    local slot n
    [ -z "$(git -C "$DB/$1" status --porcelain)" ] || { echo "$1: the tree is not as committed" >&2 && return 1; }
    [ "$(find "$DB/$1/n" -type f | wc -l)" -eq "$2" ] || { echo "$1: not $2 files" >&2 && return 1; }
    for slot in 0 1 2 3; do
        n=$(($2 - ($2 + 4 - slot) % 4))
        [ "$n" -le 0 ] || [ "$(head -n 1 "$DB/$1/slot-$slot")" = "$1:$n" ] || {
            echo "$1: slot $slot is not of commit $n" >&2
            return 1
        }
    done
    [ "$(find "$DB/$1" -path '*/folder-*/file-*' -type f | wc -l)" -eq $GIT_FILES ] || {
        echo "$1: files of the clone are missing" >&2
        return 1
    }
}

db_ids() {
    local stream newest
    for stream in $GIT_STREAMS; do
        git_recover "$stream" >&2 || return 1
        git -C "$DB/$stream" fsck --full --strict --no-dangling --no-progress >&2 || return 1
        git -C "$DB/$stream" log --format=%s | grep "^$stream:" >"$WORK/commits.$stream" || :
        newest=$(wc -l <"$WORK/commits.$stream")
        awk -F: -v newest="$newest" '$2 != newest - FNR + 1 { bad = 1 } END { exit bad }' "$WORK/commits.$stream" ||
            { echo "$stream: commits are not in order" >&2 && return 1; }
        git_check_tree "$stream" "$newest" || return 1
        cat "$WORK/commits.$stream"
    done
    git -C "$DB/origin.git" fsck --full --strict --no-dangling --no-progress >&2
}

db_acked() { cat "$ACKS"/* 2>/dev/null || :; }
db_mark() { db_acked >"$1"; }
db_progress() { db_acked | wc -l; }
db_forget() { rm -f "$ACKS"/*; }
