#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs that look for holes copy a file whose writer has it open and has synced nothing: they see
# blocks where there may be data, and copy the data. A file that is closed has the blocks it has.
TEST_TIMEOUT=60
. "$(dirname "$0")/lib.sh"

need_program rsync rsync
volume_new v file
volume_mount v create,checkpoint_interval=0
mnt=${V_MNT[v]}
mkdir "$WORK/out"

blocks() { stat -c %b "$1"; }

copy() { # HOW FILE
    case $1 in
        tar) tar -C "$mnt" -S -c "$2" | tar -C "$WORK/out" -x ;;
        cp) cp --sparse=auto "$mnt/$2" "$WORK/out/$2" ;;
        rsync) rsync -a --sparse "$mnt/$2" "$WORK/out/$2" ;;
    esac
}

step "files whose writers have them open"
for how in tar cp rsync; do
    for size in 100 5000 1000000; do
        for kind in new empty truncated allocated flushed; do
            file=$how-$size-$kind
            head -c $size /dev/urandom >"$WORK/data"
            case $kind in
                new) ;;
                empty) : >"$mnt/$file" ;;
                truncated) truncate -s $size "$mnt/$file" ;;
                allocated) fallocate -l $size "$mnt/$file" ;;
                flushed) # a page that the daemon has, and a tail that only the kernel has
                    head -c 4096 /dev/urandom >"$WORK/first"
                    cp "$WORK/first" "$mnt/$file"
                    sync "$mnt/$file"
                    ;;
            esac
            case $kind in
                empty | truncated)
                    [ "$(blocks "$mnt/$file")" = 0 ] || fail "$file: blocks before it was written" ;;
                allocated)
                    [ $(($(blocks "$mnt/$file") * 512)) -ge $size ] || fail "$file: too few blocks" ;;
            esac
            if [ "$kind" = flushed ]; then
                cat "$WORK/data" >"$WORK/tail"
                cat "$WORK/first" "$WORK/tail" >"$WORK/data"
                exec 7>>"$mnt/$file"
                cat "$WORK/tail" >&7
            else
                exec 7<>"$mnt/$file"
                cat "$WORK/data" >&7
            fi
            [ "$(blocks "$mnt/$file")" -gt 0 ] || [ -n "$TEST_PLAIN" ] || fail "$file: no blocks"
            # Up to 128 KiB of a tail show although the daemon does not have them.
            if [ "$kind" = flushed ] && [ $size -lt 100000 ] && [ -z "$TEST_PLAIN" ]; then
                [ $(($(blocks "$mnt/$file") * 512)) -ge $((4096 + size)) ] ||
                    fail "$file: $(blocks "$mnt/$file") blocks, fewer than it has data"
            fi
            copy $how "$file"
            assert_same_file "$WORK/data" "$WORK/out/$file" "the copy of $file"
            exec 7>&-
        done
    done
done

# One process writes it all: at each close(2) of the file the kernel asks for the blocks anyway.
step "a file that grows while it is open"
has_size() { [ "$(stat -c %s "$1")" = "$2" ]; }
has_blocks_for() { [ $(($(blocks "$1") * 512)) -ge "$2" ]; }
mkfifo "$WORK/stream"
for flags in oflag=dsync ""; do
    file=$mnt/grows-$flags
    dd if="$WORK/stream" of="$file" bs=1M iflag=fullblock $flags status=none &
    writer=$!
    exec 7>"$WORK/stream"
    total=0
    for mib in 1 20 60; do
        head -c $((mib << 20)) /dev/urandom >&7
        total=$((total + (mib << 20)))
        wait_for 10 "$total bytes in $file" has_size "$file" "$total"
        # Makes the kernel hand the data over without an fsync of the file.
        [ -n "$flags" ] || sync -f "$mnt"
        wait_for 10 "the blocks of $total bytes in $file" has_blocks_for "$file" "$total"
    done
    exec 7>&-
    wait "$writer"
done

step "closed files"
: >"$mnt/nothing"
exec 7>"$mnt/late"
[ "$(blocks "$mnt/late")" -gt 0 ] || [ -n "$TEST_PLAIN" ] || fail "an open file may have data"
exec 7>&-
has_no_blocks() { [ "$(blocks "$1")" = 0 ]; }
for file in nothing late; do
    wait_for 10 "$file without blocks" has_no_blocks "$mnt/$file"
done
truncate -s 1M "$mnt/nothing"
assert_equal 0 "$(blocks "$mnt/nothing")" "blocks of a hole"
volume_unmount v
